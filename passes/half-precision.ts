/** Graphs that store f16. */
import type { Graph } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';
import { passes, runPipeline, simplifications } from './pipeline.ts';
import { castsIntoReductions, storeHalf } from './tile/store-half.ts';

/** Passes that clear up after casts: they also make f16 weights of f32 ones. */
const cleaning: ReadonlySet<string> = new Set(['simplify', 'fold-constants', 'eliminate-common-subexpressions', 'eliminate-dead-code']);

/**
 * Simplifies a graph and stores what it computes as f16: weights, and all values between inputs and outputs, which stay f32, as does state that is updated. Products add up in f32 and are rounded once,
 * reductions are computed in f32.
 */
export const halfPrecision = (graph: Graph, target: Target): Graph => inHalf(runPipeline(graph, target, { passes: simplifications }), target, { masters: true });

/** A simplified graph that stores f16 (`storeHalf`, which says what `masters` means), its casts cleared up. */
export function inHalf(simple: Graph, target: Target, options: { readonly masters?: boolean } = {}): Graph {
  return castsIntoReductions(runPipeline(storeHalf(simple, options), target, { passes: passes.filter((p) => cleaning.has(p.name)) }));
}
