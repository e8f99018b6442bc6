/** Writes at run-time indices. */
import type { Builder } from '../../builder.ts';
import type { Attrs, Op, Value } from '../../graph.ts';
import { num, str, type AttrSpec, type Grad, type OpDef, type RefTensor } from '../../op.ts';
import { isFloat, isInteger, sameShape, showType, sizeOf, tensorType, type TensorType } from '../../type.ts';
import { arity, check, nth, requireIndex, requireSameDType } from '../helpers.ts';
import { elementOffsets, requireElementIndices, requireTuples, tupleOffsets } from './indices.ts';

const reductionAttr = { kind: 'string', default: 'none' } as const satisfies AttrSpec;
const placesDepend = { none: 'where it writes depends on run-time indices' };

export const scatterElements: OpDef = {
  name: 'scatterElements',
  doc: 'y = x, then for each p in row-major order y[p with indices[p] at `axis`] = updates[p], or its sum, product, minimum or maximum with what is there',
  family: 'scatter',
  operands: ['x', 'indices', 'updates'],
  attrs: { axis: { kind: 'number', default: 0 }, reduction: reductionAttr },
  infer(operands, a) {
    const [x, indices, updates] = arity(operands, 3);
    requireElementIndices(x, indices, num(a, 'axis'));
    requireSameDType(x, updates);
    requireReduction(x, a);
    check(sameShape(indices.shape, updates.shape), () => `${showType(updates)} has not the shape of ${showType(indices)}`);
    return [tensorType(x.dtype, x.shape)];
  },
  axes: () => placesDepend,
  reference: ([x, indices, updates], a) => [scattered(x!, updates!, elementOffsets(x!.shape, indices!, num(a, 'axis')), 1, str(a, 'reduction'))],
  grad: scatterGrad((b, op) => ({
    scatter: (x, updates, reduction) => b.one('scatterElements', [x, nth(op.operands, 1), updates], { axis: num(op.attrs, 'axis'), reduction }),
    gather: (x) => b.one('gatherElements', [x, nth(op.operands, 1)], { axis: num(op.attrs, 'axis') }),
  })),
};

export const scatterNd: OpDef = {
  name: 'scatterNd',
  doc: 'y = x, then for each tuple i in row-major order the slice y[indices[i, :]] = updates[i], or its sum, product, minimum or maximum with what is there',
  family: 'scatter',
  operands: ['x', 'indices', 'updates'],
  attrs: { reduction: reductionAttr },
  infer(operands, a) {
    const [x, indices, updates] = arity(operands, 3);
    requireIndex(indices);
    check(indices.shape.length >= 1, () => `${showType(indices)} has no axis of index tuples`);
    requireSameDType(x, updates);
    requireReduction(x, a);
    const depth = indices.shape.at(-1)!;
    requireTuples(x, indices, 0, depth);
    const expected = [...indices.shape.slice(0, -1), ...x.shape.slice(depth)];
    check(sameShape(updates.shape, expected), () => `updates are ${showType(updates)}, expected ${showType(tensorType(x.dtype, expected))}`);
    return [tensorType(x.dtype, x.shape)];
  },
  axes: () => placesDepend,
  reference([x, indices, updates], a) {
    const depth = indices!.shape.at(-1)!;
    return [scattered(x!, updates!, tupleOffsets(indices!, x!.shape, 0, depth), sizeOf(x!.shape.slice(depth)), str(a, 'reduction'))];
  },
  grad: scatterGrad((b, op) => ({
    scatter: (x, updates, reduction) => b.one('scatterNd', [x, nth(op.operands, 1), updates], { reduction }),
    gather: (x) => b.one('gatherNd', [x, nth(op.operands, 1)], { batchDims: 0 }),
  })),
};

function requireReduction(x: TensorType, a: Attrs): void {
  const reduction = str(a, 'reduction');
  check(['none', 'add', 'mul', 'min', 'max'].includes(reduction), () => `reduction="${reduction}" is unknown, expected none, add, mul, min or max`);
  check(reduction === 'none' || isFloat(x.dtype) || isInteger(x.dtype), () => `reduction="${reduction}" does not apply to ${showType(x)}`);
}

/** x with slices of updates joined in, each at its offset. */
function scattered(x: RefTensor, updates: RefTensor, offsets: Float64Array, slice: number, reduction: string): RefTensor {
  const data = x.data.slice();
  const join = joinOf(reduction, x);
  // Both hold numbers, or both bigints; `join` is for what they hold.
  const [to, from] = [data as Float64Array, updates.data as Float64Array];
  for (let i = 0; i < offsets.length; i++) {
    for (let j = 0; j < slice; j++) to[offsets[i]! + j] = join(to[offsets[i]! + j]!, from[i * slice + j]!);
  }
  return { ...x, data };
}

/** What an update does to the element that is there. Joins of bigints go by the same operators; the array wraps them. */
function joinOf(reduction: string, x: RefTensor): (old: number, update: number) => number {
  switch (reduction) {
    case 'add':
      return (p, q) => p + q;
    case 'mul':
      return isInteger(x.dtype) && x.data instanceof Float64Array ? Math.imul : (p, q) => p * q;
    case 'min':
      return (p, q) => (p !== p || p < q ? p : q);
    case 'max':
      return (p, q) => (p !== p || p > q ? p : q);
    default:
      return (_, q) => q;
  }
}

/** The op again with other tensors, and the gather with the same indices. */
interface Indexed {
  scatter(x: Value, updates: Value, reduction: string): Value;
  gather(x: Value): Value;
}

/** The gradient of a scatter, in terms of scatters and gathers with the same indices. */
function scatterGrad(indexed: (b: Builder, op: Op) => Indexed): Grad {
  return {
    build(b, op, [dy]) {
      const [x, , updates] = op.operands;
      if (!dy || !x || !updates || !isFloat(x.type.dtype)) return [undefined, undefined, undefined];
      const via = indexed(b, op);
      const [dx, du] = gradients(b, via, str(op.attrs, 'reduction'), x, updates, nth(op.results, 0), dy);
      return [dx, undefined, du];
    },
  };
}

function gradients(b: Builder, via: Indexed, reduction: string, x: Value, updates: Value, y: Value, dy: Value): readonly [Value, Value] {
  switch (reduction) {
    case 'add':
      return [dy, via.gather(dy)];
    case 'mul':
      return productGradients(b, via, x, updates, dy);
    case 'min':
    case 'max':
      return extremeGradients(b, via, x, updates, y, dy);
    default:
      return overwriteGradients(b, via, x, updates, dy);
  }
}

/** Only the last update of an element counts: the one whose number is found there after scattering numbers. */
function overwriteGradients(b: Builder, via: Indexed, x: Value, updates: Value, dy: Value): readonly [Value, Value] {
  const shape = updates.type.shape;
  const numbers = b.reshape(b.one('iota', [], { shape: [sizeOf(shape)], axis: 0, dtype: 'i32' }), shape);
  const winners = via.scatter(b.zeros(tensorType('i32', x.type.shape)), numbers, 'none');
  return [via.scatter(dy, b.zeros(updates.type), 'none'), b.select(b.binary('eq', via.gather(winners), numbers), via.gather(dy), 0)];
}

/** The derivative for each factor is the product of the others: without dividing by zero, by counting the factors that are zero. */
function productGradients(b: Builder, via: Indexed, x: Value, updates: Value, dy: Value): readonly [Value, Value] {
  const isZero = (v: Value): Value => b.binary('eq', v, 0);
  const nonZero = (v: Value): Value => b.select(isZero(v), 1, v);
  const product = via.scatter(nonZero(x), nonZero(updates), 'mul');
  const zeros = via.scatter(b.cast(isZero(x), x.type.dtype), b.cast(isZero(updates), x.type.dtype), 'add');
  const others = (v: Value, total: Value, count: Value): Value => {
    const alone = b.binary('eq', b.sub(count, b.cast(isZero(v), x.type.dtype)), 0);
    return b.select(alone, b.div(total, nonZero(v)), 0);
  };
  return [b.mul(dy, others(x, product, zeros)), b.mul(via.gather(dy), others(updates, via.gather(product), via.gather(zeros)))];
}

/** Elements that equal the extreme share its cotangent evenly. */
function extremeGradients(b: Builder, via: Indexed, x: Value, updates: Value, y: Value, dy: Value): readonly [Value, Value] {
  const dtype = x.type.dtype;
  const own = b.cast(b.binary('eq', x, y), dtype);
  const given = b.cast(b.binary('eq', updates, via.gather(y)), dtype);
  const share = b.div(dy, b.max(via.scatter(own, given, 'add'), 1));
  return [b.mul(share, own), b.mul(via.gather(share), given)];
}
