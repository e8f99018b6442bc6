/** reduceSum, reduceProd, reduceMax, reduceMin. */
import { isBig } from '../../number.ts';
import { flag, nums, type AttrSpec, type OpDef, type RefTensor } from '../../op.ts';
import { isFloat, isInteger, rowMajor, showType, type DType, type TensorType } from '../../type.ts';
import type { CombineName } from '../../axes.ts';
import type { Value } from '../../graph.ts';
import { arity, bigints, check, dropAxes, fresh, highest, highestBig, lowest, lowestBig, nth, numbers, requireAxes } from '../helpers.ts';
import { walk } from '../strided.ts';
import { keptShape, reductionAxes } from './axes.ts';

interface Fold {
  readonly name: string;
  readonly doc: string;
  readonly combine: CombineName;
  /** Takes bool too. */
  readonly bool: boolean;
  /** Beside `axes`. */
  readonly attrs?: Readonly<Record<string, AttrSpec>>;
  start(dtype: DType): number;
  startBig(dtype: DType): bigint;
  add(sum: number, x: number): number;
  /** Integers of up to 32 bits, modulo 2^32. */
  addInt(sum: number, x: number): number;
  addBig(sum: bigint, x: bigint): bigint;
  readonly grad: OpDef['grad'];
}

function fold(row: Fold): OpDef {
  return {
    name: row.name,
    doc: row.doc,
    family: 'reduce',
    operands: ['x'],
    attrs: { axes: { kind: 'numbers', default: 'required' }, ...row.attrs },
    infer(operands, attrs) {
      const [x] = arity(operands, 1);
      requireAxes(nums(attrs, 'axes'), x);
      check(isFloat(x.dtype) || isInteger(x.dtype) || (row.bool && x.dtype === 'bool'), () => `does not reduce ${showType(x)}`);
      return [{ dtype: x.dtype, shape: dropAxes(x.shape, nums(attrs, 'axes')) }];
    },
    axes: ([x], attrs) => reductionAxes(x!.shape, nums(attrs, 'axes'), row.combine),
    reference: ([x], attrs, [y]) => [reduce(row, x!, nums(attrs, 'axes'), y!)],
    grad: row.grad,
  };
}

function reduce(row: Fold, x: RefTensor, axes: readonly number[], type: TensorType): RefTensor {
  const y = fresh(type);
  const w = walk(x.shape, [rowMajor(x.shape), resultStrides(x.shape, axes)]);
  const [s, t] = w.steps as [number, number];
  if (isBig(x.dtype)) {
    const [from, to] = [bigints(x), bigints(y).fill(row.startBig(x.dtype))];
    w.rows(([p, q]) => {
      for (let i = 0; i < w.length; i++) to[q! + i * t] = row.addBig(to[q! + i * t]!, from[p! + i * s]!);
    });
    return y;
  }
  const add = isFloat(x.dtype) ? row.add : row.addInt;
  const [from, to] = [numbers(x), numbers(y).fill(row.start(x.dtype))];
  w.rows(([p, q]) => {
    for (let i = 0; i < w.length; i++) to[q! + i * t] = add(to[q! + i * t]!, from[p! + i * s]!);
  });
  return y;
}

/** Strides of the result along the operand's axes: 0 along reduced ones. */
function resultStrides(shape: readonly number[], axes: readonly number[]): number[] {
  const kept = rowMajor(keptShape(shape, axes));
  return shape.map((_, i) => (axes.includes(i) ? 0 : kept[i]!));
}

const sum: OpDef = fold({
  name: 'reduceSum', doc: 'Σ x over the axes; 0 where they are empty', combine: 'sum', bool: false,
  start: () => 0, startBig: () => 0n, add: (s, x) => s + x, addInt: (s, x) => (s + x) | 0, addBig: (s, x) => s + x,
  grad: {
    build(b, op, [g]) {
      const { shape } = nth(op.operands, 0).type;
      return [g && b.broadcast(b.reshape(g, keptShape(shape, nums(op.attrs, 'axes'))), shape)];
    },
  },
});

const prod: OpDef = fold({
  name: 'reduceProd', doc: 'Π x over the axes; 1 where they are empty', combine: 'prod', bool: false,
  start: () => 1, startBig: () => 1n, add: (s, x) => s * x, addInt: Math.imul, addBig: (s, x) => s * x,
  // The product of all others, as what comes before times what comes after: dividing by x would fail at zeros.
  grad: {
    build(b, op, [g]) {
      if (!g) return [undefined];
      const x = nth(op.operands, 0);
      const axes = nums(op.attrs, 'axes');
      const { shape } = x.type;
      const perm = [...shape.keys()].filter((i) => !axes.includes(i)).concat(axes);
      const moved = b.transpose(x, perm);
      const outer = dropAxes(shape, axes);
      const axis = outer.length;
      const flat = b.reshape(moved, [...outer, axes.reduce((n, a) => n * shape[a]!, 1)]);
      const others = b.mul(b.one('cumProd', [flat], { axis, exclusive: true }), b.one('cumProd', [flat], { axis, exclusive: true, reverse: true }));
      const flow = b.mul(others, b.reshape(g, [...outer, 1]));
      return [b.transpose(b.reshape(flow, moved.type.shape), perm.map((_, i) => perm.indexOf(i)))];
    },
  },
});

/** With `detached` the result counts as a constant where gradients are made: what softmax subtracts changes nothing that comes out of it. */
const detachable = { detached: { kind: 'boolean', default: false } } as const;

/** The cotangent of a maximum or minimum, divided equally among the elements that attain it. */
const toWinners: OpDef['grad'] = {
  build(b, op, [g]) {
    if (!g || flag(op.attrs, 'detached')) return [undefined];
    const x = nth(op.operands, 0);
    const axes = nums(op.attrs, 'axes');
    const kept = keptShape(x.type.shape, axes);
    const won: Value = b.cast(b.binary('eq', x, b.reshape(nth(op.results, 0), kept)), x.type.dtype);
    return [b.mul(won, b.div(b.reshape(g, kept), b.reduce('reduceSum', won, axes, true)))];
  },
};

const max: OpDef = fold({
  name: 'reduceMax', doc: 'the largest x over the axes (any, for bool); NaN where one is; the lowest value where they are empty; `detached`: no gradient goes through it', combine: 'max', bool: true, attrs: detachable,
  start: lowest, startBig: lowestBig, add: Math.max, addInt: Math.max, addBig: (s, x) => (s > x ? s : x), grad: toWinners,
});
const min: OpDef = fold({
  name: 'reduceMin', doc: 'the smallest x over the axes (all, for bool); NaN where one is; the highest value where they are empty; `detached`: no gradient goes through it', combine: 'min', bool: true, attrs: detachable,
  start: highest, startBig: highestBig, add: Math.min, addInt: Math.min, addBig: (s, x) => (s < x ? s : x), grad: toWinners,
});

export const foldOps: readonly OpDef[] = [sum, prod, max, min];
