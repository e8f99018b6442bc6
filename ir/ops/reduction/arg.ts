/** argMax and argMin. */
import { flag, num, type OpDef, type RefTensor } from '../../op.ts';
import { rowMajor, showType } from '../../type.ts';
import { arity, bigints, check, dropAxes, fresh, nth, requireAxis, requireNumeric } from '../helpers.ts';
import { walk } from '../strided.ts';
import { keptShape, reductionAxes } from './axes.ts';

/** Whether x takes the place of the best so far. NaN beats every number. */
type Beats = (x: number | bigint, best: number | bigint) => boolean;

function arg(name: string, doc: string, combine: 'argmax' | 'argmin', beats: Beats): OpDef {
  return {
    name,
    doc,
    family: 'reduce',
    operands: ['x'],
    attrs: { axis: { kind: 'number', default: 'required' }, last: { kind: 'boolean', default: false } },
    infer(operands, attrs) {
      const [x] = arity(operands, 1);
      requireNumeric(x);
      const axis = num(attrs, 'axis');
      requireAxis(axis, x);
      check(x.shape[axis] !== 0, () => `axis ${axis} of ${showType(x)} is empty`);
      return [{ dtype: 'i64', shape: dropAxes(x.shape, [axis]) }];
    },
    axes([x], attrs) {
      const axes = reductionAxes(x!.shape, [num(attrs, 'axis')], combine);
      return { ...axes, stages: axes.stages.map((s) => ({ ...s, pieces: s.pieces.map((p) => ({ ...p, indexed: [nth(axes.space, num(attrs, 'axis')).name] })) })) };
    },
    reference([x], attrs, [type]): RefTensor[] {
      const y = fresh(type!);
      const axis = num(attrs, 'axis');
      const [count, stride] = [x!.shape[axis]!, rowMajor(x!.shape)[axis]!];
      const outer = keptShape(x!.shape, [axis]);
      const w = walk(outer, [rowMajor(x!.shape), rowMajor(outer)]);
      const out = bigints(y);
      w.rows(([p, q]) => {
        for (let i = 0; i < w.length; i++) out[q! + i * w.steps[1]!] = BigInt(best(x!.data, p! + i * w.steps[0]!, stride, count, flag(attrs, 'last'), beats));
      });
      return [y];
    },
    grad: { none: 'gives an integer index' },
  };
}

function best(data: RefTensor['data'], start: number, stride: number, count: number, last: boolean, beats: Beats): number {
  let winner = 0;
  for (let k = 1; k < count; k++) {
    const x = data[start + k * stride]!;
    const y = data[start + winner * stride]!;
    // With `last`, x also wins where y does not beat it back.
    if (last ? !beats(y, x) : beats(x, y)) winner = k;
  }
  return winner;
}

const isNaNValue = (x: number | bigint): boolean => x !== x;

export const argOps: readonly OpDef[] = [
  arg('argMax', 'index of the largest x along the axis; the first among equals, or the last; NaN counts as largest', 'argmax', (x, y) => x > y || (isNaNValue(x) && !isNaNValue(y))),
  arg('argMin', 'index of the smallest x along the axis; the first among equals, or the last; NaN counts as smallest', 'argmin', (x, y) => x < y || (isNaNValue(x) && !isNaNValue(y))),
];
