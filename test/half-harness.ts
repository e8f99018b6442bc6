/** Compares tensors that were computed in f16. */
import { toRef } from '../ir/number.ts';
import { isFloat, showType, type Tensor } from '../ir/type.ts';

/** The distance of neighbours in f16 around a number; of subnormal ones the smallest normal number, as shaders may flush them. */
const unit = (x: number): number => (Math.abs(x) < 2 ** -14 ? 2 ** -14 : 2 ** (Math.floor(Math.log2(Math.min(Math.abs(x), 65504))) - 10));

/**
 * Why two results differ, or undefined. A number may be a neighbour in f16 of the expected one, as f32 just beside the middle of two may round to either; one that adds up `terms` may also be off by their f32
 * rounding, relative to the largest result. Infinities and NaN, integers and flags are to be the same; the largest finite number and infinity are neighbours.
 */
export function differenceInHalves(got: Tensor, want: Tensor, terms = 0): string | undefined {
  if (got.dtype !== want.dtype || got.shape.join() !== want.shape.join()) return `${showType(got)} is not ${showType(want)}`;
  const [a, b] = [toRef(got).data, toRef(want).data];
  const largest = isFloat(want.dtype) ? (b as Float64Array).reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most), 0) : 0;
  for (let i = 0; i < b.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (Object.is(x, y) || x === y) continue;
    const close = isFloat(want.dtype) && Math.abs(bounded(Number(x)) - bounded(Number(y))) <= unit(Number(y)) + terms * 2 ** -22 * largest;
    if (!close) return `element ${i} of ${showType(want)} is ${String(x)}, expected ${String(y)}`;
  }
  return undefined;
}

/** Infinity as the number that would be f16's next. */
const bounded = (x: number): number => (Math.abs(x) === Infinity ? Math.sign(x) * 65536 : x);
