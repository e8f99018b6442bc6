import type { Graph } from '../ir/graph.ts';
import { splitStep, type Recompute } from './tile/recompute.ts';
import { lossName } from './train/differentiate.ts';

/**
 * Makes the backward pass of a training step compute again what it does not keep of the forward pass: with `blocks` all but the values through which everything passes (residual additions), with `all` keeping
 * every √n-th of those alone. What a loop computes stays as it is. Passes that join equal ops may not follow.
 */
export function recomputeForward(graph: Graph, level: Recompute): Graph {
  if (!graph.outputs.some((o) => o.name === lossName)) return graph;
  const { forward, backward } = splitStep(graph, level);
  return { ...graph, ops: [...forward, ...backward] };
}
