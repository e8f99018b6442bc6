/** Activation functions, softmax and its relatives. The recurrent ops pick theirs from `activation` by name. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { isFloat } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable, Row } from '../lowering.ts';
import { axisOf, countOf, indexAlong, logSoftmax, range, row, softmax } from './helpers.ts';

/** max(x, 0); NaN stays NaN. */
export const relu = (b: Builder, x: Value): Value => (isFloat(x.type.dtype) ? b.unary('relu', x) : b.max(x, 0));
/** α where x < 0, else 1, times x. */
export const leakyRelu = (b: Builder, x: Value, alpha: number): Value => b.select(b.binary('lt', x, 0), b.mul(x, alpha), x);
/** α·(e^x - 1) where x < 0, else x. The clamped exponent keeps both it and its gradient finite for large x. */
export const elu = (b: Builder, x: Value, alpha: number): Value => b.add(b.max(x, 0), scaled(b, b.unary('expm1', b.min(x, 0)), alpha));
/** max(0, min(1, α·x + β)). */
export const hardSigmoid = (b: Builder, x: Value, alpha: number, beta: number): Value =>
  b.one('clamp', [b.add(b.mul(x, alpha), beta), b.scalar(0, x.type.dtype), b.scalar(1, x.type.dtype)]);
/** log(1 + e^x), without overflow. */
export const softplus = (b: Builder, x: Value): Value => b.add(b.max(x, 0), b.unary('log1p', b.unary('exp', b.neg(b.unary('abs', x)))));
/** x / (1 + |x|). */
export const softsign = (b: Builder, x: Value): Value => b.div(x, b.add(b.unary('abs', x), 1));
/** x where x > α, else 0. */
export const thresholdedRelu = (b: Builder, x: Value, alpha: number): Value => b.select(b.binary('gt', x, alpha), x, 0);
/** x·sigmoid(α·x). */
export const swish = (b: Builder, x: Value, alpha: number): Value => b.mul(x, b.unary('sigmoid', scaled(b, x, alpha)));

const scaled = (b: Builder, x: Value, by: number): Value => (by === 1 ? x : b.mul(x, by));

function gelu(cx: LowerContext): Value {
  const { b } = cx;
  const x = cx.input(0);
  const approximate = cx.node.attrs.string('approximate', 'none');
  if (approximate === 'none') return b.mul(b.mul(x, 0.5), b.add(b.unary('erf', b.mul(x, Math.SQRT1_2)), 1));
  if (approximate !== 'tanh') cx.bad(`approximate is "${approximate}": expected none or tanh`);
  const inner = b.mul(b.add(x, b.mul(b.mul(b.mul(x, x), x), 0.044715)), Math.sqrt(2 / Math.PI));
  return b.mul(b.mul(x, 0.5), b.add(b.unary('tanh', inner), 1));
}

function celu(cx: LowerContext): Value {
  const { b } = cx;
  const x = cx.input(0);
  const alpha = cx.node.attrs.float('alpha', 1);
  if (alpha <= 0) cx.unsupported(`Celu with alpha ${alpha}`, 'alpha has to be positive');
  return b.add(b.max(x, 0), scaled(b, b.unary('expm1', scaled(b, b.min(x, 0), 1 / alpha)), alpha));
}

function shrink(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const lambd = node.attrs.float('lambd', 0.5);
  const bias = node.attrs.float('bias', 0);
  return b.select(b.binary('lt', x, -lambd), b.add(x, bias), b.select(b.binary('gt', x, lambd), b.sub(x, bias), 0));
}

/** Before opset 7 a slope vector is one value a channel (axis 1); from 7 on it broadcasts. */
function prelu(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  let slope = cx.input(1);
  const rank = x.type.shape.length;
  if (node.opset < 7 && slope.type.shape.length === 1 && slope.type.shape[0] !== 1 && rank > 1) slope = b.reshape(slope, range(rank - 1).map((i) => (i === 0 ? slope.type.shape[0]! : 1)));
  return b.select(b.binary('lt', x, 0), b.mul(x, slope), x);
}

/** The axes that softmax joins: before opset 13 everything from `axis` (default 1) on, since then one axis (default the last). */
function softmaxAxes(cx: LowerContext): number[] {
  const rank = cx.input(0).type.shape.length;
  const { attrs, opset } = cx.node;
  if (opset >= 13) return rank === 0 ? [] : [axisOf(cx, attrs.int('axis', -1), rank)];
  const axis = attrs.int('axis', 1);
  return range(rank).slice(axis === rank ? rank : axisOf(cx, axis, rank));
}

function hardmax(cx: LowerContext): Value {
  const { b } = cx;
  const x = cx.input(0);
  const axes = softmaxAxes(cx);
  const first = axes[0];
  if (first === undefined) return b.broadcast(b.scalar(1, x.type.dtype), x.type.shape);
  const joined = countOf(x, axes);
  const shape = [...x.type.shape.slice(0, first), joined, ...x.type.shape.slice(first + axes.length)];
  const best = b.one('argMax', [b.reshape(x, shape)], { axis: first, last: false });
  const hot = b.binary('eq', b.reshape(best, shape.map((d, i) => (i === first ? 1 : d))), indexAlong(b, shape, first));
  return b.reshape(b.cast(hot, x.type.dtype), x.type.shape);
}

const simple = (f: (b: Builder, x: Value) => Value, since = 1): Row[] => [row(since, 1, (cx) => f(cx.b, cx.input(0)))];
const withAlpha = (f: (b: Builder, x: Value, alpha: number) => Value, otherwise: number, since = 1): Row[] => [
  row(since, 1, (cx) => f(cx.b, cx.input(0), cx.node.attrs.float('alpha', otherwise))),
];

export const activationOps: LoweringTable = {
  Relu: simple(relu),
  Sigmoid: simple((b, x) => b.unary('sigmoid', x)),
  Tanh: simple((b, x) => b.unary('tanh', x)),
  Softplus: simple(softplus),
  Softsign: simple(softsign),
  Mish: simple((b, x) => b.mul(x, b.unary('tanh', softplus(b, x))), 18),
  HardSwish: simple((b, x) => b.mul(x, hardSigmoid(b, x, 1 / 6, 0.5)), 14),
  LeakyRelu: withAlpha(leakyRelu, 0.01),
  Elu: withAlpha(elu, 1),
  ThresholdedRelu: withAlpha(thresholdedRelu, 1, 10),
  Swish: withAlpha(swish, 1, 24),
  Selu: [
    row(1, 1, (cx) => {
      const { attrs, opset } = cx.node;
      const alpha = attrs.float('alpha', opset < 6 ? 1.6732 : 1.6732632423543772);
      return cx.b.mul(elu(cx.b, cx.input(0), alpha), attrs.float('gamma', opset < 6 ? 1.0507 : 1.0507009873554805));
    }),
  ],
  Celu: [row(12, 1, celu)],
  Gelu: [row(20, 1, gelu)],
  HardSigmoid: [row(1, 1, (cx) => hardSigmoid(cx.b, cx.input(0), cx.node.attrs.float('alpha', 0.2), cx.node.attrs.float('beta', 0.5)))],
  PRelu: [row(1, 2, prelu)],
  Shrink: [row(9, 1, shrink)],
  Softmax: [row(1, 1, (cx) => softmax(cx.b, cx.input(0), softmaxAxes(cx)))],
  LogSoftmax: [row(1, 1, (cx) => logSoftmax(cx.b, cx.input(0), softmaxAxes(cx)))],
  Hardmax: [row(1, 1, hardmax)],
};

/** What an activation of RNN, GRU and LSTM takes from activation_alpha and activation_beta where they are not given. */
const recurrentDefaults: Readonly<Record<string, readonly [alpha: number, beta: number]>> = {
  affine: [1, 0], leakyrelu: [0.01, 0], thresholdedrelu: [1, 0], scaledtanh: [1, 1], hardsigmoid: [0.2, 0.5], elu: [1, 0],
  relu: [0, 0], tanh: [0, 0], sigmoid: [0, 0], softsign: [0, 0], softplus: [0, 0],
};

/** How many of (alpha, beta) a recurrent activation takes; undefined for an unknown name. Names are case-insensitive. */
export function recurrentActivation(name: string): { takes: number; apply(b: Builder, x: Value, alpha: number | undefined, beta: number | undefined): Value } | undefined {
  const key = name.toLowerCase();
  const defaults = recurrentDefaults[key];
  if (!defaults) return undefined;
  const takes = key === 'affine' || key === 'scaledtanh' || key === 'hardsigmoid' ? 2 : key === 'leakyrelu' || key === 'thresholdedrelu' || key === 'elu' ? 1 : 0;
  return {
    takes,
    apply(b, x, alpha = defaults[0], beta = defaults[1]) {
      switch (key) {
        case 'affine': return b.add(b.mul(x, alpha), beta);
        case 'leakyrelu': return leakyRelu(b, x, alpha);
        case 'thresholdedrelu': return b.select(b.binary('ge', x, alpha), x, 0);
        case 'scaledtanh': return b.mul(b.unary('tanh', b.mul(x, beta)), alpha);
        case 'hardsigmoid': return hardSigmoid(b, x, alpha, beta);
        case 'elu': return elu(b, x, alpha);
        case 'relu': return relu(b, x);
        case 'tanh': return b.unary('tanh', x);
        case 'sigmoid': return b.unary('sigmoid', x);
        case 'softsign': return softsign(b, x);
        default: return softplus(b, x);
      }
    },
  };
}
