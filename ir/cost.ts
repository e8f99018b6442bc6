/** Arithmetic and memory traffic of a step, for profiles. */
import type { Op } from './graph.ts';
import { opDef } from './ops/index.ts';
import { bytesOf, sizeOf } from './type.ts';

/** Operations as the op's axes count them (a product of a sum is two; no Winograd, padding included), and bytes of all operands and results. */
export function costOf(op: Op): { readonly flops: number; readonly bytes: number } {
  const bytes = [...op.operands, ...op.results].reduce((n, v) => n + bytesOf(v.type), 0);
  return { flops: flopsOf(op), bytes };
}

function flopsOf(op: Op): number {
  if (op.name === 'constant') return 0;
  if (op.name === 'fused' || op.name === 'bands' || op.name === 'slabs' || op.name === 'momentBlocks') return op.regions[0]!.ops.reduce((n, o) => n + flopsOf(o), 0);
  const { family } = opDef(op.name);
  if (family === 'map') return sizeOf(op.results[0]!.type.shape);
  if (family !== 'contract' && family !== 'conv' && family !== 'reduce' && family !== 'window') return 0;
  const axes = opDef(op.name).axes(op.operands.map((v) => v.type), op.attrs, op.results.map((v) => v.type));
  if ('none' in axes) return 0;
  const sizes = new Map(axes.space.filter((d) => d.role !== 'whole').map((d) => [d.name, d.size]));
  return axes.stages.reduce((n, s) => n + (s.product ? 2 : 1) * s.pieces.reduce((k, p) => k + p.dims.reduce((x, d) => x * (sizes.get(d) ?? 1), 1), 0), 0);
}
