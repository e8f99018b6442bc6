/** Arithmetic of a graph, for reports. */
import type { Graph, Op } from '../../ir/graph.ts';
import { sizeOf } from '../../ir/type.ts';

/** Multiply-adds of products and convolutions, each written out as it stands (no Winograd, no skipped padding); bodies of loops count once a trip. */
export function countMultiplyAdds(graph: Graph): number {
  return graph.ops.reduce((n, op) => n + ofOp(op), 0);
}

function ofOp(op: Op): number {
  const trips = op.name === 'loop' ? Math.max(1, Number(op.attrs['trips'])) : 1;
  const inside = op.regions.map(countMultiplyAdds);
  const [a, b] = op.operands;
  const result = op.results[0];
  if (op.name === 'if') return Math.max(...inside);
  if (!a || !b || !result) return trips * inside.reduce((x, y) => x + y, 0);
  // Every output element of a convolution sums over one filter; every input element of its data gradient is spread over one.
  if (op.name === 'conv') return sizeOf(result.type.shape) * sizeOf(b.type.shape.slice(1));
  if (op.name === 'convData') return sizeOf(a.type.shape) * sizeOf(b.type.shape.slice(1));
  if (op.name === 'convWeight') return sizeOf(b.type.shape) * sizeOf(result.type.shape.slice(1));
  if (op.name === 'contract') {
    const [left, right] = String(op.attrs['spec']).split('->')[0]!.split(',');
    const sizes = new Map<string, number>();
    for (const [letters, value] of [[left!, a], [right!, b]] as const) [...letters].forEach((l, i) => sizes.set(l, value.type.shape[i]!));
    return [...sizes.values()].reduce((x, y) => x * y, 1);
  }
  return trips * inside.reduce((x, y) => x + y, 0);
}
