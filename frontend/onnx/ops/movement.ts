/** Ops that move elements without looking at them: reshapes, transposes, slices, pads, concatenation, splitting. */
import type { Value } from '../../../ir/graph.ts';
import { broadcastShapes, sizeOf } from '../../../ir/type.ts';
import type { Bound, LowerContext, LoweringTable } from '../lowering.ts';
import { axesOf, axisOf, constantOf, range, row } from './helpers.ts';

function reshape(cx: LowerContext, wanted: readonly number[], zeroIsZero: boolean): Value {
  const x = cx.input(0);
  const { shape } = x.type;
  const out = wanted.map((d, i) => {
    if (d !== 0 || zeroIsZero) return d;
    return shape[i] ?? cx.bad(`dimension ${i} of shape [${wanted.join(', ')}] is 0, but the input has rank ${shape.length}`);
  });
  const open = out.indexOf(-1);
  if (open !== out.lastIndexOf(-1) || out.some((d) => d < -1)) cx.bad(`shape [${wanted.join(', ')}]: expected sizes and at most one -1`);
  if (open >= 0) {
    const rest = out.reduce((n, d, i) => (i === open ? n : n * d), 1);
    const size = sizeOf(shape);
    if (rest === 0 ? size !== 0 : size % rest !== 0) cx.bad(`${size} elements do not fit shape [${wanted.join(', ')}]`);
    out[open] = rest === 0 ? 0 : size / rest;
  }
  if (sizeOf(out) !== sizeOf(shape)) cx.bad(`[${shape.join(',')}] has ${sizeOf(shape)} elements and cannot take shape [${wanted.join(', ')}]`);
  return cx.b.reshape(x, out);
}

function flatten(cx: LowerContext): Value {
  const x = cx.input(0);
  const rank = x.type.shape.length;
  const given = cx.node.attrs.int('axis', 1);
  const axis = given === rank ? rank : axisOf(cx, given, Math.max(rank, 1));
  return cx.b.reshape(x, [sizeOf(x.type.shape.slice(0, axis)), sizeOf(x.type.shape.slice(axis))]);
}

function squeeze(cx: LowerContext, given: readonly number[] | undefined): Value {
  const x = cx.input(0);
  const { shape } = x.type;
  const axes = given === undefined ? range(shape.length).filter((i) => shape[i] === 1) : axesOf(cx, given, shape.length);
  for (const a of axes) if (shape[a] !== 1) cx.bad(`axis ${a} of [${shape.join(',')}] is not 1 and cannot be squeezed`);
  return cx.b.reshape(x, shape.filter((_, i) => !axes.includes(i)));
}

function unsqueeze(cx: LowerContext, given: readonly number[]): Value {
  const x = cx.input(0);
  const rank = x.type.shape.length + given.length;
  const axes = axesOf(cx, given, rank);
  const rest = [...x.type.shape];
  return cx.b.reshape(x, range(rank).map((i) => (axes.includes(i) ? 1 : rest.shift()!)));
}

function transpose(cx: LowerContext): Value {
  const x = cx.input(0);
  const rank = x.type.shape.length;
  const perm = cx.node.attrs.ints('perm', range(rank).reverse());
  if (perm.length !== rank) cx.bad(`perm [${perm.join(', ')}] does not fit rank ${rank}`);
  return cx.b.transpose(x, axesOf(cx, perm, rank));
}

function expand(cx: LowerContext): Value {
  const x = cx.input(0);
  const wanted = cx.ints(cx.input(1), 'shape');
  const out = broadcastShapes([x.type.shape, wanted]) ?? cx.bad(`[${x.type.shape.join(',')}] does not broadcast with [${wanted.join(', ')}]`);
  return cx.b.broadcast(x, out);
}

function tile(cx: LowerContext, repeats: readonly number[]): Value {
  const x = cx.input(0);
  const { shape } = x.type;
  if (repeats.length !== shape.length || repeats.some((r) => r < 0)) cx.bad(`repeats [${repeats.join(', ')}] do not fit [${shape.join(',')}]`);
  const spread = cx.b.broadcast(cx.b.reshape(x, shape.flatMap((d) => [1, d])), shape.flatMap((d, i) => [repeats[i]!, d]));
  return cx.b.reshape(spread, shape.map((d, i) => d * repeats[i]!));
}

function concat(cx: LowerContext): Value {
  const xs = cx.node.inputs.map((_, i) => cx.input(i));
  const axis = cx.node.opset < 4 ? cx.node.attrs.int('axis', 1) : cx.node.attrs.int('axis');
  return cx.b.concat(xs, axisOf(cx, axis, xs[0]!.type.shape.length));
}

/** The parts of x along an axis. */
export function splitInto(cx: LowerContext, x: Value, axis: number, sizes: readonly number[]): Value[] {
  const { shape } = x.type;
  const total = sizes.reduce((n, s) => n + s, 0);
  if (total !== shape[axis] || sizes.some((s) => s < 0)) cx.bad(`parts [${sizes.join(', ')}] do not add up to axis ${axis} of [${shape.join(',')}]`);
  let from = 0;
  return sizes.map((size) => {
    const start = from;
    from += size;
    return cx.b.slice(x, shape.map((_, i) => (i === axis ? start : 0)), shape.map((d, i) => (i === axis ? size : d)));
  });
}

function split(cx: LowerContext, given: readonly number[] | undefined): Value[] {
  const x = cx.input(0);
  const { attrs, opset, outputNames } = cx.node;
  const axis = axisOf(cx, attrs.int('axis', 0), x.type.shape.length);
  if (given) return splitInto(cx, x, axis, given);
  const parts = attrs.int('num_outputs', outputNames.length);
  const size = x.type.shape[axis]!;
  if (opset < 18 && size % parts !== 0) cx.bad(`axis ${axis} has ${size} elements and does not split into ${parts} equal parts`);
  const part = Math.ceil(size / parts);
  if (parts > 1) cx.rounds(size, 'size of a part');
  return splitInto(cx, x, axis, range(parts).map((i) => Math.max(0, Math.min(part, size - i * part))));
}

/** From here on, a start or end of a slice stands for the end of any axis. */
const toTheEnd = 2 ** 31 - 1;

function slice(cx: LowerContext, starts: readonly number[], ends: readonly number[], axes: readonly number[], steps: readonly number[]): Value {
  const x = cx.input(0);
  const { shape } = x.type;
  if (starts.length !== ends.length || axes.length !== starts.length || steps.length !== starts.length) cx.bad(`starts, ends, axes and steps differ in length (${starts.length}, ${ends.length}, ${axes.length}, ${steps.length})`);
  const from = shape.map(() => 0);
  const sizes = [...shape];
  const by = shape.map(() => 1);
  axesOf(cx, axes, shape.length).forEach((axis, i) => {
    const d = shape[axis]!;
    const step = steps[i]!;
    if (step === 0) cx.bad('a step is 0');
    // A place beyond the end is the end, however long the axis is; "as far as it goes" is written as a very large number.
    if (Math.abs(step) > 1 || [starts[i]!, ends[i]!].some((p) => (p > d || p < -d) && Math.abs(p) < toTheEnd)) cx.rounds(d, 'start or end');
    const fromEnd = (p: number): number => (p < 0 ? p + d : p);
    const [low, high] = step > 0 ? [0, d] : [-1, d - 1];
    const start = Math.min(Math.max(fromEnd(starts[i]!), step > 0 ? 0 : Math.min(0, d - 1)), high);
    const end = Math.min(Math.max(fromEnd(ends[i]!), low), high);
    const size = Math.max(0, Math.ceil((end - start) / step));
    from[axis] = size === 0 ? 0 : start;
    sizes[axis] = size;
    by[axis] = size <= 1 ? 1 : step;
  });
  return cx.b.slice(x, from, sizes, by);
}

function sliceByInputs(cx: LowerContext): Value {
  const starts = cx.ints(cx.input(1), 'starts');
  const ends = cx.ints(cx.input(2), 'ends');
  const axes = cx.optionalInput(3);
  const steps = cx.optionalInput(4);
  return slice(cx, starts, ends, axes ? cx.ints(axes, 'axes') : range(starts.length), steps ? cx.ints(steps, 'steps') : starts.map(() => 1));
}

const padModes = ['constant', 'edge', 'reflect', 'wrap'];

function pad(cx: LowerContext, pads: readonly number[], given: readonly number[] | undefined, fill: Value | number): Value {
  const { b } = cx;
  const x = cx.input(0);
  const { shape, dtype } = x.type;
  const axes = given ? axesOf(cx, given, shape.length) : range(shape.length);
  if (pads.length !== 2 * axes.length) cx.bad(`pads has ${pads.length} elements: expected ${2 * axes.length}`);
  const mode = cx.node.attrs.string('mode', 'constant');
  if (!padModes.includes(mode)) cx.bad(`mode is "${mode}": expected ${padModes.join(', ')}`);
  const lo = shape.map(() => 0);
  const hi = shape.map(() => 0);
  axes.forEach((axis, i) => {
    lo[axis] = pads[i]!;
    hi[axis] = pads[axes.length + i]!;
  });
  if ([...lo, ...hi].every((p) => p === 0)) return x;
  const padded = (v: Value, value: number): Value => b.one('pad', [v], { lo, hi, mode, value });
  if (mode !== 'constant') return padded(x, 0);
  if (typeof fill === 'number') return padded(x, fill);
  if (cx.isConstant(fill) && dtype !== 'i64' && dtype !== 'u64') return padded(x, cx.numbers(fill, 'constant_value')[0] ?? 0);
  const inside = padded(b.broadcast(b.scalar(1, 'bool'), shape), 0);
  return b.select(inside, padded(x, 0), b.reshape(fill, []));
}

function padByInputs(cx: LowerContext): Value {
  const axes = cx.optionalInput(3);
  return pad(cx, cx.ints(cx.input(1), 'pads'), axes && cx.ints(axes, 'axes'), cx.optionalInput(2) ?? 0);
}

/** Blocks of the channel axis to space. DCR: the block is the outer part of the channel, CRD: the inner part. */
function depthToSpace(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const [n, c, h, w] = imageShape(cx, x);
  const block = node.attrs.int('blocksize');
  const mode = node.attrs.string('mode', 'DCR');
  if (mode !== 'DCR' && mode !== 'CRD') cx.bad(`mode is "${mode}": expected DCR or CRD`);
  if (block < 1 || c % (block * block) !== 0) cx.bad(`${c} channels do not split into blocks of ${block}x${block}`);
  const depth = c / (block * block);
  const moved = mode === 'DCR'
    ? b.transpose(b.reshape(x, [n, block, block, depth, h, w]), [0, 3, 4, 1, 5, 2])
    : b.transpose(b.reshape(x, [n, depth, block, block, h, w]), [0, 1, 4, 2, 5, 3]);
  return b.reshape(moved, [n, depth, h * block, w * block]);
}

function spaceToDepth(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const [n, c, h, w] = imageShape(cx, x);
  const block = node.attrs.int('blocksize');
  if (block < 1 || h % block !== 0 || w % block !== 0) cx.bad(`${h}x${w} does not split into blocks of ${block}x${block}`);
  const blocks = b.reshape(x, [n, c, h / block, block, w / block, block]);
  const mode = node.attrs.string('mode', 'DCR');
  if (mode !== 'DCR' && mode !== 'CRD') cx.bad(`mode is "${mode}": expected DCR or CRD`);
  const moved = b.transpose(blocks, mode === 'DCR' ? [0, 3, 5, 1, 2, 4] : [0, 1, 3, 5, 2, 4]);
  return b.reshape(moved, [n, c * block * block, h / block, w / block]);
}

function imageShape(cx: LowerContext, x: Value): readonly [number, number, number, number] {
  const [n, c, h, w] = x.type.shape;
  if (x.type.shape.length !== 4 || n === undefined || c === undefined || h === undefined || w === undefined) cx.bad(`the input has shape [${x.type.shape.join(',')}]: expected N, C, H, W`);
  return [n, c, h, w];
}

function centerCropPad(cx: LowerContext): Value {
  const x = cx.input(0);
  const { shape } = x.type;
  const given = cx.node.attrs.ints('axes', undefined);
  const axes = given ? axesOf(cx, given, shape.length) : range(shape.length);
  const sizes = cx.ints(cx.input(1), 'shape');
  if (sizes.length !== axes.length) cx.bad(`shape has ${sizes.length} elements: expected ${axes.length}`);
  const lo = shape.map(() => 0);
  const hi = shape.map(() => 0);
  axes.forEach((axis, i) => {
    const more = sizes[i]! - shape[axis]!;
    if (more !== 0) cx.rounds(more, 'margin');
    lo[axis] = more >= 0 ? Math.floor(more / 2) : -Math.floor(-more / 2);
    hi[axis] = more - lo[axis];
  });
  return [...lo, ...hi].every((p) => p === 0) ? x : cx.b.one('pad', [x], { lo, hi, mode: 'constant', value: 0 });
}

function shapeOf(cx: LowerContext): Value {
  const { shape } = cx.input(0).type;
  const { attrs } = cx.node;
  const bound = (p: number): number => Math.min(Math.max(p < 0 ? p + shape.length : p, 0), shape.length);
  const dims = shape.slice(bound(attrs.int('start', 0)), bound(attrs.int('end', shape.length)));
  return constantOf(cx.b, 'i64', [dims.length], dims);
}

const identity = (cx: LowerContext): (Bound | undefined)[] => [cx.node.inputs[0] ?? cx.input(0)];

export const movementOps: LoweringTable = {
  Identity: [row(1, 1, identity)],
  Shape: [row(1, 1, shapeOf)],
  Size: [row(1, 1, (cx) => cx.b.scalar(sizeOf(cx.input(0).type.shape), 'i64'))],
  Reshape: [
    row(1, 1, (cx) => reshape(cx, cx.node.attrs.ints('shape'), false)),
    row(5, 2, (cx) => reshape(cx, cx.ints(cx.input(1), 'shape'), cx.node.attrs.int('allowzero', 0) !== 0)),
  ],
  Flatten: [row(1, 1, flatten)],
  Squeeze: [
    row(1, 1, (cx) => squeeze(cx, cx.node.attrs.ints('axes', undefined))),
    row(13, [1, 2], (cx) => {
      const axes = cx.optionalInput(1);
      return squeeze(cx, axes && cx.ints(axes, 'axes'));
    }),
  ],
  Unsqueeze: [
    row(1, 1, (cx) => unsqueeze(cx, cx.node.attrs.ints('axes'))),
    row(13, 2, (cx) => unsqueeze(cx, cx.ints(cx.input(1), 'axes'))),
  ],
  Transpose: [row(1, 1, transpose)],
  Expand: [row(8, 2, expand)],
  Tile: [
    row(1, 3, (cx) => {
      const { length } = cx.input(0).type.shape;
      const axis = axisOf(cx, cx.numbers(cx.input(2), 'axis')[0] ?? 0, length);
      const tiles = cx.numbers(cx.input(1), 'tiles')[0] ?? 1;
      return tile(cx, range(length).map((i) => (i === axis ? tiles : 1)));
    }),
    row(6, 2, (cx) => tile(cx, cx.ints(cx.input(1), 'repeats'))),
  ],
  Concat: [row(1, [1, Infinity], concat)],
  Split: [
    row(1, [1, 2], (cx) => {
      const sizes = cx.optionalInput(1);
      return split(cx, sizes ? cx.ints(sizes, 'split') : cx.node.attrs.ints('split', undefined));
    }, [1, Infinity]),
    row(2, 1, (cx) => split(cx, cx.node.attrs.ints('split', undefined)), [1, Infinity]),
    row(13, [1, 2], (cx) => {
      const sizes = cx.optionalInput(1);
      return split(cx, sizes && cx.ints(sizes, 'split'));
    }, [1, Infinity]),
  ],
  Slice: [
    row(1, 1, (cx) => {
      const { attrs } = cx.node;
      const starts = attrs.ints('starts');
      return slice(cx, starts, attrs.ints('ends'), attrs.ints('axes', range(starts.length)), starts.map(() => 1));
    }),
    row(10, [3, 5], sliceByInputs),
  ],
  Pad: [
    row(1, 1, (cx) => pad(cx, cx.node.attrs.has('paddings') ? cx.node.attrs.ints('paddings') : cx.node.attrs.ints('pads'), undefined, cx.node.attrs.float('value', 0))),
    row(11, [2, 4], padByInputs),
  ],
  DepthToSpace: [row(1, 1, depthToSpace)],
  SpaceToDepth: [row(1, 1, spaceToDepth)],
  CenterCropPad: [row(18, 2, centerCropPad)],
};
