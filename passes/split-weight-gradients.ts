import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Builder } from '../ir/builder.ts';
import { num } from '../ir/op.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, sizeOf } from '../ir/type.ts';

/** Bytes of all partial sums together, where the operands have less. */
const leastBytes = 1 << 20;

/**
 * Rewrites every f32 `convWeight` as partial sums over shares of the batch, which run side by side, and their sum: at most 8 (4 threads take 2 each), on a GPU 64.
 * The number of parts follows from the sizes alone, so that no bit depends on the number of threads.
 */
export function splitWeightGradients(graph: Graph, target: Target): Graph {
  // Where weights are packed, the kernels run on the threads of a CPU.
  const parts = target.panel > 0 ? 8 : 64;
  return rewriteOps(graph, (op, b) => (isSplittable(op) ? split(op, b, parts) : undefined));
}

function isSplittable(op: Op): boolean {
  if (op.name !== 'convWeight' || num(op.attrs, 'parts') > 0) return false;
  const { dtype, shape } = op.results[0]!.type;
  return dtype === 'f32' && shape.length <= 4 && op.operands[0]!.type.shape[0]! > 0 && sizeOf(shape) > 0;
}

function split(op: Op, b: Builder, mostParts: number): readonly Value[] {
  const [x, dy] = op.operands as [Value, Value];
  const result = op.results[0]!;
  const batch = x.type.shape[0]!;
  const most = Math.min(mostParts, batch, Math.max(1, Math.floor(Math.max(leastBytes, bytesOf(x.type) + bytesOf(dy.type)) / bytesOf(result.type))));
  const parts = Array.from({ length: most }, (_, i) => most - i).find((p) => batch % p === 0)!;
  const sums = b.one('convWeight', [x, dy], { ...op.attrs, parts });
  return [parts === 1 ? b.reshape(sums, result.type.shape) : b.one('reduceSum', [sums], { axes: [0] })];
}
