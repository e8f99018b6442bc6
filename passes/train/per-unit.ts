/** Reductions over the units of a weight. */
import type { Builder } from '../../ir/builder.ts';
import type { Value } from '../../ir/graph.ts';
import { unitSize, type Unit } from './units.ts';

/** Applies `f` to a value seen under its unit's shape, with the sum over each unit at hand; the result has the value's shape. */
function overUnit(b: Builder, x: Value, unit: Pick<Unit, 'shape'>, f: (view: Value) => Value): Value {
  return b.reshape(f(b.reshape(x, unit.shape)), x.type.shape);
}

/** x minus the mean of its unit. */
export function centred(b: Builder, x: Value, unit: Unit): Value {
  return overUnit(b, x, unit, (view) => b.sub(view, b.mul(b.reduce('reduceSum', view, unit.axes, true), 1 / unitSize(unit))));
}

/** The Euclidean norm of all elements, a scalar. */
export function norm(b: Builder, x: Value): Value {
  return b.unary('sqrt', sumOfSquares(b, x));
}

/** The sum of squares of all elements, a scalar. */
export function sumOfSquares(b: Builder, x: Value): Value {
  return b.reduce('reduceSum', b.mul(x, x), x.type.shape.map((_, i) => i));
}

/** Shrinks each unit of a gradient whose norm is above `limit` of the weight's norm; a weight without a unit is one. */
export function clipUnits(b: Builder, gradient: Value, weight: Value, unit: Unit | undefined, limit: (weightNorm: Value) => Value): Value {
  const view = unit ?? { shape: gradient.type.shape, axes: gradient.type.shape.map((_, i) => i) };
  const norms = (x: Value): Value => b.unary('sqrt', b.reduce('reduceSum', b.mul(x, x), view.axes, true));
  return overUnit(b, gradient, view, (g) => {
    const most = limit(norms(b.reshape(weight, view.shape)));
    const n = norms(g);
    return b.mul(g, b.select(b.binary('gt', n, most), b.div(most, b.max(n, 1e-6)), 1));
  });
}
