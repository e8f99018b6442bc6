import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { centralizedUnit } from './centralize-gradients.ts';
import { stepsOf } from './count-steps.ts';
import { decayOf } from './decay-weights.ts';
import { extend, parametersOf } from './extend.ts';
import type { OptimizerSpec } from './options.ts';
import { centred } from './per-unit.ts';
import { updated } from './rules.ts';
import type { Units } from './units.ts';

/** The input that holds the learning rate. */
export const rateName = 'lr';
/** Lets the optimizer's rule move each parameter along its direction: adds the learning rate as an input, and moments as state. */
export function updateParameters(graph: Graph, spec: OptimizerSpec, units: Units): Graph {
  checkSpec(spec);
  return extend(graph, (x) => {
    const { b } = x;
    const lr = x.input(rateName, { dtype: 'f32', shape: [] });
    const { after } = stepsOf(graph);
    for (const { state, direction } of parametersOf(graph)) {
      const { dtype } = state.value.type;
      const unit = spec.gc && spec.gc.before === false ? centralizedUnit(spec.gc, units, state) : undefined;
      const value = updated({
        b,
        weight: state.value,
        direction,
        rate: b.cast(lr, dtype),
        count: b.cast(after, dtype),
        decay: decayOf(spec, state.name),
        moment(name) {
          const old = x.state(`${state.name}.${name}`, state.value.type, 'zero');
          return { old, set: (v: Value) => (x.update(old, v), v) };
        },
        centre: (v) => (unit ? centred(b, v, unit) : v),
      }, spec);
      x.update(state.value, value);
    }
  });
}

function checkSpec(spec: OptimizerSpec): void {
  const range = (what: string, x: number | undefined, ok: (x: number) => boolean, expected: string): void => {
    if (x !== undefined && !ok(x)) throw new UserError(`the optimizer's ${what} is ${x}, expected ${expected}`);
  };
  const share = (what: string, x: number | undefined): void => range(what, x, (v) => v >= 0 && v < 1, 'a number from 0 up to, but not, 1');
  const positive = (what: string, x: number | undefined): void => range(what, x, (v) => v > 0 && Number.isFinite(v), 'a positive number');
  if ('momentum' in spec) share('momentum', spec.momentum);
  if ('betas' in spec) spec.betas?.forEach((beta, i) => share(`beta ${i + 1}`, beta));
  if ('alpha' in spec) share('alpha', spec.alpha);
  if ('eps' in spec) range('eps', spec.eps, (v) => v >= 0 && Number.isFinite(v), 'a number of at least 0');
  share('ema', spec.ema);
  positive('sam', spec.sam);
  positive('clipNorm', spec.clipNorm);
  positive('clipValue', spec.clipValue);
  positive('agc lambda', spec.agc?.lambda);
  range('weightDecay', spec.weightDecay, (v) => v >= 0 && Number.isFinite(v), 'a number of at least 0');
  if ('nesterov' in spec && spec.nesterov && !('momentum' in spec && spec.momentum) && spec.kind === 'sgd') throw new UserError('Nesterov momentum needs a momentum above 0');
}
