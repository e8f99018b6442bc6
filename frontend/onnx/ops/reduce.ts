/** Reductions and arg-reductions. `axes` is an attribute at first, an input from opset 13 (ReduceSum) or 18 (the others) on. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import { isFloat } from '../../../ir/type.ts';
import type { LowerContext, LoweringTable, Row } from '../lowering.ts';
import { axesOf, axisOf, inFullPrecision, kept, mean, range, row } from './helpers.ts';

type Reducer = (b: Builder, x: Value, axes: readonly number[], keepdims: boolean) => Value;

const core = (name: 'reduceSum' | 'reduceProd' | 'reduceMax' | 'reduceMin'): Reducer => (b, x, axes, keepdims) => b.reduce(name, x, axes, keepdims);
const sum = core('reduceSum');

const l2: Reducer = (b, x, axes, keepdims) => {
  const squares = sum(b, b.mul(x, x), axes, keepdims);
  return isFloat(x.type.dtype) ? b.unary('sqrt', squares) : b.cast(b.unary('sqrt', b.cast(squares, 'f64')), x.type.dtype);
};

const floatOnly = (f: Reducer): Reducer => (b, x, axes, keepdims) => {
  const { dtype } = x.type;
  return isFloat(dtype) ? inFullPrecision(b, x, (y) => f(b, y, axes, keepdims)) : b.cast(f(b, b.cast(x, 'f64'), axes, keepdims), dtype);
};

/** An infinite maximum is not subtracted: it would make NaN of rows that hold nothing but -inf. */
const logSumExp: Reducer = (b, x, axes, keepdims) => {
  const top = b.peak(x, axes);
  const shift = b.select(b.one('isInf', [top], { positive: true, negative: true }), 0, top);
  const total = b.add(b.unary('log', sum(b, b.unary('exp', b.sub(x, shift)), axes, true)), shift);
  return keepdims ? total : b.reshape(total, x.type.shape.filter((_, i) => !axes.includes(i)));
};

function reduction(f: Reducer, axesAsInput = 18): Row[] {
  const reduce = (cx: LowerContext, given: readonly number[] | undefined): Value => {
    const { attrs } = cx.node;
    const x = cx.input(0);
    const rank = x.type.shape.length;
    const keepdims = attrs.int('keepdims', 1) !== 0;
    const none = given === undefined || given.length === 0;
    const axes = none ? (attrs.int('noop_with_empty_axes', 0) !== 0 ? [] : range(rank)) : axesOf(cx, given, rank);
    return f(cx.b, x, axes, keepdims);
  };
  return [
    row(1, 1, (cx) => reduce(cx, cx.node.attrs.ints('axes', undefined))),
    row(axesAsInput, [1, 2], (cx) => {
      const axes = cx.optionalInput(1);
      return reduce(cx, axes && cx.ints(axes, 'axes'));
    }),
  ];
}

const argReduction = (name: 'argMax' | 'argMin'): Row[] => [
  row(1, 1, (cx) => {
    const { attrs } = cx.node;
    const x = cx.input(0);
    const axis = axisOf(cx, attrs.int('axis', 0), x.type.shape.length);
    const y = cx.b.one(name, [x], { axis, last: attrs.int('select_last_index', 0) !== 0 });
    return attrs.int('keepdims', 1) !== 0 ? cx.b.reshape(y, kept(x.type.shape, [axis])) : y;
  }),
];

export const reduceOps: LoweringTable = {
  ReduceSum: reduction(sum, 13),
  ReduceProd: reduction(core('reduceProd')),
  ReduceMax: reduction(core('reduceMax')),
  ReduceMin: reduction(core('reduceMin')),
  ReduceMean: reduction(mean),
  ReduceL1: reduction((b, x, axes, keepdims) => sum(b, b.unary('abs', x), axes, keepdims)),
  ReduceL2: reduction(l2),
  ReduceSumSquare: reduction((b, x, axes, keepdims) => sum(b, b.mul(x, x), axes, keepdims)),
  ReduceLogSum: reduction(floatOnly((b, x, axes, keepdims) => b.unary('log', sum(b, x, axes, keepdims)))),
  ReduceLogSumExp: reduction(floatOnly(logSumExp)),
  ArgMax: argReduction('argMax'),
  ArgMin: argReduction('argMin'),
};
