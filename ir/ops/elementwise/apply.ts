/** Elementwise application with broadcasting, for the interpreter. Functions see numbers, or bigints where the operands are i64 or u64. */
import { refData } from '../../number.ts';
import type { RefTensor } from '../../op.ts';
import { rowMajor, type TensorType } from '../../type.ts';
import { bigints, numbers } from '../helpers.ts';
import { broadcastStrides, walk, type Walk } from '../strided.ts';

/** f of every element. */
export function apply1(f: (x: number) => number, x: RefTensor, result: TensorType): RefTensor {
  const from = numbers(x);
  const to = new Float64Array(from.length);
  const n = from.length;
  for (let i = 0; i < n; i++) to[i] = f(from[i]!);
  return { ...result, data: to };
}

/** f of pairs. */
export function apply2(f: (x: number, y: number) => number, x: RefTensor, y: RefTensor, result: TensorType): RefTensor {
  const out = output(result);
  const w = broadcastWalk([x, y], result);
  const [s, t] = w.steps as [number, number, number];
  const [a, b] = [numbers(x), numbers(y)];
  w.rows(([p, q, o]) => row2(f, a, p!, s, b, q!, t, out, o!, w.length));
  return { ...result, data: out };
}

/** f of triples. */
export function apply3(f: (x: number, y: number, z: number) => number, x: RefTensor, y: RefTensor, z: RefTensor, result: TensorType): RefTensor {
  const out = output(result);
  const w = broadcastWalk([x, y, z], result);
  const [s, t, u] = w.steps as [number, number, number, number];
  const [a, b, c] = [numbers(x), numbers(y), numbers(z)];
  w.rows(([p, q, r, o]) => {
    for (let i = 0; i < w.length; i++) out[o! + i] = f(a[p! + i * s]!, b[q! + i * t]!, c[r! + i * u]!);
  });
  return { ...result, data: out };
}

/** f of tuples of bigints; the result holds bigints, or 0 and 1 where f answers a question. */
export function applyBig(f: (...xs: bigint[]) => bigint | boolean, operands: readonly RefTensor[], result: TensorType): RefTensor {
  const out = refData(result);
  const w = broadcastWalk(operands, result);
  const data = operands.map(bigints);
  const args = new Array<bigint>(operands.length);
  w.rows((starts) => {
    const o = starts[operands.length]!;
    for (let i = 0; i < w.length; i++) {
      for (let k = 0; k < args.length; k++) args[k] = data[k]![starts[k]! + i * w.steps[k]!]!;
      const y = f(...args);
      if (out instanceof Float64Array) out[o + i] = Number(y);
      else out[o + i] = BigInt(y);
    }
  });
  return { ...result, data: out };
}

/** Walks the operands, then the result, over the result's shape. */
export function broadcastWalk(operands: readonly RefTensor[], result: TensorType): Walk {
  return walk(result.shape, [...operands.map((x) => broadcastStrides(x.shape, result.shape)), rowMajor(result.shape)]);
}

const output = (result: TensorType): Float64Array => refData({ dtype: 'f64', shape: result.shape }) as Float64Array;

function row2(f: (x: number, y: number) => number, a: Float64Array, p: number, s: number, b: Float64Array, q: number, t: number, out: Float64Array, o: number, n: number): void {
  for (let i = 0; i < n; i++) out[o + i] = f(a[p + i * s]!, b[q + i * t]!);
}
