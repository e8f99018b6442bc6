/** How exact a product by one level of Strassen's algorithm is in float32 for the weights at hand. */
import { nth } from '../ir/ops/helpers.ts';
import { matmulShape } from '../ir/ops/packing/matmul.ts';
import { rowMajor, type Tensor } from '../ir/type.ts';
import { normals } from './winograd-error.ts';

const sampledRows = 4;
const sampledColumns = 8;
/** Columns whose weights are smaller than this part of the largest sampled ones count as if they were as large: nothing that reads the result sees them better. */
const leastShare = 0.01;

/**
 * The largest difference, on normal inputs, between the product with a weight computed by Strassen's algorithm in float32 and the same in float64, as a fraction of the standard deviation of
 * the results' column; over some pairs of rows and of columns.
 */
export function strassenError(w: Tensor, spec: string): number {
  const shape = matmulShape(spec, w.shape)!;
  const { k, n } = shape;
  const letters = spec.slice(spec.indexOf(',') + 1, spec.indexOf('->'));
  const own = rowMajor(w.shape);
  const strides = shape.letters.map((l) => own[letters.indexOf(l)]!);
  const offsets = places(shape.sizes.slice(0, shape.kAxes), strides.slice(0, shape.kAxes));
  const columns = places(shape.sizes.slice(shape.kAxes), strides.slice(shape.kAxes));
  const data = w.data as Float32Array;
  const column = (j: number): Float64Array => Float64Array.from(offsets, (o) => data[o + nth(columns, j)]!);
  const next = normals();
  const row = (): Float64Array => Float64Array.from({ length: k }, () => Math.fround(next()));
  const rows = Array.from({ length: sampledRows }, () => [row(), row()] as const);
  const pairs = Array.from({ length: sampledColumns }, (_, s) => {
    const j = Math.floor((s * n) / 2 / sampledColumns);
    return [column(j), column(j + n / 2)] as const;
  });
  const deviations = pairs.map((pair) => pair.map((b) => Math.hypot(...b)));
  const least = leastShare * Math.max(...deviations.flat());
  let worst = 0;
  for (const [upper, lower] of rows) {
    for (const [p, [left, right]] of pairs.entries()) {
      const got = product(upper, lower, left, right);
      [dot(upper, left), dot(upper, right), dot(lower, left), dot(lower, right)].forEach((want, i) => {
        const deviation = Math.max(least, deviations[p]![i % 2]!);
        const error = Math.abs(got[i]! - want);
        if (error > 0 || Number.isNaN(error)) worst = Math.max(worst, error / deviation);
      });
    }
  }
  return worst;
}

/** Offsets of the elements of some axes, row-major. */
function places(sizes: readonly number[], strides: readonly number[]): number[] {
  return sizes.reduce<number[]>((all, size, i) => all.flatMap((o) => Array.from({ length: size }, (_, x) => o + x * strides[i]!)), [0]);
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((s, x, i) => s + x * b[i]!, 0);

/** The four results of two rows and two columns, with every sum rounded to float32. */
function product(upper: Float64Array, lower: Float64Array, left: Float64Array, right: Float64Array): number[] {
  const half = upper.length / 2;
  const p = new Float64Array(7);
  const add = Math.fround;
  for (let i = 0; i < half; i++) {
    const [a11, a12, a21, a22] = [upper[i]!, upper[half + i]!, lower[i]!, lower[half + i]!];
    const [b11, b12, b21, b22] = [left[i]!, right[i]!, left[half + i]!, right[half + i]!];
    const s1 = add(a21 + a22);
    const s2 = add(s1 - a11);
    const t1 = add(b12 - b11);
    const t2 = add(b22 - t1);
    const factors = [a11, b11, a12, b21, add(a12 - s2), b22, a22, add(b21 - t2), s1, t1, s2, t2, add(a11 - a21), add(b22 - b12)];
    for (let q = 0; q < 7; q++) p[q] = add(p[q]! + factors[2 * q]! * factors[2 * q + 1]!);
  }
  const [p1, p2, p3, p4, p5, p6, p7] = p as unknown as [number, number, number, number, number, number, number];
  const u2 = add(p1 + p6);
  const u3 = add(u2 + p7);
  return [add(p1 + p2), add(add(u2 + p5) + p3), add(u3 + p4), add(u3 + p5)];
}
