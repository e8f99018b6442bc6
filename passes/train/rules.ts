/** Update rules of optimizers: how a parameter moves, given the direction that clipping, decay and centralization have left. */
import type { Builder } from '../../ir/builder.ts';
import type { Value } from '../../ir/graph.ts';
import type { OptimizerSpec } from './options.ts';
import { norm } from './per-unit.ts';

/** What a rule works with. Scalars have the parameter's dtype. */
export interface RuleContext {
  readonly b: Builder;
  readonly weight: Value;
  readonly direction: Value;
  readonly rate: Value;
  /** The number of this update, from 1. */
  readonly count: Value;
  /** Weight decay of this parameter. */
  readonly decay: number;
  /** Adds state of the parameter, zero at the start: its value now, and how to replace it. */
  moment(name: string): { readonly old: Value; set(next: Value): Value };
  /** Centralizes the direction that comes out of the moments, where that is asked for. */
  centre(x: Value): Value;
}

/** The parameter after the update. */
export function updated(x: RuleContext, spec: OptimizerSpec): Value {
  const { b, weight, rate, decay } = x;
  switch (spec.kind) {
    case 'sgd':
      return b.sub(weight, b.mul(x.centre(withMomentum(x, spec, x.direction)), rate));
    case 'sgdw':
      return b.sub(b.sub(weight, b.mul(x.centre(withMomentum(x, { momentum: 0.9, ...spec }, x.direction)), rate)), b.mul(b.mul(weight, decay), rate));
    case 'lars':
      return b.sub(weight, b.mul(x.centre(withMomentum(x, { momentum: 0.9, ...spec }, trusted(x, spec.trust ?? 1e-3))), rate));
    case 'adam': {
      const ratio = spec.rule === 'gc-author' ? authorRatio(x, spec) : standardRatio(x, spec);
      return b.sub(weight, b.mul(x.centre(ratio), rate));
    }
    case 'adamw': {
      const delta = spec.rule === 'gc-author' ? authorRatio(x, spec) : decoupled(x, standardRatio(x, spec));
      return b.sub(weight, b.mul(x.centre(delta), rate));
    }
    case 'lamb': {
      const delta = x.centre(decoupled(x, standardRatio(x, spec)));
      const [w, d] = [norm(b, weight), norm(b, delta)];
      return b.sub(weight, b.mul(delta, b.mul(whereBothPositive(b, w, d, b.div(w, d)), rate)));
    }
    case 'adagrad': {
      const squares = x.moment('squares');
      const sum = squares.set(b.add(squares.old, b.mul(x.direction, x.direction)));
      const slowed = spec.lrDecay ? b.div(rate, b.add(b.mul(b.sub(x.count, 1), spec.lrDecay), 1)) : rate;
      return b.sub(weight, b.mul(x.centre(b.div(x.direction, b.add(b.unary('sqrt', sum), spec.eps ?? 1e-10))), slowed));
    }
    case 'rmsprop': {
      const squares = x.moment('squares');
      const mean = squares.set(average(b, squares.old, b.mul(x.direction, x.direction), spec.alpha ?? 0.99));
      const scaled = b.div(x.direction, b.add(b.unary('sqrt', mean), spec.eps ?? 1e-8));
      return b.sub(weight, b.mul(x.centre(spec.momentum ? withMomentum(x, { momentum: spec.momentum }, scaled) : scaled), rate));
    }
  }
}

interface Momentum { readonly momentum?: number; readonly dampening?: number; readonly nesterov?: boolean }

/** buf = momentum · buf + (1 - dampening) · d, the first time d itself; Nesterov's form looks one step ahead. */
function withMomentum({ b, count, moment }: RuleContext, { momentum = 0, dampening = 0, nesterov = false }: Momentum, d: Value): Value {
  if (momentum === 0) return d;
  const buffer = moment('momentum');
  const share = dampening === 0 ? d : b.mul(d, b.select(b.binary('eq', count, 1), 1, b.scalar(1 - dampening, d.type.dtype)));
  const next = buffer.set(b.add(b.mul(buffer.old, momentum), share));
  return nesterov ? b.add(d, b.mul(next, momentum)) : next;
}

/** (g + decay · w) · trust · |w| / (|g| + decay · |w|): You et al., arXiv 1708.03888, by the norms of each tensor. */
function trusted({ b, weight, direction, decay }: RuleContext, trust: number): Value {
  const [w, g] = [norm(b, weight), norm(b, direction)];
  const ratio = b.div(b.mul(w, trust), b.add(b.add(g, b.mul(w, decay)), 1e-8));
  const decayed = decay === 0 ? direction : b.add(direction, b.mul(weight, decay));
  return b.mul(decayed, whereBothPositive(b, w, g, ratio));
}

type Adam = Extract<OptimizerSpec, { readonly kind: 'adam' | 'adamw' | 'lamb' }>;

/** Moments, and their powers: 1 - β^t, computed so that no digits cancel. */
function moments({ b, direction, moment, count }: RuleContext, { betas: [b1, b2] = [0.9, 0.999] }: Adam): { m: Value; v: Value; c1: Value; c2: Value } {
  const [first, second] = [moment('m'), moment('v')];
  const remaining = (beta: number): Value => b.neg(b.unary('expm1', b.mul(count, Math.log(beta))));
  return {
    m: first.set(average(b, first.old, direction, b1)),
    v: second.set(average(b, second.old, b.mul(direction, direction), b2)),
    c1: remaining(b1),
    c2: remaining(b2),
  };
}

/** m̂ / (√v̂ + ε), as Kingma and Ba have it. */
function standardRatio(x: RuleContext, spec: Adam): Value {
  const { b } = x;
  const { m, v, c1, c2 } = moments(x, spec);
  return b.div(b.div(m, c1), b.add(b.div(b.unary('sqrt', v), b.unary('sqrt', c2)), spec.eps ?? (spec.kind === 'lamb' ? 1e-6 : 1e-8)));
}

/** √(1 - β₂^t) / (1 - β₁^t) · (decay · w + m / (√v + ε)): the AdamW of the authors of gradient centralization. */
function authorRatio(x: RuleContext, spec: Adam): Value {
  const { b } = x;
  const { m, v, c1, c2 } = moments(x, spec);
  const ratio = b.div(m, b.add(b.unary('sqrt', v), spec.eps ?? 1e-8));
  return b.mul(spec.kind === 'adam' ? ratio : decoupled(x, ratio), b.div(b.unary('sqrt', c2), c1));
}

const decoupled = ({ b, weight, decay }: RuleContext, delta: Value): Value => (decay === 0 ? delta : b.add(delta, b.mul(weight, decay)));
/** share · old + (1 - share) · now. */
const average = (b: Builder, old: Value, now: Value, share: number): Value => b.add(b.mul(old, share), b.mul(now, 1 - share));
/** A ratio of norms, 1 where one of them is 0. */
const whereBothPositive = (b: Builder, p: Value, q: Value, ratio: Value): Value => b.select(b.binary('gt', b.min(p, q), 0), ratio, 1);
