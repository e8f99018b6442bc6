/** A model for inference that stores f16. */
import type { Graph } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';
import { passes, runPipeline } from './pipeline.ts';
import { castsIntoReductions, storeHalf } from './tile/store-half.ts';

/** Passes that choose kernels, and fusion: they come after. */
const later: ReadonlySet<string> = new Set(['gradients-as-convolutions', 'split-reductions', 'split-weight-gradients', 'select-algorithms', 'rebuild-cheap-values', 'rebuild-for-sums', 'fuse', 'fuse-bands']);
/** Passes that clear up after casts: they also make f16 weights of f32 ones. */
const cleaning: ReadonlySet<string> = new Set(['simplify', 'fold-constants', 'eliminate-common-subexpressions', 'eliminate-dead-code']);

/**
 * Simplifies a graph and stores what it computes as f16: weights, and all values between inputs and outputs, which stay f32, as does state that is updated. Products add up in f32 and are rounded once,
 * reductions are computed in f32.
 */
export function halfPrecision(graph: Graph, target: Target): Graph {
  const simple = runPipeline(graph, target, { passes: passes.filter((p) => !later.has(p.name)) });
  return castsIntoReductions(runPipeline(storeHalf(simple, { masters: true }), target, { passes: passes.filter((p) => cleaning.has(p.name)) }));
}
