/** Winograd convolutions: blocks of tiles are transformed into scratch, multiplied position by position, and transformed back with the epilogue. */
import { invariant } from '../../../ir/diagnostic.ts';
import { geometryOf, winogradTile } from '../../../ir/ops/packing/geometry.ts';
import { panelColumns, storedColumns } from '../../../ir/ops/packing/panels.ts';
import { fewestChunks, type Division, type Placed } from '../../../ir/tile.ts';
import { dtypes } from '../../../ir/type.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { convAxes } from './conv-direct.ts';
import { epilogueOf, plainStore } from './epilogue.ts';
import type { Contraction } from './fused.ts';
import { momentsKey, takeMoments, type BlockMoments } from './moments.ts';
import { evenRows } from './rows.ts';
import { broadcastTo, type TileSpace } from './space.ts';
import { tileLoops } from './tiles.ts';
import { outputTransform, transformBuffer, transformInput, type TilePlace } from './winograd-transforms.ts';

/** Bytes of panels that stay in a tile while the transformed inputs of one position pass by. */
const panelCache = (d: Division): number => d.bytesPerTile / 4;
/** Most scratch for transformed inputs and sums, and as much of it as is read fast. */
const mostScratch = (d: Division): number => 4 * d.bytesPerTile;
const cached = (d: Division): number => d.bytesPerTile;
/** Nanoseconds to read a byte of weights or scratch from beyond the caches, and to transform one tile of one channel per position. */
const perByte = 0.08;
const perPosition = 0.28;

/** How the tiles and result channels are cut. */
export interface WinogradCut {
  readonly tileBlock: number;
  readonly tileBlocks: number;
  readonly panelBlock: number;
  readonly panelBlocks: number;
  /** Bytes of transformed inputs and sums, and of the panels that pass by. */
  readonly bytes: number;
  /** Time of the fastest cut that fits a tile, as a multiple of this one's; at least 1, and Infinity where none fits. */
  readonly within: number;
}

/** How much longer a cut may take that fits a tile, before a larger one is taken. */
const mostLonger = 1.03;

/**
 * Cuts tiles and channels into chunks: every block of tiles reads all weights, every part of the channels transforms the input again. Of all cuts the fastest, or one that fits a tile of the target where that
 * is about as fast. Blocks are of a multiple of `multiple` tiles.
 */
function cutWinograd(d: Division, tiles: number, channels: number, out: number, positions: number, multiple = 1): WinogradCut {
  const panels = Math.max(1, Math.floor(out / panelColumns));
  const weightBytes = 4 * positions * channels * out;
  type Tried = { readonly cut: Omit<WinogradCut, 'within'>; readonly cost: number };
  let best: Tried | undefined;
  let within: Tried | undefined;
  for (const blocks of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]) {
    const tileBlock = Math.ceil(Math.ceil(tiles / blocks) / multiple) * multiple;
    const tileBlocks = Math.ceil(tiles / tileBlock);
    const panelBlock = Math.ceil(panels / Math.min(panels, Math.ceil(fewestChunks(d) / tileBlocks)));
    const panelBlocks = Math.ceil(panels / panelBlock);
    const scratch = 4 * positions * tileBlock * (channels + (panelBlocks === 1 ? out : panelBlock * panelColumns));
    const cut = { tileBlock, tileBlocks, panelBlock, panelBlocks, bytes: scratch + Math.min(panelCache(d), 4 * channels * panelColumns * panelBlock) };
    const reading = weightBytes * (weightBytes > cached(d) ? tileBlocks : 1) + Math.max(0, scratch - cached(d)) * tileBlocks * cut.panelBlocks;
    // Tiles of few rows leave the multiply-adds waiting for panels.
    const products = (tiles * positions * channels * out) / 27;
    const cost = reading * perByte + tiles * channels * positions * perPosition * cut.panelBlocks + products * (tileBlock >= 12 || tileBlocks === 1 ? 1 : 1.15);
    if ((scratch <= mostScratch(d) || tileBlock === multiple) && (!best || cost < best.cost)) best = { cut, cost };
    if (cut.bytes <= d.bytesPerTile && (!within || cost < within.cost)) within = { cut, cost };
    if (tileBlock === multiple) break;
  }
  const longer = within ? within.cost / best!.cost : Infinity;
  return longer <= mostLonger ? { ...within!.cut, within: 1 } : { ...best!.cut, within: longer };
}

/** Emits a `convPacked` of algorithm `winograd2` or `winograd4`, plain or as the root of a fused op. */
export function winogradConv(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed, moments?: BlockMoments): KernelCode {
  const geometry = geometryOf(k.root.attrs);
  const tile = winogradTile(geometry.algorithm) as 2 | 4;
  const side = tile + 2;
  const positions = side * side;
  const { fanIn: channels, fanOut: out } = geometry;
  invariant(channels % 4 === 0 && out % 4 === 0, 'Winograd takes channels in multiples of 4');
  const input = operands[k.roots[0]!]!;
  const [, ay, ax] = convAxes(k, input, result);
  const [tilesHigh, tilesWide] = [Math.ceil(ay.result / tile), Math.ceil(ax.result / tile)];
  const batch = input.type.shape[0]!;
  const tiles = batch * tilesHigh * tilesWide;
  // Blocks of moments are whole rows of tiles, or all of a sample.
  const tilesOfBlock = moments ? (moments.blocks === 1 ? tilesHigh : moments.pixels / (tile * ax.result)) * tilesWide : 1;
  const cut = cutWinograd(asm.division, tiles, channels, out, positions, tilesOfBlock);
  const columns = Math.min(out, cut.panelBlock * panelColumns + (out % panelColumns));

  // Every tensor by its strides along batch, rows, pixels and channels. An operand varies where one of the first three is not 0.
  const tensors = [result, ...k.extra.map((i) => operands[i]!)].map((p) => {
    const { bytes } = dtypes[p.type.dtype];
    const [n, c, h, w] = broadcastTo(result.type.shape, p.type.shape, p.strides) as [number, number, number, number];
    return { n: n * bytes, h: h * bytes, w: w * bytes, c, bytes };
  });
  const space: TileSpace = { outerSizes: [], outer: 1, rows: tiles, tensors: tensors.map((t) => ({ outerStrides: [], rowStride: t.h || t.w, columnStride: t.c })) };
  const epilogue = epilogueOf(k.op, k.root, k.extra, space);

  // Scratch. The stride between positions is padded so that the positions of one channel do not fall into one set of the first-level cache.
  const align = (n: number): number => Math.ceil(n / 64) * 64;
  const inputPosition = align(cut.tileBlock * channels * 4) + 64;
  const sumPosition = align(cut.tileBlock * columns * 4) + 64;
  const tableAt = 0;
  const bufferAt = align(cut.tileBlock * 4);
  const inputAt = bufferAt + transformBuffer;
  const sumAt = inputAt + positions * inputPosition;
  const scratchBytes = sumAt + positions * sumPosition;
  const positionBytes = 4 * channels * storedColumns(out);
  const panelBytes = 4 * channels * panelColumns;
  const wholePanels = Math.floor(out / panelColumns);

  const fn = asm.fn(`winograd ${kernelKey(k.op, operands, [result])}${momentsKey(moments)}`, new Array<Ty>(operands.length + (moments ? 5 : 3)).fill('i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [tileBlock, panelBlock, first, i, n, ty, tx, y, x, position, from, to, table, q] = Array.from({ length: 14 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const at = (offset: number): E => asm.plus(f.get(scratch!), offset);
    const locate = (): E[] => [
      f.set(tx, asm.add(f.get(first), f.get(i))),
      f.set(ty, m.i32.div_u(f.get(tx), asm.i32(tilesWide))),
      f.set(tx, m.i32.rem_u(f.get(tx), asm.i32(tilesWide))),
      f.set(n, m.i32.div_u(f.get(ty), asm.i32(tilesHigh))),
      f.set(ty, m.i32.rem_u(f.get(ty), asm.i32(tilesHigh))),
    ];
    const inside = (origin: Local, size: number): E => m.i32.and(m.i32.ge_s(f.get(origin), asm.i32(0)), m.i32.le_s(f.get(origin), asm.i32(size - side)));
    const inputPlace = (): TilePlace => ({
      source: asm.add(asm.add(f.get(pointers[k.roots[0]!]!), asm.times(f.get(n), 4 * input.strides[0]!)), asm.add(asm.times(f.get(y), ay.bytes), asm.times(f.get(x), ax.bytes))),
      rowStride: asm.i32(ay.bytes), pixelStride: asm.i32(ax.bytes),
      target: asm.add(at(inputAt), asm.times(f.get(i), 4 * channels)), positionStride: asm.i32(inputPosition), vectors: asm.i32(channels / 4), buffer: at(bufferAt),
    });
    const transformTile = (): E[] => [
      ...locate(),
      f.set(y, asm.plus(asm.times(f.get(ty), tile), -ay.before)),
      f.set(x, asm.plus(asm.times(f.get(tx), tile), -ax.before)),
      f.if(m.i32.and(inside(y, ay.size), inside(x, ax.size)),
        [transformInput(asm, tile, inputPlace())],
        [transformInput(asm, tile, inputPlace(), { row: f.get(y), column: f.get(x), high: asm.i32(ay.size), wide: asm.i32(ax.size) })]),
    ];
    const place = (tensor: number, pointer: Local): E => {
      const t = tensors[tensor]!;
      return asm.add(asm.add(f.get(pointer), asm.times(f.get(n), t.n)), asm.add(asm.add(asm.times(f.get(ty), tile * t.h), asm.times(f.get(tx), tile * t.w)), asm.times(f.get(panelBlock), cut.panelBlock * panelColumns * t.c * t.bytes)));
    };
    const least = (e: () => E, most: number): E => m.select(m.i32.lt_s(e(), asm.i32(most)), e(), asm.i32(most));
    const left = (size: number, done: Local): E => least(() => asm.sub(asm.i32(size), asm.times(f.get(done), tile)), tile);
    const finishTile = (): E[] => [
      ...locate(),
      asm.call(outputTransform(asm, tile, epilogue, (d) => dtypes[d].bytes), [
        asm.add(at(sumAt), asm.times(f.get(i), 4 * columns)), asm.i32(sumPosition),
        place(0, pointers[operands.length]!), asm.i32(tensors[0]!.h), asm.i32(tensors[0]!.w),
        left(ay.result, ty), left(ax.result, tx),
        f.get(q), at(bufferAt),
        ...epilogue.operands.flatMap((o, e) => [place(1 + e, pointers[o.operand]!), ...(o.varies ? [asm.i32(tensors[1 + e]!.h), asm.i32(tensors[1 + e]!.w)] : [])]),
      ]),
    ];
    const overBlock = (k: BlockMoments): E[] => [
      ...locate(),
      takeMoments(f, k, pointers.slice(operands.length + 1), {
        from: place(0, pointers[operands.length]!),
        channel: () => asm.times(f.get(panelBlock), cut.panelBlock * panelColumns),
        channels: asm.times(f.get(q), 4),
        block: () => asm.add(asm.times(f.get(n), k.blocks), m.i32.div_u(asm.times(f.get(ty), tilesWide), asm.i32(tilesOfBlock))),
      }),
    ];
    const block = (rows: number): E[] => [
      ...evenRows(f, table, () => at(inputAt), position, rows, 4 * channels),
      f.repeat(i, 0, rows, 1, transformTile()),
      f.repeat(position, 0, positions, 1, tileLoops(f, {
        rows, from, to, panelsPerPass: Math.max(1, Math.floor(panelCache(asm.division) / panelBytes)), lastColumns: out % panelColumns, wholePanels,
        hasLast: () => m.i32.eq(f.get(panelBlock), asm.i32(cut.panelBlocks - 1)),
        table: () => f.get(table), taps: 1, tapStride: () => asm.i32(0), run: 4 * channels,
        rowOffset: () => asm.mul(f.get(position), asm.i32(inputPosition)),
        b: () => asm.add(f.get(pointers[k.roots[1]!]!), asm.mul(f.get(position), asm.i32(positionBytes))), panelBytes,
        // Columns count from the block's first panel in scratch, from the first panel of all in the weights.
        c: () => asm.sub(asm.add(at(sumAt), asm.mul(f.get(position), asm.i32(sumPosition))), asm.times(f.get(panelBlock), cut.panelBlock * panelColumns * 4)),
        rowStride: 4 * columns, extra: [], columnBytes: 4, epilogue: plainStore(),
      })),
      f.repeat(i, 0, rows, 1, finishTile()),
      ...(moments ? [f.repeat(i, 0, rows, tilesOfBlock, overBlock(moments))] : []),
    ];
    const lastTiles = tiles - (cut.tileBlocks - 1) * cut.tileBlock;
    return [
      f.set(panelBlock, m.i32.rem_u(f.get(chunk!), asm.i32(cut.panelBlocks))),
      f.set(tileBlock, m.i32.div_u(f.get(chunk!), asm.i32(cut.panelBlocks))),
      f.set(first, asm.mul(f.get(tileBlock), asm.i32(cut.tileBlock))),
      f.set(table, at(tableAt)),
      f.set(position, asm.i32(0)),
      f.set(from, asm.times(f.get(panelBlock), cut.panelBlock)),
      f.set(to, least(() => asm.plus(f.get(from), cut.panelBlock), wholePanels)),
      // Vectors of result channels of this part.
      f.set(q, m.select(m.i32.eq(f.get(panelBlock), asm.i32(cut.panelBlocks - 1)), asm.sub(asm.i32(out / 4), asm.times(f.get(from), panelColumns / 4)), asm.i32((cut.panelBlock * panelColumns) / 4))),
      ...(lastTiles === cut.tileBlock ? block(cut.tileBlock) : [f.if(m.i32.eq(f.get(tileBlock), asm.i32(cut.tileBlocks - 1)), block(lastTiles), block(cut.tileBlock))]),
    ];
  });
  // What is read of the input and written of the result passes by a tile at a time.
  return { fn, chunks: cut.tileBlocks * cut.panelBlocks, scratchBytes, vertexBytes: scratchBytes + Math.min(panelCache(asm.division), panelBytes * cut.panelBlock), uncut: `blocks of ${cut.tileBlock} tiles of ${channels} to ${out} channels: smaller ones ${cut.within === Infinity ? 'do not fit either' : `would take ${cut.within.toFixed(2)} times as long by estimate`}` };
}
