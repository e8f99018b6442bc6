/** Ops that read or write at indices known only at run time. */
import type { Value } from '../../../ir/graph.ts';
import { isFloat, sizeOf } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { axisOf, constantOf, indexAlong, range, refusal, row } from './helpers.ts';

const axisAttribute = (cx: LowerContext, otherwise = 0): number => axisOf(cx, cx.node.attrs.int('axis', otherwise), cx.input(0).type.shape.length);

const reductions = ['none', 'add', 'mul', 'min', 'max'];
function reductionOf(cx: LowerContext): string {
  const reduction = cx.node.attrs.string('reduction', 'none');
  return reductions.includes(reduction) ? reduction : cx.bad(`reduction is "${reduction}": expected ${reductions.join(', ')}`);
}

const scatterElements = (cx: LowerContext): Value =>
  cx.b.one('scatterElements', [cx.input(0), cx.input(1), cx.input(2)], { axis: axisAttribute(cx), reduction: reductionOf(cx) });

/** Writes each sample's update at its own place along the sequence axis; circular caches wrap around. */
function tensorScatter(cx: LowerContext): Value {
  const { b, node } = cx;
  const [cache, update] = [cx.input(0), cx.input(1)];
  const at = cx.optionalInput(2);
  const { shape } = update.type;
  const axis = axisAttribute(cx, -2);
  if (axis === 0) cx.bad('axis is the batch axis: expected one after it');
  const mode = node.attrs.string('mode', 'linear');
  if (mode !== 'linear' && mode !== 'circular') cx.bad(`mode is "${mode}": expected linear or circular`);
  let places = indexAlong(b, shape, axis);
  if (at) places = b.add(places, b.reshape(b.cast(at, 'i64'), shape.map((_, i) => (i === 0 ? shape[0]! : 1))));
  if (mode === 'circular') places = b.binary('mod', places, cache.type.shape[axis]!);
  return b.one('scatterElements', [cache, b.broadcast(places, shape), update], { axis, reduction: 'none' });
}

function oneHot(cx: LowerContext): Value {
  const { b, node } = cx;
  const given = cx.input(0);
  const indices = isFloat(given.type.dtype) ? b.cast(given, 'i64') : given;
  const depth = Math.trunc(cx.numbers(cx.input(1), 'depth')[0] ?? cx.bad('depth is empty'));
  const values = cx.input(2);
  const rank = indices.type.shape.length + 1;
  const axis = axisOf(cx, node.attrs.int('axis', -1), rank);
  const { shape } = indices.type;
  const wide = b.cast(b.reshape(indices, [...shape.slice(0, axis), 1, ...shape.slice(axis)]), 'i64');
  const place = b.select(b.binary('lt', wide, 0), b.add(wide, depth), wide);
  const hot = b.binary('eq', place, indexAlong(b, range(rank).map((i) => (i === axis ? depth : 1)), axis));
  const pick = (i: number): Value => b.reshape(b.slice(values, [i], [1]), []);
  return b.select(hot, pick(1), pick(0));
}

/** Reverses the first `sequence_lens` steps of each sample; what lies after them stays. */
function reverseSequence(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const { shape } = x.type;
  const time = axisOf(cx, node.attrs.int('time_axis', 0), shape.length);
  const batch = axisOf(cx, node.attrs.int('batch_axis', 1), shape.length);
  if (time === batch) cx.bad('time_axis and batch_axis are the same');
  const lengths = b.reshape(b.cast(cx.input(1), 'i64'), shape.map((d, i) => (i === batch ? d : 1)));
  const t = indexAlong(b, shape, time);
  const from = b.select(b.binary('lt', t, lengths), b.sub(b.sub(lengths, 1), t), t);
  return b.one('gatherElements', [x, b.broadcast(from, shape)], { axis: time });
}

/** The condition decides the result's size, so it has to be known. */
function compress(cx: LowerContext): Value {
  const { b, node } = cx;
  const axis = node.attrs.int('axis', undefined);
  const x = axis === undefined ? b.reshape(cx.input(0), [sizeOf(cx.input(0).type.shape)]) : cx.input(0);
  const along = axis === undefined ? 0 : axisOf(cx, axis, x.type.shape.length);
  const size = x.type.shape[along]!;
  const kept = cx.numbers(cx.input(1), 'condition').flatMap((c, i) => (c !== 0 ? [i] : []));
  if (kept.some((i) => i >= size)) cx.bad(`condition selects beyond the ${size} elements along the axis`);
  return b.one('gather', [x, constantOf(b, 'i64', [kept.length], kept)], { axis: along });
}

function nonZero(cx: LowerContext): Value {
  const x = cx.input(0);
  const shape = x.type.shape.length === 0 ? [1] : x.type.shape;
  const at = cx.numbers(x, 'X').flatMap((v, i) => (v !== 0 ? [i] : []));
  let stride = sizeOf(shape);
  const rows = shape.flatMap((d) => {
    stride /= d;
    return at.map((i) => Math.floor(i / stride) % d);
  });
  return constantOf(cx.b, 'i64', [x.type.shape.length, at.length], x.type.shape.length === 0 ? [] : rows);
}

/** Scatters each value back to where it was the maximum. Indices count within the size that the window implies; a larger output_shape adds zeros. */
function maxUnpool(cx: LowerContext): Value {
  const { b, node } = cx;
  const [x, indices] = [cx.input(0), cx.input(1)];
  const { shape, dtype } = x.type;
  const kernel = node.attrs.ints('kernel_shape');
  const strides = node.attrs.ints('strides', kernel.map(() => 1));
  const pads = node.attrs.ints('pads', kernel.flatMap(() => [0, 0]));
  const implied = [...shape.slice(0, 2), ...kernel.map((k, i) => (shape[i + 2]! - 1) * strides[i]! + k - pads[i]! - pads[i + kernel.length]!)];
  const total = sizeOf(implied);
  const n = sizeOf(shape);
  const flat = b.one('scatterElements', [b.zeros({ dtype, shape: [total] }), b.reshape(indices, [n]), b.reshape(x, [n])], { axis: 0, reduction: 'none' });
  const image = b.reshape(flat, implied);
  const wanted = cx.optionalInput(2);
  if (!wanted) return image;
  const size = cx.ints(wanted, 'output_shape');
  const hi = size.map((d, i) => d - implied[i]!);
  if (size.length !== implied.length) cx.bad(`output_shape has ${size.length} elements: expected ${implied.length}`);
  return hi.every((h) => h === 0) ? image : b.one('pad', [image], { lo: hi.map(() => 0), hi, mode: 'constant', value: 0 });
}

/** Columns of the last axis. */
function featureExtractor(cx: LowerContext): Value {
  const { b } = cx;
  const [x, y] = [cx.input(0), cx.input(1)];
  const { shape } = x.type;
  if (shape.length === 0) cx.bad('the input is a scalar: expected at least one axis');
  const taken = b.one('gather', [x, b.reshape(y, [sizeOf(y.type.shape)])], { axis: shape.length - 1 });
  return shape.length === 1 ? b.reshape(taken, [1, sizeOf(y.type.shape)]) : taken;
}

export const gatherScatterOps: LoweringTable = {
  Gather: [row(1, 2, (cx) => cx.b.one('gather', [cx.input(0), cx.input(1)], { axis: axisAttribute(cx) }))],
  GatherElements: [row(11, 2, (cx) => cx.b.one('gatherElements', [cx.input(0), cx.input(1)], { axis: axisAttribute(cx) }))],
  GatherND: [row(11, 2, (cx) => cx.b.one('gatherNd', [cx.input(0), cx.input(1)], { batchDims: cx.node.attrs.int('batch_dims', 0) }))],
  Scatter: [row(9, 3, scatterElements), refusal(11, 'Scatter was removed from ONNX in opset 11: use ScatterElements')],
  ScatterElements: [row(11, 3, scatterElements)],
  ScatterND: [row(11, 3, (cx) => cx.b.one('scatterNd', [cx.input(0), cx.input(1), cx.input(2)], { reduction: reductionOf(cx) }))],
  TensorScatter: [row(24, [2, 3], tensorScatter)],
  OneHot: [row(9, 3, oneHot)],
  ReverseSequence: [row(10, 2, reverseSequence)],
  Compress: [row(9, 2, compress)],
  NonZero: [row(9, 1, nonZero)],
  MaxUnpool: [row(9, [2, 3], maxUnpool)],
  'ai.onnx.ml:ArrayFeatureExtractor': [row(1, 2, featureExtractor)],
  'ai.onnx.ml:Binarizer': [
    row(1, 1, (cx) => {
      const x = cx.input(0);
      return cx.b.cast(cx.b.binary('gt', x, cx.node.attrs.float('threshold', 0)), x.type.dtype);
    }),
  ],
};
