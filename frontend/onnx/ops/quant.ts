/** Quantisation: linear (de)quantisation per tensor, per axis and blocked, and the integer convolution and matrix product. */
import type { Value } from '../../../ir/graph.ts';
import { isFloat, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { convolve } from './conv.ts';
import { alongAxis, axisOf, range, row } from './helpers.ts';
import { centred, matmul } from './matmul.ts';

/** A scale or zero point shaped so that it broadcasts against x: a scalar, a vector along `axis`, or blocks along it spread out. */
function spread(cx: LowerContext, v: Value, x: Value): Value {
  const { b, node } = cx;
  const { shape } = x.type;
  const own = v.type.shape;
  const axisGiven = node.attrs.int('axis', 1);
  const block = node.attrs.int('block_size', 0);
  if (block === 0) {
    if (own.every((d) => d === 1)) return b.reshape(v, []);
    if (own.length !== 1) cx.bad(`a scale of shape [${own.join(',')}] needs block_size`);
    return alongAxis(b, v, axisOf(cx, axisGiven, shape.length), shape.length);
  }
  const axis = axisOf(cx, axisGiven, shape.length);
  if (own.length !== shape.length || own.some((d, i) => d !== (i === axis ? Math.ceil(shape[i]! / block) : shape[i]))) cx.bad(`a scale of shape [${own.join(',')}] does not fit [${shape.join(',')}] in blocks of ${block} along axis ${axis}`);
  const wide = [...own.slice(0, axis + 1), block, ...own.slice(axis + 1)];
  const repeated = b.broadcast(b.reshape(v, [...own.slice(0, axis + 1), 1, ...own.slice(axis + 1)]), wide);
  const joined = b.reshape(repeated, own.map((d, i) => (i === axis ? d * block : d)));
  return b.slice(joined, shape.map(() => 0), shape);
}

/** Computing in f16 or bf16 would round between the steps: those go through f32. */
const computeType = (d: DType): DType => (d === 'f64' ? 'f64' : 'f32');

function quantize(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const [x, scale, zero] = [cx.input(0), cx.input(1), cx.optionalInput(2)];
  const to = attrs.has('output_dtype') && attrs.int('output_dtype') !== 0 ? attrs.dtype('output_dtype') : (zero?.type.dtype ?? 'u8');
  if (zero && zero.type.dtype !== to) cx.bad(`output_dtype is ${to} and the zero point is ${zero.type.dtype}`);
  const precision = attrs.has('precision') && attrs.int('precision') !== 0 ? attrs.dtype('precision') : scale.type.dtype;
  const at = (v: Value): Value => b.cast(v, precision);
  const quotient = b.cast(b.div(at(x), spread(cx, at(scale), x)), computeType(precision));
  if (isFloat(to)) {
    const shifted = zero && !isZero(cx, zero) ? b.add(quotient, spread(cx, b.cast(zero, quotient.type.dtype), x)) : quotient;
    return b.cast(shifted, to, attrs.int('saturate', 1) !== 0);
  }
  const rounded = b.unary('round', quotient);
  return b.cast(zero ? b.add(rounded, spread(cx, b.cast(zero, rounded.type.dtype), x)) : rounded, to, true);
}

const isZero = (cx: LowerContext, v: Value): boolean => cx.isConstant(v) && cx.numbers(v, 'zero point').every((z) => z === 0);

function dequantize(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const [x, scale, zero] = [cx.input(0), cx.input(1), cx.optionalInput(2)];
  const to = attrs.has('output_dtype') && attrs.int('output_dtype') !== 0 ? attrs.dtype('output_dtype') : scale.type.dtype;
  const wide = computeType(to);
  const value = b.cast(x, wide);
  const centredValue = zero && !isZero(cx, zero) ? b.sub(value, spread(cx, b.cast(zero, wide), x)) : value;
  return b.cast(b.mul(centredValue, spread(cx, b.cast(scale, wide), x)), to);
}

/** Range, extended to hold 0, on 0..255; the zero point is the rounded place of 0. */
function dynamicQuantize(cx: LowerContext): Value[] {
  const { b } = cx;
  const x = cx.input(0);
  const axes = range(x.type.shape.length);
  const top = b.max(b.reduce('reduceMax', x, axes), 0);
  const bottom = b.min(b.reduce('reduceMin', x, axes), 0);
  const scale = b.div(b.sub(top, bottom), 255);
  const zero = b.unary('round', b.one('clamp', [b.div(b.neg(bottom), scale), b.scalar(0, 'f32'), b.scalar(255, 'f32')]));
  return [b.cast(b.add(b.unary('round', b.div(x, scale)), zero), 'u8', true), scale, b.cast(zero, 'u8', true)];
}

/** round(acc · scale) + zero, clamped to the zero point's type. */
function requantize(cx: LowerContext, acc: Value, scale: Value, zero: Value): Value {
  const { b } = cx;
  const scaled = b.unary('round', b.mul(b.cast(acc, 'f32'), scale));
  return b.cast(b.add(scaled, b.reshape(b.cast(zero, 'f32'), [])), zero.type.dtype, true);
}

/** A scalar as rank 0, a vector along `axis` of a tensor of the given rank; in f32. */
function scaleAlong(cx: LowerContext, v: Value, axis: number, rank: number): Value {
  const wide = cx.b.cast(v, 'f32');
  if (v.type.shape.every((d) => d === 1)) return cx.b.reshape(wide, []);
  return v.type.shape.length === 1 ? alongAxis(cx.b, wide, axis, rank) : wide;
}

const integers: readonly DType[] = ['i8', 'u8', 'i16', 'u16', 'i32'];
const requireInteger = (cx: LowerContext, v: Value): void => {
  if (!integers.includes(v.type.dtype)) cx.unsupported(`${cx.node.opType} of ${v.type.dtype}`, 'integers of 8 and 16 bits are implemented');
};

function qlinearMatMul(cx: LowerContext): Value {
  const { b } = cx;
  const [x, y, zero] = [cx.input(0), cx.input(3), cx.input(7)];
  [x, y, zero].forEach((v) => requireInteger(cx, v));
  const [xRank, yRank] = [x.type.shape.length, y.type.shape.length];
  const acc = matmul(cx, centred(b, x, cx.input(2), Math.max(0, xRank - 2)), centred(b, y, cx.input(5), yRank - 1));
  const rank = acc.type.shape.length;
  const scale = b.div(b.mul(scaleAlong(cx, cx.input(1), rank - 2, rank), scaleAlong(cx, cx.input(4), rank - 1, rank)), scaleAlong(cx, cx.input(6), rank - 1, rank));
  return requantize(cx, acc, scale, zero);
}

function qlinearConv(cx: LowerContext): Value {
  const { b } = cx;
  const [x, w, zero, bias] = [cx.input(0), cx.input(3), cx.input(7), cx.optionalInput(8)];
  [x, w, zero].forEach((v) => requireInteger(cx, v));
  const rank = x.type.shape.length;
  const sum = convolve(cx, centred(b, x, cx.input(2), 1), centred(b, w, cx.input(5), 0));
  const acc = bias ? b.add(sum, alongAxis(b, b.cast(bias, 'i32'), 1, rank)) : sum;
  const scale = b.div(b.mul(scaleAlong(cx, cx.input(1), 1, rank), scaleAlong(cx, cx.input(4), 1, rank)), scaleAlong(cx, cx.input(6), 1, rank));
  return requantize(cx, acc, scale, zero);
}

export const quantOps: LoweringTable = {
  QuantizeLinear: [row(10, [2, 3], quantize)],
  DequantizeLinear: [row(10, [2, 3], dequantize)],
  DynamicQuantizeLinear: [row(11, 1, dynamicQuantize, 3)],
  QLinearMatMul: [row(10, 8, qlinearMatMul)],
  QLinearConv: [row(10, [8, 9], qlinearConv)],
  ConvInteger: [row(10, [2, 4], (cx) => convolve(cx, centred(cx.b, cx.input(0), cx.optionalInput(2), 1), centred(cx.b, cx.input(1), cx.optionalInput(3), 0)))],
};
