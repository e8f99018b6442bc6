/** Normalizations: moments over some axes, a reshape that keeps them as 1, and maps. They differ in the axes alone. */
import type { Value } from '../../../ir/graph.ts';
import { sizeOf, type DType } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { alongAxis, axesOf, axisOf, inverseDeviation, mean, meanAndVariance, range, row } from './helpers.ts';

/** x·s + (bias - mean·s) with s = scale / sqrt(variance + ε): everything but x depends on parameters alone, so it folds into a convolution before it. */
function batchNormInference(cx: LowerContext, x: Value, epsilon: number): Value {
  const { b } = cx;
  const rank = x.type.shape.length;
  const [scale, bias, average, variance] = range(4).map((i) => cx.input(i + 1)) as [Value, Value, Value, Value];
  cx.statistic(average);
  cx.statistic(variance);
  const gain = b.mul(b.cast(scale, variance.type.dtype), inverseDeviation(b, variance, epsilon));
  const shift = b.sub(b.cast(bias, gain.type.dtype), b.mul(b.cast(average, gain.type.dtype), gain));
  const y = b.add(b.mul(b.cast(x, gain.type.dtype), alongAxis(b, gain, 1, rank)), alongAxis(b, shift, 1, rank));
  return b.cast(y, x.type.dtype);
}

/** Normalises by the batch's own statistics and returns the running ones; the variance is the population's. */
function batchNormTraining(cx: LowerContext, x: Value, epsilon: number, savedToo: boolean): Value[] {
  const { b, node } = cx;
  const rank = x.type.shape.length;
  const [scale, bias, runningMean, runningVariance] = range(4).map((i) => cx.input(i + 1)) as [Value, Value, Value, Value];
  const momentum = node.attrs.float('momentum', 0.9);
  const wide = runningMean.type.dtype;
  const stats = meanAndVariance(b, b.cast(x, wide), range(rank).filter((a) => a !== 1));
  const gain = b.mul(alongAxis(b, b.cast(scale, wide), 1, rank), inverseDeviation(b, stats.variance, epsilon));
  const y = b.add(b.mul(b.sub(b.cast(x, wide), stats.mean), gain), alongAxis(b, b.cast(bias, wide), 1, rank));
  const flat = (v: Value): Value => b.reshape(v, runningMean.type.shape);
  const running = (old: Value, now: Value): Value => b.add(b.mul(old, momentum), b.mul(b.cast(flat(now), old.type.dtype), 1 - momentum));
  const next = [running(runningMean, stats.mean), running(runningVariance, stats.variance)] as const;
  cx.statistic(runningMean, next[0]);
  cx.statistic(runningVariance, next[1]);
  const results = [b.cast(y, x.type.dtype), ...next];
  return savedToo ? [...results, flat(stats.mean), flat(stats.variance)] : results;
}

function batchNorm(cx: LowerContext): Value[] {
  const { attrs, opset } = cx.node;
  const x = cx.input(0);
  const epsilon = attrs.float('epsilon', 1e-5);
  if (x.type.shape.length < 2) cx.bad(`the input has rank ${x.type.shape.length}: expected at least N and C`);
  if (opset < 9 && attrs.int('spatial', 1) === 0) cx.unsupported('BatchNormalization with spatial = 0', 'statistics per activation are not implemented: export with opset 9 or later');
  if (opset >= 14) {
    if (attrs.int('training_mode', 0) !== 0 && !cx.inference) return batchNormTraining(cx, x, epsilon, false);
    if (cx.wants(1) && !cx.inference) cx.bad('outputs of running statistics need training_mode = 1');
    return [batchNormInference(cx, x, epsilon), cx.input(3), cx.input(4)];
  }
  const training = !cx.inference && [1, 2, 3, 4].some((i) => cx.wants(i)) && (opset >= 7 || attrs.int('is_test', 0) === 0);
  return training ? batchNormTraining(cx, x, epsilon, true) : [batchNormInference(cx, x, epsilon), ...[3, 4, 3, 4].map((i) => cx.input(i))];
}

/** The dtype that stash_type asks for in the first stage. */
const stashType = (cx: LowerContext): DType => cx.node.attrs.dtype('stash_type', 'f32');

function layerNorm(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const x = cx.input(0);
  const bias = cx.optionalInput(2);
  const rank = x.type.shape.length;
  const axes = range(rank).slice(axisOf(cx, node.attrs.int('axis', -1), rank));
  const stash = x.type.dtype === 'f64' ? 'f64' : stashType(cx);
  const wide = b.cast(x, stash);
  const stats = meanAndVariance(b, wide, axes);
  const inverse = inverseDeviation(b, stats.variance, node.attrs.float('epsilon', 1e-5));
  const normal = b.cast(b.mul(b.sub(wide, stats.mean), inverse), x.type.dtype);
  const scaled = b.mul(normal, cx.input(1));
  return [bias ? b.add(scaled, bias) : scaled, stats.mean, inverse];
}

function rmsNorm(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const scale = cx.input(1);
  const rank = x.type.shape.length;
  const axes = range(rank).slice(axisOf(cx, node.attrs.int('axis', -1), rank));
  const wide = b.cast(x, x.type.dtype === 'f64' ? 'f64' : stashType(cx));
  const square = mean(b, b.mul(wide, wide), axes, true);
  const normal = b.mul(wide, inverseDeviation(b, square, node.attrs.float('epsilon', 1e-5)));
  return b.mul(b.cast(normal, scale.type.dtype), scale);
}

function instanceNorm(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const rank = x.type.shape.length;
  const vector = (i: number): Value => alongAxis(b, cx.input(i), 1, rank);
  const stats = meanAndVariance(b, x, range(rank).slice(2));
  const normal = b.mul(b.sub(x, stats.mean), inverseDeviation(b, stats.variance, node.attrs.float('epsilon', 1e-5)));
  return b.add(b.mul(normal, vector(1)), vector(2));
}

/** Scale and bias are one value a group before opset 21, one a channel since. */
function groupNorm(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const { shape } = x.type;
  const groups = node.attrs.int('num_groups');
  const [n, channels] = shape;
  if (n === undefined || channels === undefined || groups < 1 || channels % groups !== 0) cx.bad(`an input of [${shape.join(',')}] does not split into ${groups} groups of channels`);
  const wide = b.cast(x, x.type.dtype === 'f64' ? 'f64' : stashType(cx));
  // Spatial axes stay apart, so that any order in memory will do.
  const spatial = shape.slice(2);
  const grouped = b.reshape(wide, [n, groups, channels / groups, ...spatial]);
  const stats = meanAndVariance(b, grouped, range(shape.length + 1).slice(2));
  const normal = b.mul(b.sub(grouped, stats.mean), inverseDeviation(b, stats.variance, node.attrs.float('epsilon', 1e-5)));
  const ones = spatial.map(() => 1);
  if (node.opset < 21) {
    const perGroup = (i: number): Value => b.cast(b.reshape(cx.input(i), [1, groups, 1, ...ones]), wide.type.dtype);
    return b.cast(b.reshape(b.add(b.mul(normal, perGroup(1)), perGroup(2)), shape), x.type.dtype);
  }
  const perChannel = (i: number): Value => b.reshape(cx.input(i), [1, groups, channels / groups, ...ones]);
  return b.reshape(b.add(b.mul(b.cast(normal, x.type.dtype), perChannel(1)), perChannel(2)), shape);
}

function meanVarianceNorm(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const rank = x.type.shape.length;
  const axes = axesOf(cx, node.attrs.ints('axes', [0, 2, 3]), rank);
  const stats = meanAndVariance(b, x, axes);
  return b.div(b.sub(x, stats.mean), b.add(b.unary('sqrt', stats.variance), 1e-9));
}

/** A norm of zero gives zeros. */
function lpNorm(cx: LowerContext): Value {
  const { b, node } = cx;
  const x = cx.input(0);
  const p = node.attrs.int('p', 2);
  if (p !== 1 && p !== 2) cx.bad(`p is ${p}: expected 1 or 2`);
  const axes = [axisOf(cx, node.attrs.int('axis', -1), x.type.shape.length)];
  const norm = p === 1 ? b.reduce('reduceSum', b.unary('abs', x), axes, true) : b.unary('sqrt', b.reduce('reduceSum', b.mul(x, x), axes, true));
  return b.div(x, b.select(b.binary('eq', norm, 0), 1, norm));
}

/** x / (bias + α/size · Σ x²)^β, the sum over `size` neighbouring channels. */
function localResponseNorm(cx: LowerContext): Value {
  const { b, node } = cx;
  const { attrs } = node;
  const x = cx.input(0);
  const { shape } = x.type;
  const [n, c] = shape;
  if (n === undefined || c === undefined) cx.bad(`the input has rank ${shape.length}: expected at least N and C`);
  const size = attrs.int('size');
  const before = Math.floor((size - 1) / 2);
  const plane = b.reshape(b.mul(x, x), [n, 1, c, sizeOf(shape.slice(2))]);
  const sums = b.one('sumPool', [plane], { kernel: [size, 1], strides: [1, 1], pads: [before, 0, size - 1 - before, 0], dilations: [1, 1] });
  const base = b.add(b.mul(b.reshape(sums, shape), attrs.float('alpha', 1e-4) / size), attrs.float('bias', 1));
  return b.div(x, b.pow(base, attrs.float('beta', 0.75)));
}

export const normOps: LoweringTable = {
  BatchNormalization: [row(1, 5, batchNorm, [1, 5])],
  InstanceNormalization: [row(1, 3, instanceNorm)],
  LayerNormalization: [row(17, [2, 3], layerNorm, [1, 3])],
  RMSNormalization: [row(23, 2, rmsNorm)],
  GroupNormalization: [row(18, 3, groupNorm)],
  MeanVarianceNormalization: [row(9, 1, meanVarianceNorm)],
  LpNormalization: [row(1, 1, lpNorm)],
  LRN: [row(1, 1, localResponseNorm)],
};
