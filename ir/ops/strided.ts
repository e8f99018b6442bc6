/** Loops over strided operands: the inner loops of broadcasting, moves and reductions in the interpreter. */
import type { RefTensor } from '../op.ts';
import { rowMajor } from '../type.ts';

/** Element strides of an operand along each axis of a shape that it broadcasts to: 0 where it repeats. */
export function broadcastStrides(operand: readonly number[], shape: readonly number[]): number[] {
  const own = rowMajor(operand);
  const extra = shape.length - operand.length;
  return shape.map((_, i) => (i < extra || operand[i - extra] === 1 ? 0 : own[i - extra]!));
}

/** One walk over a shape: for each row, where it starts in every tensor. */
export interface Walk {
  /** Elements of a row. */
  readonly length: number;
  /** Per tensor, elements from one of a row to the next. */
  readonly steps: readonly number[];
  /** Calls `row` with each row's start in every tensor (the array is reused), in row-major order. */
  rows(row: (starts: readonly number[]) => void): void;
}

/** Walks a shape through several tensors at once, given their strides. Axes that lie behind each other in all tensors are walked as one. */
export function walk(shape: readonly number[], strides: readonly (readonly number[])[], offsets: readonly number[] = strides.map(() => 0)): Walk {
  const sizes: number[] = [];
  const merged: number[][] = strides.map(() => []);
  shape.forEach((size, axis) => {
    if (size === 1) return;
    const last = sizes.length - 1;
    if (last >= 0 && merged.every((m, t) => m[last] === strides[t]![axis]! * size)) {
      sizes[last]! *= size;
      merged.forEach((m, t) => (m[last] = strides[t]![axis]!));
    } else {
      sizes.push(size);
      merged.forEach((m, t) => m.push(strides[t]![axis]!));
    }
  });
  const length = sizes.pop() ?? 1;
  const steps = merged.map((m) => m.pop() ?? 0);
  return { length, steps, rows: (row) => rows(sizes, merged, offsets, length === 0, row) };
}

function rows(sizes: readonly number[], strides: readonly (readonly number[])[], offsets: readonly number[], empty: boolean, row: (starts: readonly number[]) => void): void {
  if (empty || sizes.includes(0)) return;
  const index = new Array<number>(sizes.length).fill(0);
  const starts = [...offsets];
  for (;;) {
    row(starts);
    let axis = sizes.length - 1;
    for (; axis >= 0; axis--) {
      const i = ++index[axis]!;
      for (let t = 0; t < starts.length; t++) starts[t]! += strides[t]![axis]!;
      if (i < sizes[axis]!) break;
      for (let t = 0; t < starts.length; t++) starts[t]! -= strides[t]![axis]! * sizes[axis]!;
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

/** Copies a strided view of `from` into `to` at strided places. Both hold their elements in the same way. */
export function copyStrided(from: RefTensor['data'], to: RefTensor['data'], shape: readonly number[], read: { readonly strides: readonly number[]; readonly offset?: number }, write: { readonly strides: readonly number[]; readonly offset?: number }): void {
  const w = walk(shape, [read.strides, write.strides], [read.offset ?? 0, write.offset ?? 0]);
  const [s, t] = w.steps as [number, number];
  const n = w.length;
  if (from instanceof Float64Array && to instanceof Float64Array) {
    w.rows(([p, q]) => copyRow(from, to, p!, q!, s, t, n));
  } else {
    const a = from as BigInt64Array;
    const b = to as BigInt64Array;
    w.rows(([p, q]) => {
      for (let i = 0; i < n; i++) b[q! + i * t] = a[p! + i * s]!;
    });
  }
}

function copyRow(from: Float64Array, to: Float64Array, p: number, q: number, s: number, t: number, n: number): void {
  for (let i = 0; i < n; i++) to[q + i * t] = from[p + i * s]!;
}
