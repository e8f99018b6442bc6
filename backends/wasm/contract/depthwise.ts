/** Depthwise convolutions: vectors of channels, a row of results in registers, weights of a kernel row in registers while that row of the input passes. */
import { geometryOf } from '../../../ir/ops/packing/geometry.ts';
import { mostChunks, type Placed } from '../../../ir/tile.ts';
import { dtypes } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local, Ty, Vec, VLocal } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { convAxes } from './conv-direct.ts';
import { applyEpilogue, epilogueOf, epilogueParams, nextRow, plainStore, startingFromBias, startValue, storeResult, type Epilogue } from './epilogue.ts';
import type { Contraction } from './fused.ts';
import { momentsKey, takeMoments, type BlockMoments } from './moments.ts';
import type { Axis } from './rows.ts';
import { broadcastTo, type TileSpace } from './space.ts';

/** Vector registers for results: the weights of a kernel row, an input and a spare take the others. */
const registers = 14;
const mostPixels = 8;
const leastWork = 30_000;

/** A row of results that is computed at once: how many, and which columns of the input they read that exist. */
export interface PixelTile { readonly pixels: number; readonly from: number; readonly to: number }
/** Neighbouring tiles of one kind. */
export interface TileRun extends PixelTile { readonly first: number; readonly count: number }

/** Emits a `convPacked` of algorithm `depthwise`, plain or as the root of a fused op. */
export function depthwiseConv(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed, moments?: BlockMoments): KernelCode {
  const { groups: channels, taps } = geometryOf(k.root.attrs);
  const input = operands[k.roots[0]!]!;
  const [, ay, ax] = convAxes(k, input, result);
  const batch = input.type.shape[0]!;
  const tensors = [result, ...k.extra.map((i) => operands[i]!)].map((p) => {
    const { bytes } = dtypes[p.type.dtype];
    const [n, c, ...spatial] = broadcastTo(result.type.shape, p.type.shape, p.strides) as [number, number, ...number[]];
    return { n: n * bytes, h: spatial.length > 1 ? spatial[0]! * bytes : 0, w: spatial.at(-1)! * bytes, c, bytes };
  });
  const space: TileSpace = { outerSizes: [], outer: 1, rows: ax.result, tensors: tensors.map((t) => ({ outerStrides: [], rowStride: t.w, columnStride: t.c })) };
  const epilogue = startingFromBias(epilogueOf(k.op, k.root, k.extra, space));
  const rows = batch * ay.result;
  const chunks = Math.max(1, Math.min(mostChunks(asm.division), rows, Math.floor((rows * ax.result * channels * taps) / leastWork)));
  const rowsOfBlock = moments ? moments.pixels / ax.result : 1;
  const block = Math.ceil(Math.ceil(rows / chunks) / rowsOfBlock) * rowsOfBlock;
  const runs = tileRuns(ax, pixelsOf(ax));

  const fn = asm.fn(`depthwise ${kernelKey(k.op, operands, [result])}${momentsKey(moments)}`, new Array<Ty>(operands.length + (moments ? 5 : 3)).fill('i32'), undefined, (f, [chunk, , ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [row, end, n, y, top, skipped, kept, tile, pixel] = Array.from({ length: 9 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const at = (tensor: number, pointer: Local): E => {
      const t = tensors[tensor]!;
      return asm.add(asm.add(f.get(pointer), asm.times(f.get(n), t.n)), asm.add(asm.times(f.get(y), t.h), asm.times(f.get(pixel), t.w)));
    };
    const call = (run: TileRun): E => asm.call(pixelRow(asm, { tile: run, ax, channels, kernelRows: ay.kernel, resultStride: tensors[0]!.w }, epilogue), [
      // The input's row of the first kernel row that is kept, at the first column of the tile that exists: addresses are not negative.
      asm.add(
        asm.add(f.get(pointers[k.roots[0]!]!), asm.times(f.get(n), 4 * input.strides[0]!)),
        asm.add(asm.times(asm.add(f.get(top), asm.times(f.get(skipped), ay.dilation)), ay.bytes), asm.times(asm.plus(asm.times(f.get(pixel), ax.stride), run.from - ax.before), ax.bytes)),
      ),
      asm.i32(ay.dilation * ay.bytes),
      asm.add(f.get(pointers[k.roots[1]!]!), asm.times(f.get(skipped), 16 * ax.kernel)),
      f.get(kept),
      at(0, pointers[operands.length]!),
      ...epilogue.operands.flatMap((o, i) => [at(1 + i, pointers[o.operand]!), ...(o.varies ? [asm.i32(tensors[1 + i]!.w)] : [])]),
    ]);
    /** The moments of a block, when its last row is stored. */
    const overBlock = (k: BlockMoments): E[] => {
      const blockOf = (): E => m.i32.div_u(f.get(row), asm.i32(rowsOfBlock));
      const take = (): E[] => [
        f.set(y, asm.plus(f.get(y), 1 - rowsOfBlock)), f.set(pixel, asm.i32(0)),
        takeMoments(f, k, pointers.slice(operands.length + 1), { from: at(0, pointers[operands.length]!), channel: () => asm.i32(0), channels: asm.i32(channels), block: blockOf }),
      ];
      return rowsOfBlock === 1 ? take() : [f.if(m.i32.eq(m.i32.rem_u(f.get(row), asm.i32(rowsOfBlock)), asm.i32(rowsOfBlock - 1)), take())];
    };
    const largest = (a: () => E, b: () => E): E => m.select(m.i32.gt_s(a(), b()), a(), b());
    return [
      f.set(end, asm.times(asm.plus(f.get(chunk!), 1), block)),
      f.if(m.i32.gt_u(f.get(end), asm.i32(rows)), [f.set(end, asm.i32(rows))]),
      f.loop(row, asm.times(f.get(chunk!), block), () => f.get(end), 1, [
        f.set(n, m.i32.div_u(f.get(row), asm.i32(ay.result))),
        f.set(y, m.i32.rem_u(f.get(row), asm.i32(ay.result))),
        f.set(top, asm.plus(asm.times(f.get(y), ay.stride), -ay.before)),
        // Kernel rows above the input are skipped, and those below it are not reached.
        f.set(skipped, m.i32.div_s(asm.plus(asm.sub(asm.i32(0), f.get(top)), ay.dilation - 1), asm.i32(ay.dilation))),
        f.set(skipped, largest(() => f.get(skipped), () => asm.i32(0))),
        f.set(kept, m.i32.div_s(asm.plus(asm.sub(asm.i32(ay.size), f.get(top)), ay.dilation - 1), asm.i32(ay.dilation))),
        f.if(m.i32.gt_s(f.get(kept), asm.i32(ay.kernel)), [f.set(kept, asm.i32(ay.kernel))]),
        f.set(kept, asm.sub(f.get(kept), f.get(skipped))),
        ...runs.map((run) => (run.count === 1
          ? m.block(null, [f.set(pixel, asm.i32(run.first)), call(run)])
          : m.block(null, [f.set(pixel, asm.i32(run.first)), f.repeat(tile, 0, run.count, 1, [call(run), f.inc(pixel, run.pixels)])]))),
        ...(moments ? overBlock(moments) : []),
      ]),
    ];
  });
  // The rows of the input that one row of results reads stay for the next.
  const varying = epilogue.operands.filter((o) => o.varies).reduce<number>((n, o) => n + dtypes[o.dtype].bytes, dtypes[epilogue.dtype].bytes);
  const vertexBytes = 4 * channels * (taps + ((ay.kernel - 1) * ay.dilation + 1) * ax.size) + varying * channels * ax.result;
  return { fn, chunks: Math.ceil(rows / block), scratchBytes: 0, vertexBytes, uncut: `a row of ${ax.result} pixels of ${channels} channels` };
}

/** Results per tile: as many as registers allow, the row cut evenly. */
function pixelsOf(ax: Axis): number {
  const most = Math.max(1, Math.min(mostPixels, registers - ax.kernel));
  return Math.ceil(ax.result / Math.ceil(ax.result / most));
}

/** Cuts a row of results into tiles, neighbours of one kind together. */
export function tileRuns(ax: Omit<Axis, 'bytes'>, pixels: number): TileRun[] {
  const runs: TileRun[] = [];
  for (let first = 0; first < ax.result; first += pixels) {
    const count = Math.min(pixels, ax.result - first);
    const start = first * ax.stride - ax.before;
    const columns = (count - 1) * ax.stride + (ax.kernel - 1) * ax.dilation + 1;
    const tile = { pixels: count, from: Math.max(0, -start), to: Math.min(columns, ax.size - start) };
    const last = runs.at(-1);
    if (last && last.pixels === tile.pixels && last.from === tile.from && last.to === tile.to) runs[runs.length - 1] = { ...last, count: last.count + 1 };
    else runs.push({ ...tile, first, count: 1 });
  }
  return runs;
}

interface RowShape {
  readonly tile: PixelTile;
  readonly ax: Axis;
  readonly channels: number;
  readonly kernelRows: number;
  /** Bytes from one result pixel to the next. */
  readonly resultStride: number;
}

/** One tile for all channels: (input, input row step, weights, kernel rows, result, operands...). */
function pixelRow(asm: Asm, s: RowShape, e: Epilogue): string {
  const { tile, ax, channels } = s;
  const key = `depthwise tile ${tile.pixels} ${tile.from}-${tile.to} kernel ${s.kernelRows}x${ax.kernel} stride ${ax.stride} dilation ${ax.dilation} pixels ${ax.bytes} ${s.resultStride} channels ${channels} ${e.key}`;
  return asm.fn(key, [...new Array<Ty>(5).fill('i32'), ...epilogueParams(e)], undefined, (f, [input, rowStep, weights, rows, result, ...params]) => {
    const { m } = asm;
    const acc = Array.from({ length: tile.pixels }, () => f.vlocal());
    const whole = Math.floor(channels / 4);
    const vector = f.local('i32');
    const advance = (): E[] => {
      let at = 0;
      const out = [f.inc(input!, 16), f.inc(weights!, 16 * s.kernelRows * ax.kernel), f.inc(result!, 4 * e.columnStride * dtypes[e.dtype].bytes)];
      for (const o of e.operands) {
        if (o.columnStride !== 0) out.push(f.inc(params[at]!, 4 * o.columnStride * dtypes[o.dtype].bytes));
        at += o.varies ? 2 : 1;
      }
      return out;
    };
    const one = (lanes: number): E[] => [...sums(f, s, acc, startValue(f, e, params, 0), input!, rowStep!, weights!, rows!), ...finish(f, s, e, acc, result!, params, lanes)];
    const body = whole > 0 ? [f.repeat(vector, 0, whole, 1, [...one(4), ...advance()])] : [];
    return channels % 4 === 0 ? body : [...body, m.block(null, one(channels % 4))];
  });
}

/** The sums of a tile for one vector of channels, all from one start. */
function sums(f: Fn, s: RowShape, acc: readonly VLocal[], start: Vec, input: Local, rowStep: Local, weights: Local, rows: Local): E[] {
  const { asm } = f;
  const { m } = asm;
  const { ax, tile } = s;
  const [x, w, left] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const taps = Array.from({ length: ax.kernel }, () => f.vlocal());
  const value = f.vlocal();
  const body: E[] = taps.map((l, i) => f.vset(l, asm.vload(w, 16 * i)));
  for (let column = tile.from; column < tile.to; column++) {
    const uses = taps.flatMap((tap, i) => {
      const rest = column - i * ax.dilation;
      return rest % ax.stride === 0 && acc[rest / ax.stride] ? [{ tap, sum: acc[rest / ax.stride]! }] : [];
    });
    if (uses.length === 0) continue;
    body.push(f.vset(value, asm.vload(x, (column - tile.from) * ax.bytes)));
    for (const { tap, sum } of uses) body.push(f.vset(sum, asm.vmadd(f.vget(tap), f.vget(value), f.vget(sum))));
  }
  const top = f.label('kernel');
  return [
    ...acc.map((l, i) => f.vset(l, i === 0 ? start : f.vget(acc[0]!))),
    f.set(x, f.get(input)),
    f.set(w, f.get(weights)),
    f.set(left, f.get(rows)),
    f.if(m.i32.gt_s(f.get(left), asm.i32(0)), [
      m.loop(top, m.block(null, [
        ...body,
        f.set(x, asm.add(f.get(x), f.get(rowStep))),
        f.inc(w, 16 * ax.kernel),
        m.br(top, f.tee(left, asm.sub(f.get(left), asm.i32(1)))),
      ])),
    ]),
  ];
}

/** Applies the epilogue and stores. A heavy one runs in a loop over the stored sums, so that its code stands there once. */
function finish(f: Fn, s: RowShape, e: Epilogue, acc: readonly VLocal[], result: Local, params: readonly Local[], lanes: number): E[] {
  const { asm } = f;
  const target = f.local('i32');
  const moving = params.map((p, i) => ({ from: p, to: f.local('i32'), i }));
  const current = moving.map((x) => x.to);
  const restart = (): E[] => [f.set(target, f.get(result)), ...moving.map((x) => f.set(x.to, f.get(x.from)))];
  const next = (): E[] => [f.inc(target, s.resultStride), ...nextRow(f, e, current)];
  const out = restart();
  const direct = e.heavy ? plainStore() : e;
  acc.forEach((l, i) => {
    const { steps, value } = applyEpilogue(f, direct, l, current, 0);
    out.push(...steps, ...storeResult(f, direct, target, 0, value, lanes));
    if (i < acc.length - 1) out.push(...(e.heavy ? [f.inc(target, s.resultStride)] : next()));
  });
  if (!e.heavy) return out;
  const pixel = f.local('i32');
  const value = f.vlocal();
  const { steps, value: done } = applyEpilogue(f, e, value, current, 0);
  return [...out, ...restart(), f.repeat(pixel, 0, acc.length, 1, [
    f.vset(value, asm.vload(target, 0)), ...steps, ...storeResult(f, e, target, 0, done, lanes), ...next(),
  ])];
}
