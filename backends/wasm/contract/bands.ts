/** A 1x1 convolution and the depthwise one after it, band by band: the rows in between stay in the thread's scratch, and so in its cache. */
import { invariant } from '../../../ir/diagnostic.ts';
import { bandsOf, contractRoot, dataOperand, type Band } from '../../../ir/bands.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { num, nums } from '../../../ir/op.ts';
import { withValues } from '../../../ir/rewrite.ts';
import type { Placed } from '../../../ir/tile.ts';
import { dtypes, type TensorType } from '../../../ir/type.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import { kernelKey, type Emitter, type KernelCode } from '../kernel.ts';
import { broadcastTo } from './space.ts';

/** Neighbouring bands that are alike in all but their place. */
interface Run { readonly band: Band; readonly first: number; readonly end: number }

/** Emits a `bands` op: a chunk is a band of an image. `emit` gives the kernels of both ops, over the rows of a band. */
export function bandsKernel(asm: Asm, op: Op, operands: readonly Placed[], result: Placed, emit: Emitter): KernelCode {
  const region = op.regions[0]!;
  const [first, second] = region.ops as [Op, Op];
  const between = first.results[0]!;
  const bands = bandsOf(second, num(op.attrs, 'bands'));
  invariant(bands, 'every band reads rows');
  const stride = nums(contractRoot(second)!.attrs, 'strides')[0]!;
  const pad = nums(contractRoot(second)!.attrs, 'pads')[0]!;
  const [images, channels, , width] = between.type.shape as [number, number, number, number];
  const outer = (v: Value): Placed => (v === second.results[0] ? result : operands[region.inputs.indexOf(v)]!);

  const runs = runsOf(bands).map((run) => {
    const { rows, count, above, below } = run.band;
    const inside: Placed = { type: rowsOf(between.type, rows), strides: [rows * width * channels, 1, width * channels, channels] };
    const expand = narrowed(first, () => rows);
    const pads = nums(contractRoot(second)!.attrs, 'pads').with(0, above).with(2, below);
    const data = dataOperand(second);
    const depth = narrowed(second, (v) => (v === data ? rows : count), pads);
    const place = (v: Value, height: number): Placed => (v === between ? inside : { type: rowsOf(v.type, height), strides: outer(v).strides });
    return {
      ...run,
      bytes: 4 * rows * width * channels,
      expand: emit(asm, expand, first.operands.map((v) => place(v, rows)), [inside]),
      depth: emit(asm, depth, second.operands.map((v) => place(v, count)), [place(second.results[0]!, count)]),
    };
  });
  const area = Math.ceil(Math.max(...runs.map((r) => r.bytes)) / 64) * 64;
  const fn = asm.fn(`bands ${kernelKey(op, operands, [result])}`, new Array<Ty>(operands.length + 3).fill('i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const [image, band, row, source, part] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    /** Where the band's part of a tensor starts, of which row `y` is its first. */
    const at = (v: Value, shape: readonly number[], y: Local): E => {
      if (v === between) return f.get(scratch!);
      const { type, strides } = outer(v);
      const { bytes } = dtypes[type.dtype];
      const [n, , h] = broadcastTo(shape, type.shape, strides) as [number, number, number];
      const pointer = pointers[v === second.results[0] ? operands.length : region.inputs.indexOf(v)]!;
      return asm.add(f.get(pointer), asm.add(asm.times(f.get(image), n * bytes), asm.times(f.get(y), h * bytes)));
    };
    const call = (code: KernelCode, step: Op, y: (v: Value) => Local, shapeOf: (v: Value) => readonly number[]): E => f.repeat(part, 0, code.chunks, 1, [
      asm.call(code.fn, [f.get(part), asm.plus(f.get(scratch!), area), ...[...step.operands, step.results[0]!].map((v) => at(v, shapeOf(v), y(v)))]),
    ]);
    const shape = between.type.shape;
    const inputOf = dataOperand(first);
    return [
      f.set(image, m.i32.div_u(f.get(chunk!), asm.i32(bands.length))),
      f.set(band, m.i32.rem_u(f.get(chunk!), asm.i32(bands.length))),
      f.set(row, asm.times(f.get(band), bands[0]!.count)),
      f.set(source, asm.plus(asm.times(f.get(row), stride), -pad)),
      f.if(m.i32.lt_s(f.get(source), asm.i32(0)), [f.set(source, asm.i32(0))]),
      ...runs.map((r) => f.if(m.i32.lt_u(asm.plus(f.get(band), -r.first), asm.i32(r.end - r.first)), [
        call(r.expand, first, () => source, (v) => (v === inputOf ? v.type.shape : shape)),
        call(r.depth, second, () => row, () => result.type.shape),
      ])),
    ];
  });
  const inside = Math.max(...runs.flatMap((r) => [r.expand.scratchBytes, r.depth.scratchBytes]));
  // The band stays while its rows are made and read.
  return { fn, chunks: images * bands.length, scratchBytes: area + inside, vertexBytes: area + inside, uncut: `a band of ${Math.max(...runs.map((r) => r.band.rows))} rows` };
}

function runsOf(bands: readonly Band[]): Run[] {
  const runs: Run[] = [];
  bands.forEach((band, i) => {
    const last = runs.at(-1);
    const alike = last && (['count', 'rows', 'above', 'below'] as const).every((key) => last.band[key] === band[key]);
    if (alike) runs[runs.length - 1] = { ...last, end: i + 1 };
    else runs.push({ band, first: i, end: i + 1 });
  });
  return runs;
}

/** The type of one image's rows: `height` of them, where there are rows at all (an operand that broadcasts keeps its 1, a packed weight its length). */
function rowsOf(type: TensorType, height: number): TensorType {
  const rank = type.shape.length;
  return { ...type, shape: type.shape.map((d, i) => (d === 1 ? 1 : i === rank - 4 ? 1 : i === rank - 2 ? height : d)) };
}

/** The same op over one image's rows; `height` says how many of an operand or result of `op`. `pads` replace those of the convolution. */
function narrowed(op: Op, height: (v: Value) => number, pads?: readonly number[]): Op {
  const root = contractRoot(op)!;
  const inputs = op.regions[0]?.inputs ?? [];
  const heights = new Map(op.operands.flatMap((v, i) => [v, ...inputs.slice(i, i + 1)].map((x) => [x, height(v)] as const)));
  const rows = height(op.results[0]!);
  return withValues(op, (v) => ({ type: rowsOf(v.type, heights.get(v) ?? rows), name: v.name }), (o) => (o === root && pads ? { ...o.attrs, pads } : o.attrs));
}
