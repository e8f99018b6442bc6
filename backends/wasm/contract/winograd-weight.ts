/**
 * Weight gradients of 3x3 convolutions by Winograd: the transpose of F(m x m, 3x3) with respect to the weight, dg = Gᵀ [Σ over tiles of (Bᵀ d B) ⊙ (A dy Aᵀ)] G (Lavin and Gray,
 * "Fast Algorithms for Convolutional Neural Networks", 2015). Some tiles at a time are transformed into scratch; for each position the outer products of input and
 * result channels add up there until all samples of a part have passed.
 */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op } from '../../../ir/graph.ts';
import { nums, num, str } from '../../../ir/op.ts';
import { winogradTile, type ConvAlgorithm } from '../../../ir/ops/packing/geometry.ts';
import { fewestChunks, type Division, type Placed } from '../../../ir/tile.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import type { Contraction } from './fused.ts';
import { addOuterProducts } from './outer-product.ts';
import { transformBuffer, transformCotangent, transformInput, weightTransform, type TilePlace } from './winograd-transforms.ts';

/** Bytes of sums that one chunk keeps, bytes of transformed tiles at a time, and fewest tiles at a time (each reads and writes all sums). */
const mostSums = (d: Division): number => (5 * d.bytesPerTile) / 8;
const tileBytes = (d: Division): number => (3 * d.bytesPerTile) / 8;
const fewestTiles = 16;

/** How the channels are cut: each block of input channels meets each block of result channels in a chunk of its own. */
interface Cut { readonly channels: number; readonly outputs: number }

function cutChannels(d: Division, channels: number, outputs: number, parts: number, positions: number): Cut {
  let [c, o] = [channels, outputs];
  const halves = (n: number): boolean => n % 8 === 0;
  const tooFew = (): boolean => parts * (channels / c) * (outputs / o) < fewestChunks(d);
  while ((4 * positions * c * o > mostSums(d) || tooFew()) && (halves(c) || halves(o))) {
    if (halves(o) && (o >= c || !halves(c))) o /= 2;
    else c /= 2;
  }
  return { channels: c, outputs: o };
}

/** Whether a `convWeight` is one for this kernel: by Winograd, nothing fused to it. */
export const isWinogradWeight = (op: Op): boolean => op.name === 'convWeight' && str(op.attrs, 'algorithm') !== 'direct';

/** Emits a `convWeight` of algorithm `winograd2` or `winograd4`, which has `parts` partial sums. */
export function winogradWeight(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode {
  const { attrs } = k.root;
  const tile = winogradTile(str(attrs, 'algorithm') as ConvAlgorithm) as 2 | 4;
  const side = tile + 2;
  const positions = side * side;
  const [x, dy] = [operands[k.roots[0]!]!, operands[k.roots[1]!]!];
  invariant(x.strides[1] === 1 && dy.strides[1] === 1, 'a weight gradient reads channels that lie side by side');
  const [batch, channels, high, wide] = x.type.shape as [number, number, number, number];
  const [, outputs, rows, columns] = dy.type.shape as [number, number, number, number];
  const [top, left] = nums(attrs, 'pads') as [number, number];
  const parts = num(attrs, 'parts');
  const [tilesHigh, tilesWide] = [Math.ceil(rows / tile), Math.ceil(columns / tile)];
  const tiles = (batch / parts) * tilesHigh * tilesWide;
  const cut = cutChannels(asm.division, channels, outputs, parts, positions);
  const [channelBlocks, outputBlocks] = [channels / cut.channels, outputs / cut.outputs];

  // Scratch. The stride between positions is padded so that the positions of one channel do not fall into one set of the first-level cache.
  const align = (n: number): number => Math.ceil(n / 64) * 64;
  const most = Math.max(fewestTiles, Math.floor(tileBytes(asm.division) / (4 * positions * (cut.channels + cut.outputs))));
  const unit = Math.ceil(tiles / Math.ceil(tiles / most));
  const inputPosition = align(4 * unit * cut.channels) + 64;
  const cotangentPosition = align(4 * unit * cut.outputs) + 64;
  const sumPosition = align(4 * cut.channels * cut.outputs) + 64;
  const inputAt = transformBuffer;
  const cotangentAt = inputAt + positions * inputPosition;
  const sumsAt = cotangentAt + positions * cotangentPosition;
  const scratchBytes = sumsAt + positions * sumPosition;

  const bytes = (p: Placed): [number, number, number] => [4 * p.strides[0]!, 4 * p.strides[2]!, 4 * p.strides[3]!];
  const [partStride, outStride, inStride, rowTap, columnTap] = result.strides.map((s) => 4 * s) as [number, number, number, number, number];
  const taps = Array.from({ length: 9 }, (_, t) => Math.floor(t / 3) * rowTap + (t % 3) * columnTap);

  const fn = asm.fn(`winograd weight ${kernelKey(k.op, operands, [result])}`, new Array<Ty>(operands.length + 3).fill('i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [inputs, results, part, first, count, i, n, ty, tx, y, x0, position, p] = Array.from({ length: 13 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const at = (offset: number): E => asm.plus(f.get(scratch!), offset);

    /** Transforms tile i of one tensor, whose rows and columns start at y and x0. */
    const transform = (t: Placed, pointer: Local, [tall, broad]: readonly [number, number], inner: number, block: Local, width: number, by: typeof transformInput, target: number, positionStride: number): E[] => {
      const [image, row, pixel] = bytes(t);
      const place = (): TilePlace => ({
        source: asm.add(asm.add(asm.add(f.get(pointer), asm.times(f.get(block), 4 * width)), asm.mul(f.get(n), asm.i32(image))), asm.add(asm.times(f.get(y), row), asm.times(f.get(x0), pixel))),
        rowStride: asm.i32(row), pixelStride: asm.i32(pixel), target: asm.add(at(target), asm.times(f.get(i), 4 * width)), positionStride: asm.i32(positionStride), vectors: asm.i32(width / 4), buffer: at(0),
      });
      const inside = (origin: Local, most: number): E => m.i32.and(m.i32.ge_s(f.get(origin), asm.i32(0)), m.i32.le_s(f.get(origin), asm.i32(most - inner)));
      return [f.if(m.i32.and(inside(y, tall), inside(x0, broad)), [by(asm, tile, place())], [by(asm, tile, place(), { row: f.get(y), column: f.get(x0), high: asm.i32(tall), wide: asm.i32(broad) })])];
    };
    return [
      f.set(results, m.i32.rem_u(f.get(chunk!), asm.i32(outputBlocks))),
      f.set(part, m.i32.div_u(f.get(chunk!), asm.i32(outputBlocks))),
      f.set(inputs, m.i32.rem_u(f.get(part), asm.i32(channelBlocks))),
      f.set(part, m.i32.div_u(f.get(part), asm.i32(channelBlocks))),
      m.memory.fill(at(sumsAt), asm.i32(0), asm.i32(scratchBytes - sumsAt)),
      f.loop(first, asm.i32(0), () => asm.i32(tiles), unit, [
        f.set(count, m.select(m.i32.lt_s(asm.sub(asm.i32(tiles), f.get(first)), asm.i32(unit)), asm.sub(asm.i32(tiles), f.get(first)), asm.i32(unit))),
        f.loop(i, asm.i32(0), () => f.get(count), 1, [
          f.set(tx, asm.add(f.get(first), f.get(i))),
          f.set(ty, m.i32.div_u(f.get(tx), asm.i32(tilesWide))),
          f.set(tx, m.i32.rem_u(f.get(tx), asm.i32(tilesWide))),
          f.set(n, asm.add(m.i32.div_u(f.get(ty), asm.i32(tilesHigh)), asm.mul(f.get(part), asm.i32(batch / parts)))),
          f.set(ty, m.i32.rem_u(f.get(ty), asm.i32(tilesHigh))),
          f.set(y, asm.plus(asm.times(f.get(ty), tile), -top)),
          f.set(x0, asm.plus(asm.times(f.get(tx), tile), -left)),
          ...transform(x, pointers[k.roots[0]!]!, [high, wide], side, inputs, cut.channels, transformInput, inputAt, inputPosition),
          f.set(y, asm.times(f.get(ty), tile)),
          f.set(x0, asm.times(f.get(tx), tile)),
          ...transform(dy, pointers[k.roots[1]!]!, [rows, columns], tile, results, cut.outputs, transformCotangent, cotangentAt, cotangentPosition),
        ]),
        f.repeat(position, 0, positions, 1, addOuterProducts(f, cut.channels, cut.outputs, { a: 4 * cut.channels, b: 4 * cut.outputs, sums: 4 * cut.outputs }, {
          a: () => asm.add(at(inputAt), asm.mul(f.get(position), asm.i32(inputPosition))),
          b: () => asm.add(at(cotangentAt), asm.mul(f.get(position), asm.i32(cotangentPosition))),
          sums: () => asm.add(at(sumsAt), asm.mul(f.get(position), asm.i32(sumPosition))),
          count,
        })),
      ]),
      f.set(p, asm.add(asm.add(f.get(pointers[operands.length]!), asm.mul(f.get(part), asm.i32(partStride))), asm.add(asm.mul(f.get(results), asm.i32(cut.outputs * outStride)), asm.mul(f.get(inputs), asm.i32(cut.channels * inStride))))),
      f.repeat(i, 0, cut.channels, 1, [
        asm.call(weightTransform(asm, tile, sumPosition, taps, outStride), [asm.add(at(sumsAt), asm.times(f.get(i), 4 * cut.outputs)), f.get(p), asm.i32(cut.outputs / 4)]),
        f.inc(p, inStride),
      ]),
    ];
  });
  return { fn, chunks: parts * channelBlocks * outputBlocks, scratchBytes, vertexBytes: scratchBytes, uncut: `sums of ${cut.channels} x ${cut.outputs} channels beside ${unit} tiles` };
}
