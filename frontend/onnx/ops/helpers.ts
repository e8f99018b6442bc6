/** What several op files share: table rows, axes, constants, and the subgraphs that later passes recognise by their shape. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { encodeFloat } from '../../../ir/number.ts';
import { dtypes, isFloat, type DType, type Tensor } from '../../../ir/type.ts';
import type { LowerContext, Lowering, Row } from '../lowering.ts';
import { watchAttributes } from './attribute-use.ts';

type Arity = number | readonly [number, number];
const span = (a: Arity): readonly [number, number] => (typeof a === 'number' ? [a, a] : a);

/** A table row. `lower` may return one result alone; an attribute that it does not read is refused by name. */
export function row(since: number, inputs: Arity, lower: (cx: LowerContext) => Value | ReturnType<Lowering>, outputs: Arity = 1): Row {
  return {
    since,
    inputs: span(inputs),
    outputs: span(outputs),
    lower: (given) => {
      const { cx, check } = watchAttributes(given);
      const result = lower(cx);
      check();
      return Array.isArray(result) ? (result as ReturnType<Lowering>) : [result as Value];
    },
  };
}

/** A row for an op that is refused, with the reason. */
export const refusal = (since: number, why: string): Row => ({ since, inputs: [0, Infinity], outputs: [0, Infinity], lower: { refused: why } });

/** A non-negative axis below `rank`; anything else is the model's mistake. */
export function axisOf(cx: LowerContext, axis: number, rank: number): number {
  if (axis < -rank || axis >= rank) cx.bad(`axis ${axis} is out of range for rank ${rank}: expected ${-rank} to ${rank - 1}`);
  return axis < 0 ? axis + rank : axis;
}

/** Non-negative axes in the given order; a repeated one is the model's mistake. */
export function axesOf(cx: LowerContext, axes: readonly number[], rank: number): number[] {
  const out = axes.map((a) => axisOf(cx, a, rank));
  if (new Set(out).size !== out.length) cx.bad(`axes [${axes.join(', ')}] name an axis twice`);
  return out;
}

/** 0, 1, …, n - 1. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** `shape` with the given axes set to 1. */
export const kept = (shape: readonly number[], axes: readonly number[]): number[] => shape.map((d, i) => (axes.includes(i) ? 1 : d));

/** A tensor of these numbers. Floats are rounded to the dtype. */
export function tensorOf(dtype: DType, shape: readonly number[], values: readonly (number | bigint)[]): Tensor {
  const data = new dtypes[dtype].array(values.length);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) values.forEach((v, i) => { data[i] = BigInt(v); });
  else if (isFloat(dtype) && dtypes[dtype].bytes < 4) values.forEach((v, i) => { data[i] = encodeFloat(dtype, Number(v)); });
  else values.forEach((v, i) => { data[i] = Number(v); });
  return { dtype, shape: [...shape], data };
}

/** A constant of these numbers. */
export const constantOf = (b: Builder, dtype: DType, shape: readonly number[], values: readonly (number | bigint)[]): Value => b.constant(tensorOf(dtype, shape, values));

/** The index along `axis`, in a shape of ones but for that axis: it broadcasts against a tensor of this shape. */
export const indexAlong = (b: Builder, shape: readonly number[], axis: number, dtype: DType = 'i64'): Value =>
  b.one('iota', [], { shape: shape.map((d, i) => (i === axis ? d : 1)), axis, dtype });

/** A vector of C values laid along `axis` of a tensor of the given rank. */
export const alongAxis = (b: Builder, v: Value, axis: number, rank: number): Value => {
  const n = v.type.shape.reduce((p, d) => p * d, 1);
  return b.reshape(v, range(rank).map((i) => (i === axis ? n : 1)));
};

/** The operands of a binary op; before opset 7 the second is aligned at the attribute `axis` where `broadcast` is set. */
export function binaryOperands(cx: LowerContext): [Value, Value] {
  const { b, node } = cx;
  const x = cx.input(0);
  const y = cx.input(1);
  if (node.domain !== '' || node.opset >= 7) return [x, y];
  const axis = node.attrs.int('axis', undefined);
  const ranks = x.type.shape.length - y.type.shape.length;
  if (node.attrs.int('broadcast', 0) === 0) {
    if (ranks !== 0 || y.type.shape.some((d, i) => d !== x.type.shape[i])) cx.bad(`operands differ in shape ([${x.type.shape.join(',')}] and [${y.type.shape.join(',')}]) and the attribute broadcast is not set`);
    return [x, y];
  }
  if (axis === undefined) return [x, y];
  const tail = ranks - (axis < 0 ? axis + x.type.shape.length : axis);
  if (tail < 0) cx.bad(`axis ${axis} leaves no room for an operand of rank ${y.type.shape.length} in one of rank ${x.type.shape.length}`);
  return [x, b.reshape(y, [...y.type.shape, ...new Array<number>(tail).fill(1)])];
}

/** exp(x - max) / Σ exp(x - max) over the axes: the one form of softmax in the IR. */
export function softmax(b: Builder, x: Value, axes: readonly number[]): Value {
  const e = b.unary('exp', b.sub(x, b.peak(x, axes)));
  return b.div(e, b.reduce('reduceSum', e, axes, true));
}

/** (x - max) - log Σ exp(x - max) over the axes. */
export function logSoftmax(b: Builder, x: Value, axes: readonly number[]): Value {
  const centred = b.sub(x, b.peak(x, axes));
  return b.sub(centred, b.unary('log', b.reduce('reduceSum', b.unary('exp', centred), axes, true)));
}

/** Number of elements that a reduction over the axes joins. */
export const countOf = (x: Value, axes: readonly number[]): number => axes.reduce((n, a) => n * x.type.shape[a]!, 1);

/** Mean over the axes. */
export function mean(b: Builder, x: Value, axes: readonly number[], keepdims: boolean): Value {
  return axes.length === 0 ? x : b.div(b.reduce('reduceSum', x, axes, keepdims), countOf(x, axes));
}

/** Mean and population variance over the axes, with the axes kept as 1 (reshape them to drop them). */
export function meanAndVariance(b: Builder, x: Value, axes: readonly number[]): { mean: Value; variance: Value } {
  const sorted = [...axes].sort((p, q) => p - q);
  const [m, m2] = b.op('moments', [x], { axes: sorted }) as [Value, Value];
  const shape = kept(x.type.shape, sorted);
  return { mean: b.reshape(m, shape), variance: b.reshape(b.div(m2, countOf(x, sorted)), shape) };
}

/** The reciprocal of sqrt(variance + epsilon). */
export const inverseDeviation = (b: Builder, variance: Value, epsilon: number): Value => b.unary('rsqrt', b.add(variance, epsilon));

/** A number for `select` and friends that a comparison or constant of any dtype takes. */
export const like = (b: Builder, x: number | bigint, of: Value): Value => b.scalar(x, of.type.dtype);

/** Runs `f` in f32 (or in f64 where x is) and casts the result back: for ops whose definition computes a narrow float in full precision. */
export function inFullPrecision(b: Builder, x: Value, f: (x: Value) => Value): Value {
  const { dtype } = x.type;
  return isFloat(dtype) && dtype !== 'f64' && dtype !== 'f32' ? b.cast(f(b.cast(x, 'f32')), dtype) : f(x);
}
