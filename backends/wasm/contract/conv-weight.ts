/**
 * Weight gradients of convolutions as matrix products: rows are (tap, input channel), columns are output channels, and the sum runs over pixels. Of a few image rows at a time,
 * the input is transposed so that the pixels of a channel follow each other, and the cotangent is packed in panels with as many zeros between its rows as the input has columns
 * of padding there. Then each tap of each channel is one run of memory, and the sums add up in scratch until all samples of a part have passed.
 */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { num, nums } from '../../../ir/op.ts';
import { panelColumns, storedColumns } from '../../../ir/ops/packing/panels.ts';
import { fewestChunks, type Division, type Placed } from '../../../ir/tile.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import type { Epilogue } from './epilogue.ts';
import type { Contraction } from './fused.ts';
import { packAnyPanel, packEvenPanel } from './pack-panels.ts';
import { tileLoops } from './tiles.ts';
import { channelRows } from './channel-rows.ts';

/** Bytes of sums that one chunk keeps, and the pixels that it takes at a time. */
const mostSums = (d: Division): number => d.bytesPerTile / 4;
const pixelsAtOnce = 600;

/** One axis of an image: where taps find their inputs once positions of equal phase (position mod stride) lie side by side. */
export interface Line {
  readonly input: number;
  readonly result: number;
  readonly kernel: number;
  readonly stride: number;
  readonly dilation: number;
  readonly before: number;
  /** Positions of one phase that taps read. */
  readonly positions: number;
}

/** Whether a `convWeight` is one for this kernel: f32, partial sums, at most two spatial axes. */
export const isPixelProduct = (op: Op): boolean =>
  op.name === 'convWeight' && num(op.attrs, 'parts') > 0 && op.operands[0]!.type.dtype === 'f32' && op.operands[0]!.type.shape.length <= 4;

/** Emits a `convWeight` of f32 and `parts` partial sums; each group is a product of its own. */
export function pixelProduct(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode {
  const { attrs } = k.root;
  const [x, dy] = [operands[k.roots[0]!]!, operands[k.roots[1]!]!];
  const groups = num(attrs, 'groups');
  // Of one group.
  const [channels, outputs] = [x.type.shape[1]! / groups, dy.type.shape[1]! / groups];
  invariant((x.type.shape[1] === 1 || x.strides[1] === 1) && (dy.type.shape[1] === 1 || dy.strides[1] === 1), 'a weight gradient reads channels that lie side by side');
  const parts = num(attrs, 'parts');
  const samples = x.type.shape[0]! / parts;
  const [ly, lx] = linesOf(k.root, x, dy);
  const shared = sharedColumns(lx);
  const pitch = lx.positions - shared;
  const taps = ly.kernel * lx.kernel;

  // What is taken at a time: some rows of an image, or some images.
  const band = Math.max(1, Math.min(ly.result, Math.floor(pixelsAtOnce / pitch)));
  const bands = Math.ceil(ly.result / band);
  const images = bands > 1 ? 1 : largestDivisor(samples, Math.max(1, Math.floor(pixelsAtOnce / (band * pitch))));

  const wholePanels = Math.floor(outputs / panelColumns);
  const rest = outputs % panelColumns;
  let channelBlock = channels;
  let panelBlock = Math.max(1, wholePanels);
  const sums = (): number => 4 * taps * channelBlock * panelBlock * panelColumns;
  const chunks = (): number => parts * groups * (channels / channelBlock) * Math.ceil(Math.max(1, wholePanels) / panelBlock);
  const [most, fewest] = [mostSums(asm.division), fewestChunks(asm.division)];
  while (channelBlock % 8 === 0 && (sums() > most || chunks() < fewest)) channelBlock /= 2;
  while (panelBlock > 1 && (sums() > most || chunks() < fewest)) panelBlock = Math.ceil(panelBlock / 2);
  const panelBlocks = Math.ceil(Math.max(1, wholePanels) / panelBlock);
  const columns = panelBlock * panelColumns + (rest > 0 ? storedColumns(rest) : 0);
  const rows = taps * channelBlock;

  // Scratch: row pointers, sums, the input's planes (channel, phase of the row, phase of the column), panels of the cotangent.
  const planeRows = band + Math.floor(((ly.kernel - 1) * ly.dilation) / ly.stride);
  const planeBytes = align(4 * (planeRows * pitch + shared)) + 64;
  const channelBytes = planeBytes * ly.stride * lx.stride;
  const imageBytes = channelBytes * channelBlock;
  const runFloats = band * pitch;
  const panelBytes = 4 * panelColumns * runFloats * images;
  const sumsAt = align(4 * rows * images);
  const planesAt = sumsAt + align(4 * rows * columns);
  const panelsAt = planesAt + align(imageBytes * images);
  const panelArea = panelBytes * panelBlock + 4 * (rest > 0 ? storedColumns(rest) : 0) * runFloats * images;
  const scratchBytes = align(panelsAt + panelArea) + 64;

  const xRow = 4 * (x.strides[2] ?? 0);
  const [xPixel, xImage, dyPixel, dyImage] = [4 * x.strides.at(-1)!, 4 * x.strides[0]!, 4 * dy.strides.at(-1)!, 4 * dy.strides[0]!];
  const twoAxes = x.type.shape.length === 4;
  const dyRow = twoAxes ? 4 * dy.strides[2]! : 0;
  const epilogue = adding();

  const fn = asm.fn(`convWeight ${kernelKey(k.op, operands, [result])}`, new Array<Ty>(operands.length + 3).fill('i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [panelIndex, channelIndex, part, group, from, to, sample, image, y, row, source, target, at, end, panel, i, o, tap, b] = Array.from({ length: 19 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const area = (offset: number): E => asm.plus(f.get(scratch!), offset);
    const least = (e: () => E, most: number): E => m.select(m.i32.lt_s(e(), asm.i32(most)), e(), asm.i32(most));
    const hasLast = (): E => m.i32.eq(f.get(panelIndex), asm.i32(panelBlocks - 1));
    const firstChannel = (): E => asm.add(asm.times(f.get(channelIndex), 4 * channelBlock), asm.times(f.get(group), 4 * channels));

    /** Where tap (ky, kx) starts in a channel's planes. */
    const tapOffset = (ky: number, kx: number): number => {
      const [v, u] = [ky * ly.dilation, kx * lx.dilation];
      return ((v % ly.stride) * lx.stride + (u % lx.stride)) * planeBytes + 4 * (Math.floor(v / ly.stride) * pitch + Math.floor(u / lx.stride));
    };
    const tapTable = Int32Array.from({ length: taps }, (_, t) => tapOffset(Math.floor(t / lx.kernel), t % lx.kernel));
    const offsets = asm.data(new Uint8Array(tapTable.buffer));
    const fillTable: E[] = [
      f.set(at, area(0)),
      f.repeat(image, 0, images, 1, [
        f.repeat(tap, 0, taps, 1, [
          f.set(source, asm.add(asm.add(area(planesAt), asm.times(f.get(image), imageBytes)), m.i32.load(offsets, 4, asm.times(f.get(tap), 4)))),
          f.repeat(i, 0, channelBlock, 1, [m.i32.store(0, 4, f.get(at), f.get(source)), f.inc(at, 4), f.inc(source, channelBytes)]),
        ]),
      ]),
    ];

    /** Transposes the input rows that result rows [y, y + count) read. */
    const transposeInput = (count: number): E[] => {
      const span = (count - 1) * ly.stride + (ly.kernel - 1) * ly.dilation + 1;
      const columnsOf = Array.from({ length: lx.stride }, (_, phase) => {
        const skip = Math.max(0, Math.ceil((lx.before - phase) / lx.stride));
        const first = skip * lx.stride + phase - lx.before;
        const exist = first < lx.input ? Math.floor((lx.input - 1 - first) / lx.stride) + 1 : 0;
        return { phase, skip, first, count: Math.min(exist, lx.positions - skip) };
      }).filter((c) => c.count > 0);
      const rowTarget = (): E => asm.add(f.get(target), asm.add(asm.times(m.i32.rem_u(f.get(row), asm.i32(ly.stride)), lx.stride * planeBytes), asm.times(m.i32.div_u(f.get(row), asm.i32(ly.stride)), 4 * pitch)));
      const copy: E[] = columnsOf.map((c) => asm.call(channelRows(asm), [
        asm.add(f.get(source), asm.add(asm.times(f.get(i), xRow), asm.i32(c.first * xPixel))), asm.i32(lx.stride * xPixel), asm.i32(c.count),
        asm.plus(rowTarget(), c.phase * planeBytes + 4 * c.skip), asm.i32(channelBytes), asm.i32(channelBlock),
      ]));
      // A band may meet the border where the one before it met the image.
      const clear: E[] = bands === 1 ? [] : columnsOf.flatMap((c) => [
        f.set(at, asm.plus(rowTarget(), c.phase * planeBytes + 4 * c.skip)),
        f.repeat(o, 0, channelBlock, 1, [m.memory.fill(f.get(at), asm.i32(0), asm.i32(4 * c.count)), f.inc(at, channelBytes)]),
      ]);
      return [
        f.repeat(row, 0, span, 1, [
          f.set(i, asm.plus(asm.add(asm.times(f.get(y), ly.stride), f.get(row)), -ly.before)),
          f.if(m.i32.lt_u(f.get(i), asm.i32(ly.input)), copy, clear.length > 0 ? clear : undefined),
        ]),
      ];
    };
    const packCotangent = (count: number): E[] => {
      const pack = (width: number, call: () => E): E => f.repeat(row, 0, count, 1, [call(), f.inc(source, dyRow), f.inc(at, 4 * width * pitch)]);
      const start = (column: () => E): E => f.set(source, asm.add(asm.add(f.get(o), asm.times(f.get(y), dyRow)), column()));
      return [
        ...(wholePanels > 0
          ? [f.loop(panel, f.get(from), () => f.get(to), 1, [
            start(() => asm.times(f.get(panel), 4 * panelColumns)),
            f.set(at, asm.add(f.get(b), asm.times(asm.sub(f.get(panel), f.get(from)), panelBytes))),
            f.set(at, asm.add(f.get(at), asm.times(f.get(image), 4 * panelColumns * runFloats))),
            pack(panelColumns, () => asm.call(packEvenPanel(asm), [f.get(source), asm.i32(dyPixel), asm.i32(lx.result), f.get(at)])),
          ])]
          : []),
        ...(rest > 0
          ? [f.if(hasLast(), [
            start(() => asm.i32(4 * panelColumns * wholePanels)),
            f.set(at, asm.add(f.get(b), asm.times(asm.sub(f.get(to), f.get(from)), panelBytes))),
            f.set(at, asm.add(f.get(at), asm.times(f.get(image), 4 * storedColumns(rest) * runFloats))),
            pack(storedColumns(rest), () => asm.call(packAnyPanel(asm), [f.get(source), asm.i32(dyPixel), asm.i32(4), asm.i32(lx.result), asm.i32(rest), asm.i32(storedColumns(rest)), f.get(at)])),
          ])]
          : []),
      ];
    };
    /** All sums of `count` result rows from row y, of the unit's images. */
    const unit = (count: number): E[] => [
      f.repeat(image, 0, images, 1, [
        f.set(source, asm.add(asm.add(f.get(pointers[k.roots[0]!]!), asm.times(asm.add(f.get(sample), f.get(image)), xImage)), firstChannel())),
        f.set(target, asm.add(area(planesAt), asm.times(f.get(image), imageBytes))),
        ...transposeInput(count),
        f.set(o, asm.add(asm.add(f.get(pointers[k.roots[1]!]!), asm.times(f.get(group), 4 * outputs)), asm.times(asm.add(f.get(sample), f.get(image)), dyImage))),
        ...packCotangent(count),
      ]),
      ...tileLoops(f, {
        rows, from, to, panelsPerPass: Math.max(1, panelBlock), lastColumns: rest, wholePanels, hasLast,
        table: () => area(0), taps: images, tapStride: () => asm.i32(4 * rows), run: 4 * count * pitch, rowOffset: () => asm.i32(0),
        b: () => asm.sub(f.get(b), asm.times(f.get(from), panelBytes)), panelBytes,
        c: () => asm.sub(area(sumsAt), asm.times(f.get(from), 4 * panelColumns)), rowStride: 4 * columns,
        extra: [{ pointer: () => asm.sub(area(sumsAt), asm.times(f.get(from), 4 * panelColumns)), rowStride: 4 * columns, columnBytes: 4 }],
        columnBytes: 4, epilogue,
      }),
    ];
    const lastBand = ly.result - (bands - 1) * band;
    const bandLoop: E[] = [
      ...(bands > 1 ? [f.repeat(y, 0, (bands - 1) * band, band, unit(band))] : []),
      f.set(y, asm.i32((bands - 1) * band)),
      ...unit(lastBand),
    ];
    const strides = result.strides.map((s) => 4 * s);
    const [partStride, outStride, inStride] = strides as [number, number, number];
    const tapStrides = strides.slice(3);
    const storeTap = (ky: number, kx: number): number => (twoAxes ? ky * tapStrides[0]! + kx * tapStrides[1]! : kx * tapStrides[0]!);
    const storeSums: E[] = [
      f.set(end, hasLast()),
      f.set(end, asm.add(asm.times(asm.sub(f.get(to), f.get(from)), panelColumns), m.select(f.get(end), asm.i32(rest), asm.i32(0)))),
      f.set(target, asm.add(asm.add(f.get(pointers[operands.length]!), asm.add(asm.mul(f.get(part), asm.i32(partStride)), asm.mul(f.get(group), asm.i32(outputs * outStride)))), asm.add(asm.mul(f.get(from), asm.i32(panelColumns * outStride)), asm.mul(f.get(channelIndex), asm.i32(channelBlock * inStride))))),
      f.loop(o, asm.i32(0), () => f.get(end), 1, [
        f.set(source, asm.add(area(sumsAt), asm.times(f.get(o), 4))),
        f.set(at, f.get(target)),
        f.repeat(i, 0, channelBlock, 1, [
          ...(taps <= 16
            ? Array.from({ length: taps }, (_, t) => m.f32.store(0, 4, asm.plus(f.get(at), storeTap(Math.floor(t / lx.kernel), t % lx.kernel)), m.f32.load(0, 4, asm.plus(f.get(source), 4 * columns * channelBlock * t))))
            : [f.repeat(tap, 0, taps, 1, [
              m.f32.store(0, 4,
                asm.add(f.get(at), asm.add(asm.mul(m.i32.div_u(f.get(tap), asm.i32(lx.kernel)), asm.i32(twoAxes ? tapStrides[0]! : 0)), asm.mul(m.i32.rem_u(f.get(tap), asm.i32(lx.kernel)), asm.i32(tapStrides.at(-1)!)))),
                m.f32.load(0, 4, asm.add(f.get(source), asm.mul(f.get(tap), asm.i32(4 * columns * channelBlock))))),
            ])]),
          f.inc(source, 4 * columns),
          f.inc(at, inStride),
        ]),
        f.inc(target, outStride),
      ]),
    ];
    return [
      f.set(panelIndex, m.i32.rem_u(f.get(chunk!), asm.i32(panelBlocks))),
      f.set(part, m.i32.div_u(f.get(chunk!), asm.i32(panelBlocks))),
      f.set(channelIndex, m.i32.rem_u(f.get(part), asm.i32(channels / channelBlock))),
      f.set(part, m.i32.div_u(f.get(part), asm.i32(channels / channelBlock))),
      f.set(group, m.i32.rem_u(f.get(part), asm.i32(groups))),
      f.set(part, m.i32.div_u(f.get(part), asm.i32(groups))),
      f.set(from, asm.times(f.get(panelIndex), panelBlock)),
      f.set(to, least(() => asm.plus(f.get(from), panelBlock), wholePanels)),
      f.set(b, area(panelsAt)),
      m.memory.fill(area(sumsAt), asm.i32(0), asm.i32(scratchBytes - sumsAt)),
      ...fillTable,
      f.loop(sample, asm.mul(f.get(part), asm.i32(samples)), () => asm.mul(asm.plus(f.get(part), 1), asm.i32(samples)), images, bandLoop),
      ...storeSums,
    ];
  });
  return { fn, chunks: chunks(), scratchBytes, vertexBytes: scratchBytes + imageBytes * images + panelArea, uncut: `sums of ${channelBlock} x ${Math.min(outputs, columns)} channels beside ${runFloats * images} pixels` };
}

/** The two axes of an image; a convolution over one axis has one row. */
export function linesOf(root: Op, x: Placed, dy: Placed): [Line, Line] {
  const [strides, pads, dilations, kernel] = [nums(root.attrs, 'strides'), nums(root.attrs, 'pads'), nums(root.attrs, 'dilations'), nums(root.attrs, 'kernel')];
  const lines = kernel.map((size, i): Line => {
    const [stride, dilation, result] = [strides[i]!, dilations[i]!, dy.type.shape[2 + i]!];
    return { input: x.type.shape[2 + i]!, result, kernel: size, stride, dilation, before: pads[i]!, positions: result + Math.floor(((size - 1) * dilation) / stride) };
  });
  const none: Line = { input: 1, result: 1, kernel: 1, stride: 1, dilation: 1, before: 0, positions: 1 };
  return [none, ...lines].slice(-2) as [Line, Line];
}

/** Columns of padding at the end of a row that the padding at the start of the next one can stand for, in every phase. */
function sharedColumns(l: Line): number {
  let shared = l.positions;
  for (let phase = 0; phase < l.stride; phase++) {
    const inside = (q: number): boolean => q * l.stride + phase >= l.before && q * l.stride + phase - l.before < l.input;
    let [leading, trailing] = [0, 0];
    while (leading < l.positions && !inside(leading)) leading++;
    while (trailing < l.positions && !inside(l.positions - 1 - trailing)) trailing++;
    shared = Math.min(shared, leading, trailing);
  }
  return Math.min(shared, l.positions - l.result);
}

const align = (n: number): number => Math.ceil(n / 64) * 64;
/** The largest divisor of n up to `most`; 1 where there is none. */
export const largestDivisor = (n: number, most: number): number => Array.from({ length: Math.min(n, most) }, (_, i) => Math.min(n, most) - i).find((d) => n % d === 0) ?? 1;

/** Adds a tile to the sums that are stored. */
function adding(): Epilogue {
  const type = { dtype: 'f32', shape: [] } as const;
  const [root, before, sum] = [0, 1, 2].map((): Value => ({ type, name: undefined })) as [Value, Value, Value];
  const add: Op = { name: 'add', operands: [root, before], attrs: {}, results: [sum], regions: [], source: [] };
  return { key: 'adding', operands: [{ value: before, dtype: 'f32', operand: -1, columnStride: 1, varies: true }], heavy: false, dtype: 'f32', columnStride: 1, body: [add], root, output: sum };
}
