/** Moments of what the kernel of a convolution has just stored, of each channel over blocks of pixels: `momentBlocks` ops. */
import type { Op } from '../../../ir/graph.ts';
import { mergedStride } from './space.ts';
import type { Placed } from '../../../ir/tile.ts';
import type { Asm, E, Fn, Local, VLocal } from '../asm.ts';

/** The moments that a kernel takes of its result. Means and summed squares of deviations follow the result among its pointers, [sample, block, channel] in memory. */
export interface BlockMoments {
  readonly channels: number;
  /** Pixels of a block, and blocks of a sample. */
  readonly pixels: number;
  readonly blocks: number;
  /** Bytes from one pixel of the result to the next. */
  readonly pixelStride: number;
}

/** The moments of a `momentBlocks` op with such results; undefined where channels do not lie side by side, or pixels of a sample not evenly spaced: then no kernel takes them along. */
export function blockMoments(op: Op, results: readonly Placed[]): BlockMoments | undefined {
  const [y, ...moments] = results as [Placed, Placed, Placed];
  const [, channels, blocks, pixels] = op.regions[0]!.ops[1]!.results[0]!.type.shape as [number, number, number, number];
  const pixelStride = mergedStride(y.type.shape.slice(2), y.strides.slice(2));
  const dense = moments.every(({ strides }) => (channels === 1 || strides[1] === 1) && (blocks === 1 || strides[2] === channels) && strides[0] === channels * blocks);
  return pixelStride === undefined || (channels > 1 && y.strides[1] !== 1) || !dense ? undefined : { channels, pixels, blocks, pixelStride: 4 * pixelStride };
}

/** Where a block lies. */
export interface BlockPlace {
  /** Address of its first pixel, of the first channel that counts. */
  readonly from: E;
  /** The first channel, and how many. */
  readonly channel: () => E;
  readonly channels: E;
  /** The block's number, counted over all samples. */
  readonly block: () => E;
}

/** What tells kernels apart that take moments along, and those that take none. */
export const momentsKey = (k: BlockMoments | undefined): string => (k ? ` moments of ${k.pixels}` : '');

/** Takes the moments of some channels of a block; `results` are the kernel's pointers to means and squares. */
export function takeMoments(f: Fn, k: BlockMoments, results: readonly Local[], place: BlockPlace): E {
  const { asm } = f;
  const at = (base: Local): E => asm.add(f.get(base), asm.times(asm.add(asm.times(place.block(), k.channels), place.channel()), 4));
  return asm.call(momentsFunction(asm, k.pixels), [place.from, asm.i32(k.pixelStride), place.channels, ...results.map(at)]);
}

/** Pixels that a partial sum takes up before it is added to the total. */
const partialLength = 64;

/** (first pixel, bytes to the next, channels, means, squares): two sweeps over the block, the mean first, so that large means cost no digits. */
function momentsFunction(asm: Asm, pixels: number): string {
  return asm.fn(`moments of ${pixels} pixels`, ['i32', 'i32', 'i32', 'i32', 'i32'], undefined, (f, [from, stride, channels, means, squares]) => {
    const { m } = asm;
    const pixel = f.local('i32');
    const [i, part] = [f.local('i32'), f.local('i32')];
    /** Adds up `add` over all pixels, of several pixels at once so that additions need not wait for each other. */
    const sums = (totals: readonly VLocal[], atOnce: number, add: (sum: VLocal, vector: number) => E[]): E[] => {
      const partial = Array.from({ length: atOnce }, () => totals.map(() => f.vlocal()));
      const pixelsOf = (count: number): E[] => partial.slice(0, count).flatMap((list) => [...list.flatMap(add), f.set(pixel, asm.add(f.get(pixel), f.get(stride!)))]);
      const run = (n: number): E[] => [
        ...partial.flat().map((l) => f.vset(l, asm.vsplat(0))),
        ...(n >= atOnce ? [f.repeat(i, 0, Math.floor(n / atOnce), 1, pixelsOf(atOnce))] : []),
        ...pixelsOf(n % atOnce),
        ...totals.map((l, v) => f.vset(l, partial.reduce((sum, list) => asm.vadd(sum, f.vget(list[v]!)), f.vget(l)))),
      ];
      const whole = Math.floor(pixels / partialLength);
      const rest = pixels % partialLength;
      return [...totals.map((l) => f.vset(l, asm.vsplat(0))), f.set(pixel, f.get(from!)), ...(whole > 0 ? [f.repeat(part, 0, whole, 1, run(partialLength))] : []), ...(rest > 0 ? run(rest) : [])];
    };
    const take = (vectors: number, store: (target: Local, vector: number, value: VLocal) => E[]): E[] => {
      const mean = Array.from({ length: vectors }, () => f.vlocal());
      const m2 = mean.map(() => f.vlocal());
      const deviation = f.vlocal();
      const atOnce = vectors === 1 ? 4 : 2;
      return [
        ...sums(mean, atOnce, (sum, v) => [f.vset(sum, asm.vadd(f.vget(sum), asm.vload(pixel, 16 * v)))]),
        ...mean.map((l) => f.vset(l, asm.vdiv(f.vget(l), f.vconst(pixels)))),
        ...sums(m2, atOnce, (sum, v) => [f.vset(deviation, asm.vsub(asm.vload(pixel, 16 * v), f.vget(mean[v]!))), f.vset(sum, asm.vmadd(f.vget(deviation), f.vget(deviation), f.vget(sum)))]),
        ...mean.flatMap((l, v) => [...store(means!, v, l), ...store(squares!, v, m2[v]!)]),
      ];
    };
    const loop = (vectors: number): E => {
      const top = f.label('channels');
      const whole = (target: Local, v: number, value: VLocal): E[] => [asm.vstore(target, 16 * v, f.vget(value))];
      return m.loop(top, f.if(m.i32.ge_s(f.get(channels!), asm.i32(4 * vectors)), [
        ...take(vectors, whole), ...[from!, means!, squares!].map((p) => f.inc(p, 16 * vectors)), f.inc(channels!, -4 * vectors), m.br(top),
      ]));
    };
    // Of the last channels a whole vector is read, as every buffer ends with slack, and what exists is stored.
    const rest = f.if(m.i32.gt_s(f.get(channels!), asm.i32(0)), take(1, (target, _, value) => [0, 1, 2].map((lane) => f.if(m.i32.gt_s(f.get(channels!), asm.i32(lane)), [storeLane(f, target, lane, value)]))));
    return [loop(4), loop(1), rest];
  });
}

function storeLane(f: Fn, target: Local, lane: number, value: VLocal): E {
  const { m, simd } = f.asm;
  return simd ? m.v128.store32_lane(4 * lane, 4, lane, f.get(target), f.vget(value)[0]!) : m.f32.store(4 * lane, 4, f.get(target), f.vget(value)[lane]!);
}
