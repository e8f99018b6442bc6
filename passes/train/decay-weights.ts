import type { Graph } from '../../ir/graph.ts';
import { redirect } from './extend.ts';
import { matches, type OptimizerSpec } from './options.ts';

/** Rules that take weight decay as a part of the gradient (L2); the others apply it themselves, beside the gradient. */
const coupled: ReadonlySet<OptimizerSpec['kind']> = new Set(['sgd', 'adam', 'adagrad', 'rmsprop']);

/** Adds weightDecay · w to the direction of each parameter that decays, where the rule has it as a part of the gradient. */
export function decayWeights(graph: Graph, spec: OptimizerSpec): Graph {
  if (!coupled.has(spec.kind)) return graph;
  return redirect(graph, ({ b }, { state, direction }) => {
    const decay = decayOf(spec, state.name);
    return decay === 0 ? undefined : b.add(direction, b.mul(state.value, decay));
  });
}

/** The weight decay of a parameter. */
export const decayOf = (spec: OptimizerSpec, name: string): number => (matches(name, spec.noDecay ?? []) ? 0 : (spec.weightDecay ?? 0));
