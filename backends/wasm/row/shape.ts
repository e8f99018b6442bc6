/** How a row kernel walks memory: its loops, and where lanes run. */
import type { Placed } from '../../../ir/tile.ts';
import { dtypes, sizeOf } from '../../../ir/type.ts';
import type { Asm } from '../asm.ts';
import { isLaneType } from '../elementwise/index.ts';
import { collapse, type NestDim } from '../nest.ts';
import type { RowPlan } from './plan.ts';

/** Lanes run along the reduced dims (and are joined at the end), across kept elements, or not at all. */
export type Mode = 'along' | 'across' | 'scalar';

export interface Shape {
  readonly mode: Mode;
  readonly kept: readonly NestDim[];
  readonly reduced: readonly NestDim[];
  readonly tensors: readonly Placed[];
  /** Bytes of a saved value in scratch per reduced index. */
  readonly indexBytes: number;
}

/** Bytes of one saved value; a vector's store may run past its last element. */
export const savedBytes = (plan: RowPlan, shape: Shape): number => Math.ceil((sizeOf(plan.reducedShape) * shape.indexBytes + 16) / 16) * 16;

/** Chooses loops and lanes from where the operands lie. */
export function planShape(asm: Asm, plan: RowPlan, operands: readonly Placed[], results: readonly Placed[]): Shape {
  const tensors = [...operands, ...results];
  const steps = plan.frames.map((frame, i) => frame.map((axis) => (axis === undefined || tensors[i]!.type.shape[axis] === 1 ? 0 : tensors[i]!.strides[axis]! * dtypes[tensors[i]!.type.dtype].bytes)));
  const dim = (axis: number): NestDim => ({ name: `d${axis}`, size: plan.full[axis]!, steps: steps.map((s) => s[axis]!) });
  const axes = plan.full.map((_, i) => i);
  const main = plan.main;
  const bySource = (a: NestDim, b: NestDim): number => Math.abs(b.steps[main]!) - Math.abs(a.steps[main]!);
  const kept = collapse(axes.filter((a) => !plan.axes.includes(a)).map(dim).sort(bySource));
  const reduced = collapse(axes.filter((a) => plan.axes.includes(a)).map(dim).sort(bySource));
  const none = (name: string): NestDim => ({ name, size: 1, steps: tensors.map(() => 0) });
  if (kept.length === 0) kept.push(none(' kept'));
  if (reduced.length === 0) reduced.push(none(' reduced'));
  const vectors = asm.simd && tensors.every((t) => isLaneType(t.type.dtype)) && plan.vectorizable;
  const bytes = dtypes[tensors[main]!.type.dtype].bytes;
  const unit = (d: NestDim): boolean => d.steps[main] === bytes;
  const mode: Mode = vectors && unit(kept.at(-1)!) ? 'across' : vectors && unit(reduced.at(-1)!) ? 'along' : 'scalar';
  return { mode, kept, reduced, tensors, indexBytes: mode === 'across' ? 16 * acrossUnroll(plan) : mode === 'along' ? 4 : 8 };
}

/** Vectors of kept elements side by side. */
export const acrossUnroll = (plan: RowPlan): number => (plan.ops.length <= 6 || (plan.sweeps.length === 1 && plan.sweeps[0]!.reductions.length <= 2) ? 4 : 2);
