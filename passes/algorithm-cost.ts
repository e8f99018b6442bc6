/** What the algorithms of convolutions and products cost, in nanoseconds of one thread, as measured with `bench/gemm.ts`. Only ratios matter. */
import type { ConvAlgorithm } from '../ir/ops/packing/geometry.ts';
import type { ProductAlgorithm } from '../ir/ops/packing/matmul.ts';
import { sizeOf } from '../ir/type.ts';

/** Multiply-adds in a nanosecond. */
const rate = 27;
/** Bytes of weights that come from beyond the second-level cache in a nanosecond. Inside a network they always do, and the products wait for them. */
const stream = 9;
/** Transforming one tile of one channel, there or back. */
const transform = { winograd2: 4, winograd4: 10 } as const;
/** How often inputs are transformed where tiles are too few to share out. */
const repeats = (tiles: number): number => (tiles < 24 ? 8 : tiles < 96 ? 2 : 1);

/** Time of a convolution of x by w into y (shapes), with one group. */
export function convTime(algorithm: Exclude<ConvAlgorithm, 'depthwise'>, s: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] }): number {
  const [out, channels] = s.w as [number, number];
  if (algorithm === 'direct') return (sizeOf(s.y) * sizeOf(s.w.slice(1))) / rate + (4 * sizeOf(s.w)) / stream;
  const tile = algorithm === 'winograd2' ? 2 : 4;
  const positions = (tile + 2) ** 2;
  const tiles = s.y[0]! * Math.ceil(s.y[2]! / tile) * Math.ceil(s.y[3]! / tile);
  const weights = positions * channels * out;
  return (tiles * weights) / rate + (4 * weights) / stream + tiles * (channels * repeats(tiles) + out) * transform[algorithm];
}

/** What Strassen's algorithm adds, for each element: sums of quarters of the rows, which the step before left in the second-level cache where they take at most `near` bytes, and of the weights; results that pass through buffers; and for the step that sums the rows. */
const strassen = { near: 2 ** 20, nearRows: 0.3, farRows: 0.6, weights: 0.2, results: 0.05, step: 2000 };

/** Time of a product of m rows with a weight of k rows and n columns. */
export function productTime(algorithm: ProductAlgorithm, { m, n, k }: { readonly m: number; readonly n: number; readonly k: number }): number {
  const plain = (rows: number): number => (rows * n * k) / rate;
  if (algorithm === 'direct') return plain(m) + (4 * n * k) / stream;
  return (7 / 8) * plain(2 * Math.ceil(m / 2)) + (4 * n * k) / stream + (4 * m * k <= strassen.near ? strassen.nearRows : strassen.farRows) * m * k + strassen.weights * n * k + strassen.results * m * n + strassen.step;
}

/** Multiply-adds in a nanosecond of a weight gradient over pixels, whose operands are laid out anew for each chunk. */
const pixelRate = 23;
/** Transforming the sums of one position back, for one weight of one part. */
const transformBack = 0.08;

/** Time of the weight gradient of a 3x3 convolution of x into dy (shapes), in `parts` partial sums. */
export function weightGradientTime(algorithm: Exclude<ConvAlgorithm, 'depthwise'>, s: { readonly x: readonly number[]; readonly dy: readonly number[]; readonly parts: number }): number {
  const [channels, out] = [s.x[1]!, s.dy[1]!];
  if (algorithm === 'direct') return (sizeOf(s.dy) * channels * 9) / pixelRate;
  const tile = algorithm === 'winograd2' ? 2 : 4;
  const positions = (tile + 2) ** 2;
  const tiles = s.dy[0]! * Math.ceil(s.dy[2]! / tile) * Math.ceil(s.dy[3]! / tile);
  const weights = positions * channels * out;
  return (tiles * weights) / rate + tiles * (channels + out) * transform[algorithm] + s.parts * weights * transformBack;
}
