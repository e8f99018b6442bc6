/** The result of a contraction seen as blocks of rows with evenly spaced columns. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { E, Fn, Local } from '../asm.ts';

/** How one tensor lies over the rows and columns of a tile space; strides in bytes but for `columnStride` (elements). */
export interface TensorView {
  /** Per outer axis. */
  readonly outerStrides: readonly number[];
  readonly rowStride: number;
  readonly columnStride: number;
}

/**
 * Rows in row-major order of the row axes, cut into `outerSizes` blocks of `rows` rows each; within a block the rows of every tensor are evenly
 * spaced. `tensors[0]` is the result, the others the operands of the epilogue.
 */
export interface TileSpace {
  readonly outerSizes: readonly number[];
  readonly outer: number;
  readonly rows: number;
  readonly tensors: readonly TensorView[];
}

/** One tensor's strides in elements along the row axes, and along the columns, and its element's bytes. */
export interface Strided {
  readonly rowStrides: readonly number[];
  readonly columnStride: number;
  readonly bytes: number;
}

/** Merges as many of the innermost row axes as all tensors allow. */
export function tileSpace(rowShape: readonly number[], tensors: readonly Strided[]): TileSpace {
  const axes = rowShape.map((size, i) => ({ size, strides: tensors.map((t) => t.rowStrides[i]!) })).filter((a) => a.size !== 1);
  const last = axes.pop() ?? { size: 1, strides: tensors.map(() => 0) };
  let rows = last.size;
  while (axes.length > 0) {
    const next = axes[axes.length - 1]!;
    if (!next.strides.every((s, t) => s === last.strides[t]! * rows)) break;
    rows *= next.size;
    axes.pop();
  }
  return {
    outerSizes: axes.map((a) => a.size),
    outer: axes.reduce((n, a) => n * a.size, 1),
    rows,
    tensors: tensors.map((t, i): TensorView => ({
      outerStrides: axes.map((a) => a.strides[i]! * t.bytes),
      rowStride: last.strides[i]! * t.bytes,
      columnStride: t.columnStride,
    })),
  };
}

/** Byte offset of a tensor at outer block `o`. */
export function outerOffset(f: Fn, space: Pick<TileSpace, 'outerSizes'>, strides: readonly number[], o: Local): E {
  const { asm } = f;
  const { m } = asm;
  let sum: E | undefined;
  let below = 1;
  for (let axis = space.outerSizes.length - 1; axis >= 0; axis--) {
    const size = space.outerSizes[axis]!;
    const stride = strides[axis]!;
    if (stride !== 0) {
      const upper = below === 1 ? f.get(o) : m.i32.div_u(f.get(o), asm.i32(below));
      const digit = axis === 0 ? upper : m.i32.rem_u(upper, asm.i32(size));
      const term = asm.mul(digit, asm.i32(stride));
      sum = sum === undefined ? term : asm.add(sum, term);
    }
    below *= size;
  }
  return sum ?? asm.i32(0);
}

/** Strides of an operand along the axes of a shape that it broadcasts to. */
export function broadcastTo(shape: readonly number[], operand: readonly number[], strides: readonly number[]): number[] {
  const extra = shape.length - operand.length;
  invariant(extra >= 0, 'an operand of an epilogue has more axes than the result');
  return shape.map((_, i) => (i < extra || operand[i - extra] === 1 ? 0 : strides[i - extra]!));
}

/** The one stride of several axes walked as one, row-major; undefined where they are not evenly spaced. Axes of size 1 do not count. */
export function mergedStride(shape: readonly number[], strides: readonly number[]): number | undefined {
  const axes = shape.map((size, i) => ({ size, stride: strides[i]! })).filter((a) => a.size !== 1);
  for (let i = 0; i + 1 < axes.length; i++) if (axes[i]!.stride !== axes[i + 1]!.stride * axes[i + 1]!.size) return undefined;
  return axes.at(-1)?.stride ?? 1;
}
