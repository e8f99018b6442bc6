/**
 * Weight gradients of depthwise convolutions: vectors of channels, the sums of some kernel rows in registers while a row of the cotangent passes. Sums of a row are added to those in
 * scratch, which go to the result when all samples of a part have passed.
 */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op } from '../../../ir/graph.ts';
import { num } from '../../../ir/op.ts';
import { fewestChunks, type Placed } from '../../../ir/tile.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { isPixelProduct, linesOf, type Line } from './conv-weight.ts';
import { tileRuns, type TileRun } from './depthwise.ts';
import type { Contraction } from './fused.ts';

/** Vector registers for sums and for pixels of the cotangent: an input and a spare take the others. */
const registers = 14;
const mostSums = 10;
const mostPixels = 6;
/** Blocks of channels fill lines of the cache. */
const channelMultiple = 16;

/** Whether a `convWeight` is one for this kernel: f32, partial sums, one channel a group on both sides. */
export const isDepthwiseWeight = (op: Op): boolean => isPixelProduct(op) && num(op.attrs, 'groups') > 1 && op.operands.every((v) => v.type.shape[1] === num(op.attrs, 'groups'));

/** Emits a `convWeight` of f32 with `parts` partial sums, depthwise. */
export function depthwiseWeight(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode {
  const [x, dy] = [operands[k.roots[0]!]!, operands[k.roots[1]!]!];
  invariant(x.strides[1] === 1 && dy.strides[1] === 1, 'a weight gradient reads channels that lie side by side');
  const [ly, lx] = linesOf(k.root, x, dy);
  const parts = num(k.root.attrs, 'parts');
  const channels = x.type.shape[1]!;
  const samples = x.type.shape[0]! / parts;
  const taps = ly.kernel * lx.kernel;
  const wanted = Math.ceil(fewestChunks(asm.division) / parts);
  const block = Math.min(channels, Math.max(1, Math.ceil(channels / wanted / channelMultiple)) * channelMultiple);
  const blocks = Math.ceil(channels / block);
  const vectors = Math.ceil(block / 4);

  const kernelRows = Math.max(1, Math.min(ly.kernel, Math.floor(mostSums / lx.kernel)));
  const pixels = Math.max(1, Math.min(mostPixels, registers - kernelRows * lx.kernel));
  const shape = { lx, runs: tileRuns({ size: lx.input, result: lx.result, kernel: lx.kernel, stride: lx.stride, dilation: lx.dilation, before: lx.before }, pixels), taps };
  const twoAxes = x.type.shape.length === 4;
  const [xImage, xRow, xPixel] = [4 * x.strides[0]!, twoAxes ? 4 * x.strides[2]! : 0, 4 * x.strides.at(-1)!];
  const [dyImage, dyRow, dyPixel] = [4 * dy.strides[0]!, twoAxes ? 4 * dy.strides[2]! : 0, 4 * dy.strides.at(-1)!];
  const [partStride, outStride] = result.strides.map((s) => 4 * s) as [number, number];
  const tapStrides = result.strides.slice(3).map((s) => 4 * s);
  const scratchBytes = 16 * vectors * taps;

  const fn = asm.fn(`depthwise weight ${kernelKey(k.op, operands, [result])}`, new Array<Ty>(operands.length + 3).fill('i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [part, channel, count, width, sample, y, tap, row, last, i, source, target] = Array.from({ length: 12 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const at = (pointer: Local, image: number): E => asm.add(asm.add(f.get(pointer), asm.times(f.get(channel), 4)), asm.mul(f.get(sample), asm.i32(image)));
    /** Adds the sums of `rows` kernel rows from row `tap` of one row of the cotangent. */
    const add = (rows: number): E => asm.call(rowSums(asm, { ...shape, rows, xRow: ly.dilation * xRow, xPixel, dyPixel }), [
      asm.add(at(pointers[k.roots[0]!]!, xImage), asm.mul(f.get(row), asm.i32(xRow))),
      asm.add(at(pointers[k.roots[1]!]!, dyImage), asm.mul(f.get(y), asm.i32(dyRow))),
      asm.add(f.get(scratch!), asm.times(f.get(tap), 16 * lx.kernel)),
      f.get(width),
    ]);
    const inside = (l: Local): E => m.i32.lt_u(f.get(l), asm.i32(ly.input));
    const rowOf = (t: () => E): E => asm.plus(asm.add(asm.times(f.get(y), ly.stride), asm.times(t(), ly.dilation)), -ly.before);
    const kernelRowLoop: E[] = [];
    for (let first = 0; first < ly.kernel; first += kernelRows) {
      const rows = Math.min(kernelRows, ly.kernel - first);
      const single = f.repeat(tap, first, first + rows, 1, [f.set(row, rowOf(() => f.get(tap))), f.if(inside(row), [add(1)])]);
      kernelRowLoop.push(...(rows === 1 ? [single] : [
        f.set(row, rowOf(() => asm.i32(first))),
        f.set(last, rowOf(() => asm.i32(first + rows - 1))),
        f.if(m.i32.and(inside(row), inside(last)), [f.set(tap, asm.i32(first)), add(rows)], [single]),
      ]));
    }
    const store = Array.from({ length: taps }, (_, t) => m.f32.store(0, 4,
      asm.plus(f.get(target), twoAxes ? Math.floor(t / lx.kernel) * tapStrides[0]! + (t % lx.kernel) * tapStrides[1]! : t * tapStrides[0]!),
      m.f32.load(16 * t, 4, f.get(source))));
    return [
      f.set(part, m.i32.div_u(f.get(chunk!), asm.i32(blocks))),
      f.set(channel, asm.times(m.i32.rem_u(f.get(chunk!), asm.i32(blocks)), block)),
      f.set(count, asm.sub(asm.i32(channels), f.get(channel))),
      f.if(m.i32.gt_s(f.get(count), asm.i32(block)), [f.set(count, asm.i32(block))]),
      f.set(width, m.i32.shr_u(asm.plus(f.get(count), 3), asm.i32(2))),
      m.memory.fill(f.get(scratch!), asm.i32(0), asm.i32(scratchBytes)),
      f.loop(sample, asm.times(f.get(part), samples), () => asm.times(asm.plus(f.get(part), 1), samples), 1, [f.repeat(y, 0, ly.result, 1, kernelRowLoop)]),
      f.set(target, asm.add(asm.add(f.get(pointers[operands.length]!), asm.mul(f.get(part), asm.i32(partStride))), asm.mul(f.get(channel), asm.i32(outStride)))),
      f.loop(i, asm.i32(0), () => f.get(count), 1, [
        f.set(source, asm.add(f.get(scratch!), asm.add(asm.mul(m.i32.shr_u(f.get(i), asm.i32(2)), asm.i32(16 * taps)), asm.times(m.i32.and(f.get(i), asm.i32(3)), 4)))),
        ...store,
        f.inc(target, outStride),
      ]),
    ];
  });
  return { fn, chunks: parts * blocks, scratchBytes, vertexBytes: scratchBytes + 4 * block * (ly.kernel * lx.input + lx.result) };
}

interface RowShape {
  readonly lx: Line;
  readonly runs: readonly TileRun[];
  /** Kernel rows at once, of `taps` taps in all. */
  readonly rows: number;
  readonly taps: number;
  /** Bytes from the input of one kernel row to that of the next, and from one pixel to the next. */
  readonly xRow: number;
  readonly xPixel: number;
  readonly dyPixel: number;
}

/** The sums of some kernel rows over one row of the cotangent: (input row, cotangent row, sums, vectors of channels). */
function rowSums(asm: Asm, s: RowShape): string {
  const { lx, runs, rows, xPixel, dyPixel } = s;
  const key = `depthwise weight row ${rows}x${lx.kernel} of ${s.taps} stride ${lx.stride} dilation ${lx.dilation} before ${lx.before} ${lx.input}->${lx.result} ${s.xRow} ${xPixel} ${dyPixel} ${runs[0]!.pixels}`;
  return asm.fn(key, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [input, cotangent, sums, vectors]) => {
    const { m } = asm;
    const acc = Array.from({ length: rows }, () => Array.from({ length: lx.kernel }, () => f.vlocal()));
    const pixels = Array.from({ length: Math.max(...runs.map((r) => r.pixels)) }, () => f.vlocal());
    const value = f.vlocal();
    const [x, dy, run] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const rowPointers = acc.map(() => f.local('i32'));
    const tile = (r: TileRun): E[] => {
      const out = [
        ...pixels.slice(0, r.pixels).map((p, i) => f.vset(p, asm.vload(dy, i * dyPixel))),
        ...rowPointers.map((p, i) => f.set(p, asm.plus(f.get(x), i * s.xRow))),
      ];
      for (let column = r.from; column < r.to; column++) {
        const uses = Array.from({ length: lx.kernel }, (_, tap) => ({ tap, at: column - tap * lx.dilation })).filter((u) => u.at % lx.stride === 0 && u.at >= 0 && u.at / lx.stride < r.pixels);
        if (uses.length === 0) continue;
        acc.forEach((sum, i) => {
          out.push(f.vset(value, asm.vload(rowPointers[i]!, (column - r.from) * xPixel)));
          for (const u of uses) out.push(f.vset(sum[u.tap]!, asm.vmadd(f.vget(pixels[u.at / lx.stride]!), f.vget(value), f.vget(sum[u.tap]!))));
        });
      }
      return [...out, f.inc(x, r.pixels * lx.stride * xPixel), f.inc(dy, r.pixels * dyPixel)];
    };
    const top = f.label('vector');
    return [m.loop(top, m.block(null, [
      ...acc.flat().map((l) => f.vset(l, asm.vsplat(0))),
      f.set(dy, f.get(cotangent!)),
      ...runs.flatMap((r) => [
        // At the first column that exists: addresses are not negative.
        f.set(x, asm.plus(f.get(input!), (r.first * lx.stride - lx.before + r.from) * xPixel)),
        ...(r.count === 1 ? tile(r) : [f.repeat(run, 0, r.count, 1, tile(r))]),
      ]),
      ...acc.flat().map((l, t) => asm.vstore(sums!, 16 * t, asm.vadd(asm.vload(sums!, 16 * t), f.vget(l)))),
      f.inc(input!, 16), f.inc(cotangent!, 16), f.inc(sums!, 16 * s.taps),
      m.br(top, f.tee(vectors!, asm.sub(f.get(vectors!), asm.i32(1)))),
    ]))];
  });
}
