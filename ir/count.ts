/** Arithmetic, parameters and bytes of a graph, for reports. */
import type { Graph, Op } from './graph.ts';
import { num } from './op.ts';
import { opDef } from './ops/index.ts';
import { bytesOf, sizeOf } from './type.ts';

export interface Counts {
  /** Multiply-adds of convolutions and contractions as they are written: no skipped padding, no Winograd. */
  readonly multiplyAdds: number;
  /** Elements and bytes of state. */
  readonly parameters: number;
  readonly parameterBytes: number;
  /** Elements and bytes of all results of ops that depend on an input: what a run computes, not what lives at once. */
  readonly activations: number;
  readonly activationBytes: number;
}

/** Sums over a graph. The body of a loop counts once a trip where the trips are known, else once; of two branches the dearer one counts. */
export function countGraph(graph: Graph): Counts {
  const alive = new Set(graph.inputs);
  let [multiplyAdds, activations, activationBytes] = [0, 0, 0];
  for (const op of graph.ops) {
    multiplyAdds += multiplyAddsOf(op);
    if (!op.operands.some((v) => alive.has(v))) continue;
    for (const r of op.results) {
      alive.add(r);
      activations += sizeOf(r.type.shape);
      activationBytes += bytesOf(r.type);
    }
  }
  return {
    multiplyAdds, activations, activationBytes,
    parameters: graph.state.reduce((n, s) => n + sizeOf(s.value.type.shape), 0),
    parameterBytes: graph.state.reduce((n, s) => n + bytesOf(s.value.type), 0),
  };
}

/** Multiply-adds of one op: the points of the iteration space of a convolution or contraction; 0 for ops that map, move or reduce. */
export function multiplyAddsOf(op: Op): number {
  if (op.regions.length > 0) {
    const inside = op.regions.map((region) => region.ops.reduce((n, inner) => n + multiplyAddsOf(inner), 0));
    return op.name === 'loop' ? Math.max(1, num(op.attrs, 'trips')) * inside[0]! : Math.max(...inside);
  }
  const def = opDef(op.name);
  if (def.family !== 'conv' && def.family !== 'contract') return 0;
  const axes = def.axes(op.operands.map((v) => v.type), op.attrs, op.results.map((v) => v.type));
  if ('none' in axes) return 0;
  const sizes = new Map(axes.space.map((d) => [d.name, d.role === 'whole' ? 1 : d.size]));
  return axes.stages.flatMap((s) => (s.product ? s.pieces : [])).reduce((n, piece) => n + piece.dims.reduce((m, d) => m * sizes.get(d)!, 1), 0);
}

/** Bytes that an op reads and writes at least: each operand and each result once. */
export const bytesMovedBy = (op: Op): number => [...new Set(op.operands), ...op.results].reduce((n, v) => n + bytesOf(v.type), 0);
