/** Fast forms of the few ops that fold over whole weights. They give the same bits as the interpreter, which takes seconds for millions of elements. */
import type { Op } from '../ir/graph.ts';
import { num, nums, str } from '../ir/op.ts';
import { packWeights } from '../ir/ops/packing/conv.ts';
import { convGeometry } from '../ir/ops/packing/geometry.ts';
import { packMatrix } from '../ir/ops/packing/matmul.ts';
import { dtypes, rowMajor, sizeOf, type Tensor } from '../ir/type.ts';

const binary: Readonly<Record<string, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
};

/** The result of a reshape, a transpose, a broadcast, a packing op, or an f32 sum, difference, product or quotient; undefined for any other op. A reshape shares its operand's data. */
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
  if (op.name === 'packConv' || op.name === 'packMatmul') return packed(op, a);
  const f = binary[op.name];
  if (!f || !b || a.dtype !== 'f32') return undefined;
  const out = new Float32Array(sizeOf(type.shape));
  const [x, y] = [a.data as Float32Array, b.data as Float32Array];
  walk(type.shape, [broadcastStrides(a.shape, type.shape), broadcastStrides(b.shape, type.shape)], (at, [p, q], n, [dp, dq]) => {
    for (let i = 0; i < n; i++) out[at + i] = f(x[p! + i * dp!]!, y[q! + i * dq!]!);
  });
  return { ...type, data: out };
}

function packed(op: Op, w: Tensor): Tensor {
  const type = op.results[0]!.type;
  const data = new Float32Array(sizeOf(type.shape));
  if (op.name === 'packMatmul') packMatrix(w.data as Float32Array, w.shape, str(op.attrs, 'spec'), data);
  else packWeights(w.data as Float32Array, convGeometry(str(op.attrs, 'algorithm'), w.shape, num(op.attrs, 'groups')), data);
  return { ...type, data };
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
  const total = sizeOf(shape);
  const axes = merged(shape, strides);
  const last = axes.pop() ?? { size: 1, strides: strides.map(() => 0) };
  const index = axes.map(() => 0);
  const from = strides.map(() => 0);
  for (let at = 0; at < total; at += last.size) {
    row(at, from, last.size, last.strides);
    for (let k = axes.length - 1; k >= 0; k--) {
      const axis = axes[k]!;
      const wrapped = ++index[k]! === axis.size;
      for (let i = 0; i < from.length; i++) from[i] = from[i]! + axis.strides[i]! * (wrapped ? 1 - axis.size : 1);
      if (!wrapped) break;
      index[k] = 0;
    }
  }
}

interface WalkedAxis { readonly size: number; readonly strides: readonly number[] }

/** The axes without ones, neighbours joined where every operand walks them as one: long rows are what makes this fast. */
function merged(shape: readonly number[], strides: readonly (readonly number[])[]): WalkedAxis[] {
  const axes: WalkedAxis[] = [];
  shape.forEach((size, i) => {
    if (size === 1) return;
    const own = strides.map((s) => s[i]!);
    const outer = axes.at(-1);
    if (outer?.strides.every((s, k) => s === own[k]! * size)) axes[axes.length - 1] = { size: outer.size * size, strides: own };
    else axes.push({ size, strides: own });
  });
  return axes;
}
