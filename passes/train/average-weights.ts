import type { Graph } from '../../ir/graph.ts';
import { extend, parametersOf } from './extend.ts';

/** The state that holds the moving average of a parameter. */
export const averageName = (parameter: string): string => `${parameter}.average`;

/** Keeps a moving average of each parameter as state: share · average + (1 - share) · parameter, after each update. It starts as the parameter does. */
export function averageWeights(graph: Graph, share: number | undefined): Graph {
  if (share === undefined) return graph;
  const updates = new Map(graph.updates.map((u) => [u.state, u.value]));
  return extend(graph, (x) => {
    for (const { state } of parametersOf(graph)) {
      const average = x.state(averageName(state.name), state.value.type, state.init);
      x.update(average, x.b.add(x.b.mul(average, share), x.b.mul(updates.get(state.value)!, 1 - share)));
    }
  });
}
