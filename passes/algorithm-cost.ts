/** What the algorithms of a convolution cost, in nanoseconds of one thread, as measured with `bench/gemm.ts`. Only ratios matter. */
import type { ConvAlgorithm } from '../ir/ops/packing/geometry.ts';
import { sizeOf } from '../ir/type.ts';

/** Multiply-adds in a nanosecond. */
const rate = 27;
/** Bytes of weights that memory delivers in a nanosecond while products run. */
const stream = 14;
/** Transforming one tile of four channels, there or back. */
const transform = { winograd2: 15, winograd4: 40 } as const;
/** How often inputs are transformed where tiles are too few to share out. */
const repeats = (tiles: number): number => (tiles < 24 ? 8 : tiles < 96 ? 2 : 1);

/** Time of a convolution of x by w into y (shapes), with one group. */
export function convTime(algorithm: Exclude<ConvAlgorithm, 'depthwise'>, s: { readonly x: readonly number[]; readonly y: readonly number[]; readonly w: readonly number[] }): number {
  const [out, channels] = s.w as [number, number];
  if (algorithm === 'direct') return (sizeOf(s.y) * sizeOf(s.w.slice(1))) / rate;
  const tile = algorithm === 'winograd2' ? 2 : 4;
  const positions = (tile + 2) ** 2;
  const tiles = s.y[0]! * Math.ceil(s.y[2]! / tile) * Math.ceil(s.y[3]! / tile);
  const products = positions * tiles * channels * out;
  const blocks = tiles < 24 ? 1 : Math.min(16, Math.floor(tiles / 12));
  const weightBytes = 4 * positions * channels * out;
  const reading = weightBytes > 1 << 20 ? (blocks * weightBytes) / stream : 0;
  return Math.max(products / rate, reading) + (tiles * (channels * repeats(tiles) + out) * transform[algorithm]) / 4;
}
