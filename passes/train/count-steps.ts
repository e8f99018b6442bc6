import type { Graph, Value } from '../../ir/graph.ts';
import { invariant } from '../../ir/diagnostic.ts';
import { extend } from './extend.ts';

/** The state that counts updates. */
export const stepName = 'train.step';

/** Adds the number of updates so far as state, which each step raises by one. */
export function countSteps(graph: Graph): Graph {
  return extend(graph, (x) => {
    const steps = x.state(stepName, { dtype: 'i64', shape: [] }, 'zero');
    x.update(steps, x.b.add(steps, 1));
  });
}

/** The number of updates before this step, and with it. */
export function stepsOf(graph: Graph): { readonly before: Value; readonly after: Value } {
  const before = graph.state.find((s) => s.name === stepName)?.value;
  const after = graph.updates.find((u) => u.state === before)?.value;
  invariant(before && after, 'steps are not counted');
  return { before, after };
}
