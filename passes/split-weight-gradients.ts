import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Builder } from '../ir/builder.ts';
import { num } from '../ir/op.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, sizeOf } from '../ir/type.ts';

/** Partial sums at most: 4 threads take 2 each. */
const mostParts = 8;
/** Bytes of all partial sums together, where the operands have less. */
const leastBytes = 1 << 20;

/**
 * Rewrites every f32 `convWeight` of one group as partial sums over shares of the batch, which run side by side, and their sum. The number of parts follows from the sizes alone, so that no bit
 * depends on the number of threads.
 */
export function splitWeightGradients(graph: Graph, target: Target): Graph {
  // The partial sums read channels that lie side by side, as packed convolutions leave them.
  if (target.panel === 0) return graph;
  return rewriteOps(graph, (op, b) => (isSplittable(op) ? split(op, b) : undefined));
}

function isSplittable(op: Op): boolean {
  if (op.name !== 'convWeight' || num(op.attrs, 'parts') > 0 || num(op.attrs, 'groups') !== 1) return false;
  const { dtype, shape } = op.results[0]!.type;
  return dtype === 'f32' && shape.length <= 4 && op.operands[0]!.type.shape[0]! > 0 && sizeOf(shape) > 0;
}

function split(op: Op, b: Builder): readonly Value[] {
  const [x, dy] = op.operands as [Value, Value];
  const result = op.results[0]!;
  const batch = x.type.shape[0]!;
  const most = Math.min(mostParts, batch, Math.max(1, Math.floor(Math.max(leastBytes, bytesOf(x.type) + bytesOf(dy.type)) / bytesOf(result.type))));
  const parts = Array.from({ length: most }, (_, i) => most - i).find((p) => batch % p === 0)!;
  const sums = b.one('convWeight', [x, dy], { ...op.attrs, parts });
  return [parts === 1 ? b.reshape(sums, result.type.shape) : b.one('reduceSum', [sums], { axes: [0] })];
}
