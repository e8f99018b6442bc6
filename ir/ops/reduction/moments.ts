/** Mean and sum of squared deviations. */
import { nums, type OpDef } from '../../op.ts';
import { rowMajor } from '../../type.ts';
import { arity, dropAxes, fresh, nth, numbers, requireAxes, requireFloat } from '../helpers.ts';
import { walk } from '../strided.ts';
import { keptShape, reductionAxes } from './axes.ts';

export const moments: OpDef = {
  name: 'moments',
  doc: 'mean over the axes, and m2 = Σ (x - mean)²',
  family: 'reduce',
  operands: ['x'],
  attrs: { axes: { kind: 'numbers', default: 'required' } },
  infer(operands, attrs) {
    const [x] = arity(operands, 1);
    requireFloat(x);
    requireAxes(nums(attrs, 'axes'), x);
    const type = { dtype: x.dtype, shape: dropAxes(x.shape, nums(attrs, 'axes')) };
    return [type, type];
  },
  axes: ([x], attrs) => reductionAxes(x!.shape, nums(attrs, 'axes'), 'moments'),
  reference([x], attrs, [type]) {
    const axes = nums(attrs, 'axes');
    const kept = rowMajor(keptShape(x!.shape, axes));
    const w = walk(x!.shape, [rowMajor(x!.shape), x!.shape.map((_, i) => (axes.includes(i) ? 0 : kept[i]!))]);
    const [s, t] = w.steps as [number, number];
    const from = numbers(x!);
    const [mean, m2] = [fresh(type!), fresh(type!)];
    const [means, squares] = [numbers(mean), numbers(m2)];
    const count = axes.reduce((n, a) => n * x!.shape[a]!, 1);
    w.rows(([p, q]) => {
      for (let i = 0; i < w.length; i++) means[q! + i * t]! += from[p! + i * s]!;
    });
    for (let i = 0; i < means.length; i++) means[i]! /= count;
    w.rows(([p, q]) => {
      for (let i = 0; i < w.length; i++) squares[q! + i * t]! += (from[p! + i * s]! - means[q! + i * t]!) ** 2;
    });
    return [mean, m2];
  },
  // The mean's own move does not change m2, as deviations sum to zero.
  grad: {
    build(b, op, [gMean, gM2]) {
      const x = nth(op.operands, 0);
      const { shape } = x.type;
      const kept = keptShape(shape, nums(op.attrs, 'axes'));
      const count = nums(op.attrs, 'axes').reduce((n, a) => n * shape[a]!, 1);
      const fromMean = gMean && b.broadcast(b.mul(b.reshape(gMean, kept), 1 / count), shape);
      if (!gM2) return [fromMean];
      const deviation = b.sub(x, b.reshape(nth(op.results, 0), kept));
      const fromM2 = b.mul(deviation, b.mul(b.reshape(gM2, kept), 2));
      return [fromMean ? b.add(fromMean, fromM2) : fromM2];
    },
  },
};
