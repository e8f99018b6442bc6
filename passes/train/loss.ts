/** Losses as ops: a sum over the batch, and what it is divided by. */
import type { Builder } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Value } from '../../ir/graph.ts';
import { dtypes, isFloat, showType, sizeOf, type TensorType } from '../../ir/type.ts';
import type { LossSpec } from './options.ts';

/** A loss that compares an output with a target. */
export type ComparingLoss = Exclude<LossSpec, { readonly kind: 'output' }>;
type CrossEntropy = Extract<LossSpec, { readonly kind: 'crossEntropy' }>;

/** The type of the target that belongs to an output; a UserError where the loss does not fit the output, or has numbers that make no loss. */
export function targetType(loss: ComparingLoss, output: TensorType): TensorType {
  checkNumbers(loss);
  if (!isFloat(output.dtype)) throw new UserError(`the loss judges an output of type ${showType(output)}; it has to be of a float type`);
  if (loss.kind !== 'crossEntropy' || loss.target === 'probabilities') return output;
  classAxis(loss, output);
  return { dtype: 'i64', shape: output.shape.toSpliced(classAxis(loss, output), 1) };
}

function checkNumbers(loss: ComparingLoss): void {
  const refuse = (what: string, found: unknown, expected: string): never => {
    throw new UserError(`the loss's ${what} is ${String(found)}, expected ${expected}`);
  };
  if (loss.kind === 'huber' && loss.delta !== undefined && !(loss.delta > 0)) refuse('delta', loss.delta, 'a positive number');
  if (loss.kind !== 'crossEntropy') return;
  const { labelSmoothing, classWeights } = loss;
  if (labelSmoothing !== undefined && !(labelSmoothing >= 0 && labelSmoothing <= 1)) refuse('label smoothing', labelSmoothing, 'a share from 0 to 1');
  const weight = classWeights?.find((w) => !(w >= 0 && w < Infinity));
  if (weight !== undefined) refuse('class weight', weight, 'numbers of at least 0');
}

/** The sum of the loss over all elements that count. */
export function lossSum(b: Builder, loss: ComparingLoss, output: Value, target: Value): Value {
  if (loss.kind === 'crossEntropy') return (loss.target === 'probabilities' ? crossEntropyOfProbabilities : crossEntropyOfIndices)(b, loss, output, target);
  return sumAll(b, elementLoss(b, loss, output, target));
}

/** What the sum is divided by: the number of elements, or the weight of the targets that count. Depends on the target alone. */
export function lossCount(b: Builder, loss: ComparingLoss, output: TensorType, target: Value): Value {
  const { dtype } = output;
  if (loss.kind !== 'crossEntropy') return b.scalar(sizeOf(output.shape), dtype);
  const positions = sizeOf(output.shape) / output.shape[classAxis(loss, output)]!;
  if (loss.target === 'probabilities' || (loss.ignoreIndex === undefined && !loss.classWeights)) return b.scalar(positions, dtype);
  return sumAll(b, targetWeights(b, loss, dtype, target));
}

function elementLoss(b: Builder, loss: Exclude<ComparingLoss, CrossEntropy>, x: Value, y: Value): Value {
  switch (loss.kind) {
    case 'mse': {
      const d = b.sub(x, y);
      return b.mul(d, d);
    }
    case 'mae':
      return b.unary('abs', b.sub(x, y));
    case 'huber': {
      const d = b.unary('abs', b.sub(x, y));
      const near = b.min(d, loss.delta ?? 1);
      return b.mul(near, b.sub(d, b.mul(near, 0.5)));
    }
    case 'binaryCrossEntropy':
      // log(1 + e^x) - x·y without overflow. `max` halves its gradient at a tie, which is sigmoid(0); relu would not.
      return b.add(b.sub(b.max(x, 0), b.mul(x, y)), b.unary('log1p', b.unary('exp', b.neg(b.unary('abs', x)))));
  }
}

/**
 * Cross-entropy as sums over the classes of a row, with no index into them: -Σ w·logp = log Σ e^c · Σ w - Σ w·c, where c is the row less its maximum. The gradient that comes of it is
 * softmax · Σ w - w, so that both are one pass over rows.
 */
function crossEntropyOfRows(b: Builder, x: Value, axis: number, weighted: (c: Value) => Value, total?: () => Value): Value {
  // The maximum comes first: fusion grows from there.
  const c = b.sub(x, b.peak(x, [axis]));
  const log = b.unary('log', b.reduce('reduceSum', b.unary('exp', c), [axis]));
  return b.sub(total ? b.mul(log, total()) : log, b.reduce('reduceSum', weighted(c), [axis]));
}

function crossEntropyOfIndices(b: Builder, loss: CrossEntropy, x: Value, target: Value): Value {
  const axis = classAxis(loss, x.type);
  const smoothing = loss.labelSmoothing ?? 0;
  const weights = targetWeights(b, loss, x.type.dtype, target);
  // 32 bits, which vectors of classes compare.
  const label = b.reshape(b.cast(target, 'i32'), x.type.shape.with(axis, 1));
  const isTarget = b.binary('eq', b.one('iota', [], { shape: x.type.shape.map((d, i) => (i === axis ? d : 1)), axis, dtype: 'i32' }), label);
  const right = sumAll(b, b.mul(crossEntropyOfRows(b, x, axis, (c) => b.select(isTarget, c, 0)), weights));
  if (smoothing === 0) return right;
  // The smoothed part weighs each class by its own weight; an ignored target takes its whole position out.
  const { classWeights } = loss;
  const classes = classWeights && alongAxis(b, classWeights, x.type, axis);
  const total = b.scalar(classWeights ? classWeights.reduce((n, w) => n + w, 0) : x.type.shape[axis]!, x.type.dtype);
  const perPosition = crossEntropyOfRows(b, x, axis, (c) => (classes ? b.mul(c, classes) : c), () => total);
  const even = sumAll(b, loss.ignoreIndex === undefined ? perPosition : b.select(b.binary('ne', target, loss.ignoreIndex), perPosition, 0));
  return b.add(b.mul(right, 1 - smoothing), b.mul(even, smoothing / x.type.shape[axis]!));
}

function crossEntropyOfProbabilities(b: Builder, loss: CrossEntropy, x: Value, target: Value): Value {
  if (loss.ignoreIndex !== undefined) throw new UserError('ignoreIndex is of class indices; targets are probabilities here');
  const axis = classAxis(loss, x.type);
  const smoothing = loss.labelSmoothing ?? 0;
  const smooth = smoothing === 0 ? target : b.add(b.mul(target, 1 - smoothing), smoothing / x.type.shape[axis]!);
  const weighted = loss.classWeights ? b.mul(smooth, alongAxis(b, loss.classWeights, x.type, axis)) : smooth;
  return sumAll(b, crossEntropyOfRows(b, x, axis, (c) => b.mul(c, weighted), () => b.reduce('reduceSum', weighted, [axis])));
}

/** The weight of each target: that of its class, 0 where it is ignored. */
function targetWeights(b: Builder, loss: CrossEntropy, dtype: TensorType['dtype'], target: Value): Value {
  const { classWeights, ignoreIndex } = loss;
  const full = classWeights
    ? b.one('gather', [vector(b, classWeights, dtype), counted(b, loss, target)], { axis: 0 })
    : b.broadcast(b.scalar(1, dtype), target.type.shape);
  return ignoreIndex === undefined ? full : b.select(b.binary('ne', target, ignoreIndex), full, 0);
}

/** Targets with ignored ones replaced by class 0, which any index op can read. */
const counted = (b: Builder, { ignoreIndex }: CrossEntropy, target: Value): Value => (ignoreIndex === undefined ? target : b.select(b.binary('ne', target, ignoreIndex), target, 0));

function classAxis(loss: CrossEntropy, output: TensorType): number {
  const axis = loss.axis ?? 1;
  const classes = output.shape[axis];
  if (classes === undefined) throw new UserError(`cross-entropy takes the classes along axis ${axis}, but the output is ${showType(output)}; name another axis, or another output`);
  const given = loss.classWeights?.length;
  if (given !== undefined && given !== classes) throw new UserError(`there are ${given} class weights, but the output ${showType(output)} has ${classes} classes along axis ${axis}`);
  return axis;
}

const sumAll = (b: Builder, x: Value): Value => b.reduce('reduceSum', x, x.type.shape.map((_, i) => i));
const alongAxis = (b: Builder, xs: readonly number[], type: TensorType, axis: number): Value => b.reshape(vector(b, xs, type.dtype), type.shape.map((_, i) => (i === axis ? xs.length : 1)));

function vector(b: Builder, xs: readonly number[], dtype: TensorType['dtype']): Value {
  const data = new dtypes[dtype].array(xs.length) as Float64Array;
  data.set(xs);
  return b.constant({ dtype, shape: [xs.length], data });
}
