import type { Graph, Op } from '../ir/graph.ts';
import { num } from '../ir/op.ts';
import { splitStep, type Recompute } from './tile/recompute.ts';
import { lossName } from './train/differentiate.ts';
import { isGradientName } from './train/extend.ts';

/**
 * Makes the backward pass of a training step compute again what it does not keep of the forward pass: with `blocks` all but the values through which everything passes (residual additions), with `all` keeping
 * every √n-th of those alone. Of a step over micro-batches that is what one micro-batch keeps; what other loops compute stays as it is. Passes that join equal ops may not follow.
 */
export function recomputeForward(graph: Graph, level: Recompute): Graph {
  if (!graph.outputs.some((o) => o.name === lossName)) return graph;
  if (graph.ops.some((op) => lossOf(op) >= 0)) return { ...graph, ops: graph.ops.map((op) => (lossOf(op) < 0 ? op : { ...op, regions: op.regions.map((body) => inOrder(body, level, gradientsOf(op, body))) })) };
  return inOrder(graph, level);
}

function inOrder(graph: Graph, level: Recompute, late?: Graph['outputs']): Graph {
  const { forward, backward } = splitStep(graph, level, late);
  return { ...graph, ops: [...forward, ...backward] };
}

/** Values that a loop carries, by their names: the sums of accumulate-gradients. The index of an iteration comes before them. */
const carriedNames = (op: Op): readonly (string | undefined)[] => (op.name === 'loop' ? op.regions[0]!.inputs.slice(1, 1 + num(op.attrs, 'carried')).map((v) => v.name) : []);

/** The place of the loss among what a loop over micro-batches carries; -1 of other ops. */
const lossOf = (op: Op): number => carriedNames(op).indexOf(lossName);

/** What an iteration adds to gradients; whether to go on comes before what is carried. */
function gradientsOf(op: Op, body: Graph): Graph['outputs'] {
  const names = carriedNames(op);
  return body.outputs.filter((_, i) => isGradientName(names[i - 1] ?? ''));
}
