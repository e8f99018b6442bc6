/** Judges tensors against expected ones. */
import { decodeFloat } from '../ir/number.ts';
import { dtypes, isFloat, sameShape, showType, sizeOf, type DType, type Tensor } from '../ir/type.ts';

/** How a pair of tensors compares. `ulp` is the largest error in units of the last place of the expected float32 (0 for integers). */
export interface Verdict {
  readonly ok: boolean;
  readonly ulp: number;
  readonly reason: string;
}

/** Bounds of abs(got − want) ≤ atol + rtol·abs(want). */
export interface Tolerance {
  readonly atol: number;
  readonly rtol: number;
}

/** ONNX's own rule for its backend tests. */
export const onnxTolerance: Tolerance = { atol: 1e-7, rtol: 1e-3 };

/** A float tensor's elements as numbers, decoded from small floats. */
export function numbersOf(t: Tensor): Float64Array {
  const data = t.data;
  if (isFloat(t.dtype) && dtypes[t.dtype].bytes < 4) return Float64Array.from(data as Uint16Array, (bits) => decodeFloat(t.dtype, bits));
  return Float64Array.from(data as Float32Array, Number);
}

/** Elementwise: NaN equals NaN, equal infinities are equal, integers and bools are exact, shape and dtype must be equal. */
export function judge(got: Tensor, want: Tensor, tolerance: Tolerance): Verdict {
  if (got.dtype !== want.dtype || !sameShape(got.shape, want.shape)) return { ok: false, ulp: Infinity, reason: `got ${showType(got)}, expected ${showType(want)}` };
  if (got.data.length !== sizeOf(got.shape)) return { ok: false, ulp: Infinity, reason: `${got.data.length} elements for ${showType(got)}` };
  return isFloat(want.dtype) ? judgeFloats(got, want, tolerance) : judgeExact(got, want);
}

/** Judges shape and dtype, then by a check of its own. */
export function judgeBy(check: (got: Tensor, want: Tensor) => string | undefined, got: Tensor, want: Tensor): Verdict {
  if (got.dtype !== want.dtype || !sameShape(got.shape, want.shape)) return { ok: false, ulp: Infinity, reason: `got ${showType(got)}, expected ${showType(want)}` };
  const reason = check(got, want);
  return { ok: reason === undefined, ulp: 0, reason: reason ?? '' };
}

function judgeExact(got: Tensor, want: Tensor): Verdict {
  for (let i = 0; i < want.data.length; i++) {
    if (got.data[i] !== want.data[i]) return { ok: false, ulp: 0, reason: `element ${i} is ${got.data[i]}, expected ${want.data[i]}` };
  }
  return { ok: true, ulp: 0, reason: '' };
}

function judgeFloats(got: Tensor, want: Tensor, { atol, rtol }: Tolerance): Verdict {
  const g = numbersOf(got);
  const w = numbersOf(want);
  let ulp = 0;
  let reason = '';
  for (let i = 0; i < w.length; i++) {
    const x = g[i]!;
    const y = w[i]!;
    if (Object.is(x, y) || x === y || (Number.isNaN(x) && Number.isNaN(y))) continue;
    const error = Math.abs(x - y);
    ulp = Math.max(ulp, error / ulpOf(want.dtype, y));
    if (!(error <= atol + rtol * Math.abs(y)) && reason === '') reason = `element ${i} is ${x}, expected ${y}`;
  }
  return { ok: reason === '', ulp: Number.isNaN(ulp) ? Infinity : ulp, reason };
}

const mantissa: Partial<Record<DType, number>> = { f64: 52, f32: 23, f16: 10, bf16: 7 };

function ulpOf(dtype: DType, y: number): number {
  const bits = mantissa[dtype] ?? 2;
  if (!Number.isFinite(y) || y === 0) return 2 ** (-126 - bits);
  return 2 ** (Math.max(Math.floor(Math.log2(Math.abs(y))), -126) - bits);
}
