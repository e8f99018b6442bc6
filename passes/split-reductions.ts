import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { nums } from '../ir/op.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { sizeOf } from '../ir/type.ts';

/** Results that are too few to share out, and elements that are worth it. */
const fewResults = 256;
const manyElements = 65536;
const leastSamples = 4;

/**
 * Rewrites sums and moments over samples and other axes that have few results (the statistics of batch norms, gradients of biases) in two stages: each sample by itself, which can be shared
 * out, then over samples. Moments are joined by Chan's rule.
 */
export function splitReductions(graph: Graph, _target: Target): Graph {
  return rewriteOps(graph, (op, b) => (isSplittable(op) ? split(op, b) : undefined));
}

function isSplittable(op: Op): boolean {
  if (op.name !== 'reduceSum' && op.name !== 'moments') return false;
  const { dtype, shape } = op.operands[0]!.type;
  const axes = nums(op.attrs, 'axes');
  return dtype === 'f32' && axes.length > 1 && axes.includes(0) && shape[0]! >= leastSamples && sizeOf(shape) >= manyElements && sizeOf(op.results[0]!.type.shape) <= fewResults;
}

function split(op: Op, b: Builder): readonly Value[] {
  const x = op.operands[0]!;
  const axes = nums(op.attrs, 'axes').filter((a) => a !== 0);
  if (op.name === 'reduceSum') return [b.one('reduceSum', [b.one('reduceSum', [x], { axes })], { axes: [0] })];
  const [means, squares] = b.op('moments', [x], { axes }) as [Value, Value];
  const [mean, spread] = b.op('moments', [means], { axes: [0] }) as [Value, Value];
  const count = axes.reduce((n, a) => n * x.type.shape[a]!, 1);
  return [mean, b.add(b.one('reduceSum', [squares], { axes: [0] }), b.mul(spread, count))];
}
