/** The passes in order, and the loop that runs them. */
import { InternalError, UserError } from '../ir/diagnostic.ts';
import type { Graph } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';
import { verify } from '../ir/verify.ts';
import { eliminateCommonSubexpressions } from './eliminate-common-subexpressions.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { foldAffine } from './fold-affine.ts';
import { foldConstants } from './fold-constants.ts';
import { gradientsAsConvolutions } from './gradients-as-convolutions.ts';
import { fuse } from './fuse.ts';
import { fuseBands } from './fuse-bands.ts';
import { fuseMoments } from './fuse-moments.ts';
import { fuseSlabs } from './fuse-slabs.ts';
import { joinAffine } from './join-affine.ts';
import { hoistInvariants, hoistWeights } from './hoist-invariants.ts';
import { momentsInBlocks } from './moments-in-blocks.ts';
import { rebuildCheapValues } from './rebuild-cheap-values.ts';
import { rebuildForSums } from './rebuild-for-sums.ts';
import { recomputeForward } from './recompute-forward.ts';
import { selectAlgorithms } from './select-algorithms.ts';
import { simplify } from './simplify.ts';
import { splitReductions } from './split-reductions.ts';
import { splitWeightGradients } from './split-weight-gradients.ts';
import type { Recompute } from './tile/recompute.ts';

export interface Pass {
  readonly name: string;
  run(graph: Graph, target: Target): Graph;
  /** Chooses or makes kernels of a backend: whoever goes on with core ops (tiles, storage in f16) leaves it out. */
  readonly kernels?: true;
}

const pass = (name: string, run: Pass['run']): Pass => ({ name, run });
const kernels = (name: string, run: Pass['run']): Pass => ({ name, run, kernels: true });

/** Graph to graph of fused ops. A name that stands twice is told apart by its number in dumps. */
export const passes: readonly Pass[] = [
  pass('eliminate-dead-code', eliminateDeadCode),
  pass('simplify', simplify),
  pass('fold-constants', foldConstants),
  pass('eliminate-common-subexpressions', eliminateCommonSubexpressions),
  pass('hoist-invariants', hoistInvariants),
  pass('fold-affine', foldAffine),
  pass('hoist-weights', hoistWeights),
  pass('fold-constants', foldConstants),
  pass('join-affine', joinAffine),
  pass('simplify', simplify),
  pass('eliminate-common-subexpressions', eliminateCommonSubexpressions),
  kernels('gradients-as-convolutions', gradientsAsConvolutions),
  pass('fold-constants', foldConstants),
  kernels('split-reductions', splitReductions),
  kernels('split-weight-gradients', splitWeightGradients),
  kernels('select-algorithms', selectAlgorithms),
  pass('hoist-weights', hoistWeights),
  pass('fold-constants', foldConstants),
  kernels('moments-in-blocks', momentsInBlocks),
  pass('rebuild-cheap-values', rebuildCheapValues),
  pass('rebuild-for-sums', rebuildForSums),
  // Values that nobody reads any more would become results of fused ops.
  pass('eliminate-dead-code', eliminateDeadCode),
  kernels('fuse', fuse),
  kernels('fuse-bands', fuseBands),
  kernels('fuse-moments', fuseMoments),
  kernels('fuse-slabs', fuseSlabs),
  pass('eliminate-dead-code', eliminateDeadCode),
];

/** The passes up to core ops, without those that choose or make kernels. */
export const simplifications: readonly Pass[] = passes.filter((p) => !p.kernels);

/** The passes for a training step whose backward pass computes values of the forward pass again, so that less is kept between them. */
export function recomputing(level: Recompute): readonly Pass[] {
  const last = passes.findLastIndex((p) => p.name === 'eliminate-common-subexpressions');
  return [...passes.slice(0, last + 1), pass('recompute-forward', (g) => recomputeForward(g, level)), ...passes.slice(last + 1)];
}

export interface PipelineOptions {
  /** Runs other passes than the default ones. */
  readonly passes?: readonly Pass[];
  /** Called after each pass that changed the graph; `index` counts all passes from 1. */
  readonly onGraph?: (graph: Graph, pass: string, index: number) => void;
  /** Called before each pass. */
  readonly onProgress?: (pass: string, index: number, of: number) => void;
  /** The last pass to run, by name; its first occurrence counts. */
  readonly stopAfter?: string;
  /** Verifies the graph before the first pass and after each. */
  readonly verify?: boolean;
}

/** A pass that threw, or that gave a graph which does not verify. `graph` is what went in: to be dumped. */
export class PassError extends InternalError {
  readonly pass: string;
  readonly graph: Graph;
  constructor(pass: string, graph: Graph, cause: unknown) {
    super(`pass ${pass}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.pass = pass;
    this.graph = graph;
  }
}

/** Runs the passes in order. A UserError (a feature that a pass refuses) goes through as it is; anything else becomes a PassError. */
export function runPipeline(graph: Graph, target: Target, options: PipelineOptions = {}): Graph {
  const list = options.passes ?? passes;
  if (options.verify) verify(graph);
  let current = graph;
  for (const [i, p] of list.entries()) {
    options.onProgress?.(p.name, i + 1, list.length);
    const next = runPass(p, current, target, options.verify === true);
    if (next !== current) options.onGraph?.(next, p.name, i + 1);
    current = next;
    if (p.name === options.stopAfter) break;
  }
  return current;
}

function runPass(p: Pass, graph: Graph, target: Target, check: boolean): Graph {
  try {
    const next = p.run(graph, target);
    if (check && next !== graph) verify(next);
    return next;
  } catch (e) {
    if (e instanceof UserError) throw e;
    throw new PassError(p.name, graph, e);
  }
}
