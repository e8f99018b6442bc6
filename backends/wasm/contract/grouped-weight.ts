/**
 * Weight gradients of grouped convolutions with few channels a group: an outer product at every pixel. Sums of some taps and input channels by one or two vectors of output channels stay in
 * registers while rows of pixels pass, so nothing is transposed or packed; groups that share lines of the cache are computed together, a band of rows at a time.
 */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op } from '../../../ir/graph.ts';
import { num } from '../../../ir/op.ts';
import { fewestChunks, type Placed } from '../../../ir/tile.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { isPixelProduct, largestDivisor, linesOf, type Line } from './conv-weight.ts';
import { tileRuns, type TileRun } from './depthwise.ts';
import type { Contraction } from './fused.ts';

/** Vector registers for sums; the cotangent, an input and a spare take the others. */
const mostSums = 12;
/** Widest groups, in input channels: of wider ones a matrix product over pixels is faster. */
const widestGroup = 16;
/** Floats of a line of the cache, and bytes of lines that a band of rows may take of the first-level cache. */
const lineFloats = 16;
const bandBytes = 24 * 1024;

/** Whether a `convWeight` is one for this kernel: f32, partial sums, groups of few channels that are not depthwise, output channels in vectors. */
export function isGroupedWeight(op: Op): boolean {
  const groups = num(op.attrs, 'groups');
  const [inputs, outputs] = op.operands.map((v) => v.type.shape[1]! / groups) as [number, number];
  return isPixelProduct(op) && groups > 1 && inputs <= widestGroup && outputs % 4 === 0;
}

/** Emits a `convWeight` of f32 with `parts` partial sums, in groups. */
export function groupedWeight(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode {
  const [x, dy] = [operands[k.roots[0]!]!, operands[k.roots[1]!]!];
  invariant((x.type.shape[1] === 1 || x.strides[1] === 1) && dy.strides[1] === 1, 'a weight gradient reads channels that lie side by side');
  const [ly, lx] = linesOf(k.root, x, dy);
  const groups = num(k.root.attrs, 'groups');
  const [inputs, outputs] = [x.type.shape[1]! / groups, dy.type.shape[1]! / groups];
  const parts = num(k.root.attrs, 'parts');
  const samples = x.type.shape[0]! / parts;

  // Of one call: vectors of output channels, columns of the kernel (in blocks), input channels.
  const vectors = outputs % 8 === 0 ? 2 : 1;
  const columnBlocks = evenBlocks(lx.kernel, mostSums / vectors);
  const channels = largestDivisor(inputs, Math.floor(mostSums / (vectors * columnBlocks[0]!.size)));
  const tapBytes = 16 * channels * vectors;
  const blockBytes = tapBytes * ly.kernel * lx.kernel;
  const [channelBlocks, outputBlocks] = [inputs / channels, outputs / (4 * vectors)];

  const wanted = Math.ceil(fewestChunks(asm.division) / parts);
  const together = divisors(groups).find((n) => n * inputs >= lineFloats || n * wanted >= groups)!;
  const chunksOfPart = groups / together;
  const lines = 4 * Math.max(lineFloats, together * inputs) * ly.stride * lx.input + 4 * Math.max(lineFloats, together * outputs) * lx.result;
  const band = Math.max(1, Math.min(ly.result, Math.floor(bandBytes / lines)));
  const scratchBytes = together * outputBlocks * channelBlocks * blockBytes;

  const runs = tileRuns({ size: lx.input, result: lx.result, kernel: lx.kernel, stride: lx.stride, dilation: lx.dilation, before: lx.before }, Math.min(lx.result, pixelsAtOnce(vectors)));
  const twoAxes = x.type.shape.length === 4;
  const [xImage, xRow, xPixel] = [4 * x.strides[0]!, twoAxes ? 4 * x.strides[2]! : 0, 4 * x.strides.at(-1)!];
  const [dyImage, dyRow, dyPixel] = [4 * dy.strides[0]!, twoAxes ? 4 * dy.strides[2]! : 0, 4 * dy.strides.at(-1)!];
  const [partStride, outStride, inStride] = result.strides.map((s) => 4 * s) as [number, number, number];
  const columnStride = 4 * result.strides.at(-1)!;
  const rowStride = twoAxes ? 4 * result.strides[3]! : 0;

  const fn = asm.fn(`grouped weight ${kernelKey(k.op, operands, [result])}`, new Array<Ty>(operands.length + 3).fill('i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [part, first, sample, y, from, to, group, o, i, sums, source, target, row, column] = Array.from({ length: 14 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const most = (a: () => E, b: () => E, larger: boolean): E => m.select(larger ? m.i32.gt_s(a(), b()) : m.i32.lt_s(a(), b()), a(), b());
    /** Adds what rows of the band give to the sums of one row of the kernel, where it meets the input at all. */
    const kernelRow = (ky: number): E[] => {
      const shift = ky * ly.dilation - ly.before;
      const low = Math.max(0, Math.ceil(-shift / ly.stride));
      const high = Math.min(ly.result, Math.floor((ly.input - 1 - shift) / ly.stride) + 1);
      if (low >= high) return [];
      const call = ({ first: kx, size }: Block): E => asm.call(rowSums(asm, { lx, runs, kx, size, channels, vectors, xRow: ly.stride * xRow, dyRow, xPixel, dyPixel }), [
        asm.add(f.get(source), asm.mul(asm.plus(asm.times(f.get(from), ly.stride), shift), asm.i32(xRow))),
        asm.add(f.get(target), asm.mul(f.get(from), asm.i32(dyRow))),
        asm.plus(f.get(sums), (ky * lx.kernel + kx) * tapBytes),
        asm.sub(f.get(to), f.get(from)),
      ]);
      return [
        f.set(from, most(() => f.get(y), () => asm.i32(low), true)),
        f.set(to, most(() => asm.plus(f.get(y), band), () => asm.i32(high), false)),
        f.if(m.i32.lt_s(f.get(from), f.get(to)), columnBlocks.map(call)),
      ];
    };
    const channelAt = (per: number, offset: () => E): E => asm.times(asm.add(asm.mul(asm.add(f.get(first), f.get(group)), asm.i32(per)), offset()), 4);
    const blocksOf = (body: readonly E[]): E => m.block(null, [
      f.set(sums, f.get(scratch!)),
      f.repeat(group, 0, together, 1, [f.repeat(o, 0, outputBlocks, 1, [f.repeat(i, 0, channelBlocks, 1, [...body, f.inc(sums, blockBytes)])])]),
    ]);
    const xAt = (): E => asm.add(asm.add(f.get(pointers[k.roots[0]!]!), asm.mul(f.get(sample), asm.i32(xImage))), channelAt(inputs, () => asm.times(f.get(i), channels)));
    const dyAt = (): E => asm.add(asm.add(f.get(pointers[k.roots[1]!]!), asm.mul(f.get(sample), asm.i32(dyImage))), channelAt(outputs, () => asm.times(f.get(o), 4 * vectors)));
    const store = Array.from({ length: channels }, (_, c) => Array.from({ length: 4 * vectors }, (_, lane) =>
      m.f32.store(lane * outStride + c * inStride, 4, f.get(target), m.f32.load(4 * (c * 4 * vectors + lane), 4, f.get(source))))).flat();
    return [
      f.set(part, m.i32.div_u(f.get(chunk!), asm.i32(chunksOfPart))),
      f.set(first, asm.times(m.i32.rem_u(f.get(chunk!), asm.i32(chunksOfPart)), together)),
      m.memory.fill(f.get(scratch!), asm.i32(0), asm.i32(scratchBytes)),
      f.loop(sample, asm.times(f.get(part), samples), () => asm.times(asm.plus(f.get(part), 1), samples), 1, [
        f.repeat(y, 0, ly.result, band, [blocksOf([
          f.set(source, xAt()), f.set(target, dyAt()),
          ...Array.from({ length: ly.kernel }, (_, ky) => kernelRow(ky)).flat(),
        ])]),
      ]),
      blocksOf([
        f.set(source, f.get(sums)),
        f.repeat(row, 0, ly.kernel, 1, [f.repeat(column, 0, lx.kernel, 1, [
          f.set(target, asm.add(asm.add(f.get(pointers[operands.length]!), asm.mul(f.get(part), asm.i32(partStride))), asm.add(asm.mul(f.get(row), asm.i32(rowStride)), asm.mul(f.get(column), asm.i32(columnStride))))),
          f.set(target, asm.add(f.get(target), asm.add(
            asm.mul(asm.add(asm.mul(asm.add(f.get(first), f.get(group)), asm.i32(outputs)), asm.times(f.get(o), 4 * vectors)), asm.i32(outStride)),
            asm.mul(f.get(i), asm.i32(channels * inStride))))),
          ...store,
          f.inc(source, tapBytes),
        ])]),
      ]),
    ];
  });
  const vertexBytes = scratchBytes + 4 * together * (inputs * lx.input * ((band - 1) * ly.stride + ly.kernel) + outputs * lx.result * band);
  return { fn, chunks: parts * chunksOfPart, scratchBytes, vertexBytes, uncut: `sums of ${together * outputs} x ${inputs} channels beside ${band} rows of ${lx.result} pixels` };
}

/** Pixels of a round of the inner loop. V8 moves loads of longer rounds ahead, beyond what registers hold: 4 pixels are a fifth slower. */
const pixelsAtOnce = (vectors: number): number => 2 / vectors;

interface RowShape {
  readonly lx: Line;
  readonly runs: readonly TileRun[];
  /** Columns of the kernel: the first, and how many. */
  readonly kx: number;
  readonly size: number;
  readonly channels: number;
  readonly vectors: number;
  /** Bytes from the input of one row of results to that of the next, and so on. */
  readonly xRow: number;
  readonly dyRow: number;
  readonly xPixel: number;
  readonly dyPixel: number;
}

/** The sums of one row of the kernel over rows of the cotangent: (input row, cotangent row, sums, rows). */
function rowSums(asm: Asm, s: RowShape): string {
  const { lx, runs, channels, vectors, xPixel, dyPixel } = s;
  const key = `grouped weight rows ${s.kx}+${s.size} of ${lx.kernel} by ${channels}x${vectors} stride ${lx.stride} dilation ${lx.dilation} before ${lx.before} ${lx.input}->${lx.result} ${s.xRow} ${s.dyRow} ${xPixel} ${dyPixel} ${runs[0]!.pixels}`;
  return asm.fn(key, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [input, cotangent, sums, rows]) => {
    const { m } = asm;
    const acc = Array.from({ length: s.size }, () => Array.from({ length: channels }, () => Array.from({ length: vectors }, () => f.vlocal())));
    const gradient = Array.from({ length: vectors }, () => f.vlocal());
    const value = f.vlocal();
    const [x, dy, run] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const tile = (r: TileRun): E[] => {
      const out: E[] = [];
      for (let p = 0; p < r.pixels; p++) {
        const taps = acc.flatMap((sum, t) => {
          const at = p * lx.stride + (s.kx + t) * lx.dilation;
          return at >= r.from && at < r.to ? [{ sum, at: at - r.from }] : [];
        });
        if (taps.length === 0) continue;
        out.push(...gradient.map((g, v) => f.vset(g, asm.vload(dy, p * dyPixel + 16 * v))));
        for (const { sum, at } of taps) {
          sum.forEach((of, c) => out.push(
            f.vset(value, asm.vload1(x, at * xPixel + 4 * c, f)),
            ...of.map((l, v) => f.vset(l, asm.vmadd(f.vget(value), f.vget(gradient[v]!), f.vget(l)))),
          ));
        }
      }
      return [...out, f.inc(x, r.pixels * lx.stride * xPixel), f.inc(dy, r.pixels * dyPixel)];
    };
    const top = f.label('row');
    const all = acc.flat(2);
    return [
      ...all.map((l, t) => f.vset(l, asm.vload(sums!, 16 * t))),
      m.loop(top, m.block(null, [
        f.set(dy, f.get(cotangent!)),
        ...runs.flatMap((r) => [
          // At the first column that exists: addresses are not negative.
          f.set(x, asm.plus(f.get(input!), (r.first * lx.stride - lx.before + r.from) * xPixel)),
          ...(r.count === 1 ? tile(r) : [f.repeat(run, 0, r.count, 1, tile(r))]),
        ]),
        f.inc(input!, s.xRow), f.inc(cotangent!, s.dyRow),
        m.br(top, f.tee(rows!, asm.sub(f.get(rows!), asm.i32(1)))),
      ])),
      ...all.map((l, t) => asm.vstore(sums!, 16 * t, f.vget(l))),
    ];
  });
}

interface Block { readonly first: number; readonly size: number }

/** Blocks of at most `most`, whose sizes differ by one at most, the larger ones first. */
function evenBlocks(size: number, most: number): Block[] {
  const count = Math.ceil(size / most);
  const blocks: Block[] = [];
  for (let k = 0, first = 0; k < count; k++) {
    const own = Math.floor(size / count) + (k < size % count ? 1 : 0);
    blocks.push({ first, size: own });
    first += own;
  }
  return blocks;
}

const divisors = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
