/** Fast forms of the few ops that fold over whole weights. They give the same bits as the interpreter, which takes seconds for millions of elements. */
import type { Op } from '../ir/graph.ts';
import { nums } from '../ir/op.ts';
import { dtypes, rowMajor, sizeOf, type Tensor } from '../ir/type.ts';

const binary: Readonly<Record<string, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
};

/** The result of a reshape, a transpose, a broadcast, or an f32 sum, difference, product or quotient; undefined for any other op. A reshape shares its operand's data. */
export function foldDense(op: Op, operands: readonly Tensor[]): Tensor | undefined {
  const [a, b] = operands;
  const type = op.results[0]!.type;
  if (!a) return undefined;
  if (op.name === 'reshape') return { ...type, data: a.data };
  if (op.name === 'transpose') {
    const strides = rowMajor(a.shape);
    return gathered(type, a, nums(op.attrs, 'perm').map((p) => strides[p]!));
  }
  if (op.name === 'broadcast') return gathered(type, a, broadcastStrides(a.shape, type.shape));
  const f = binary[op.name];
  if (!f || !b || a.dtype !== 'f32') return undefined;
  const out = new Float32Array(sizeOf(type.shape));
  const [x, y] = [a.data as Float32Array, b.data as Float32Array];
  walk(type.shape, [broadcastStrides(a.shape, type.shape), broadcastStrides(b.shape, type.shape)], (at, [p, q], n, [dp, dq]) => {
    for (let i = 0; i < n; i++) out[at + i] = f(x[p! + i * dp!]!, y[q! + i * dq!]!);
  });
  return { ...type, data: out };
}

function gathered(type: Pick<Tensor, 'dtype' | 'shape'>, from: Tensor, strides: readonly number[]): Tensor {
  const data = new dtypes[type.dtype].array(sizeOf(type.shape));
  const source = from.data;
  walk(type.shape, [strides], (at, [p], n, [dp]) => {
    for (let i = 0; i < n; i++) data[at + i] = source[p! + i * dp!]!;
  });
  return { dtype: type.dtype, shape: type.shape, data };
}

function broadcastStrides(from: readonly number[], to: readonly number[]): number[] {
  const own = rowMajor(from);
  return to.map((_, i) => {
    const axis = i - (to.length - from.length);
    return axis < 0 || from[axis] === 1 ? 0 : own[axis]!;
  });
}

/** Calls `row` for every run along the last axis: where it starts in the result, where in each operand, its length, and the operands' steps. */
function walk(shape: readonly number[], strides: readonly (readonly number[])[], row: (at: number, from: readonly number[], n: number, step: readonly number[]) => void): void {
  const n = shape.at(-1) ?? 1;
  const total = sizeOf(shape);
  const step = strides.map((s) => s.at(-1) ?? 0);
  const index = new Array<number>(Math.max(0, shape.length - 1)).fill(0);
  const from = strides.map(() => 0);
  for (let at = 0; at < total; at += n) {
    row(at, from, n, step);
    for (let axis = index.length - 1; axis >= 0; axis--) {
      const wrapped = ++index[axis]! === shape[axis];
      strides.forEach((s, i) => (from[i] = from[i]! + s[axis]! * (wrapped ? 1 - shape[axis]! : 1)));
      if (!wrapped) break;
      index[axis] = 0;
    }
  }
}
