/** Batch normalization with statistics of its own for each domain that samples come from. */
import type { Builder } from '../../ir/builder.ts';
import type { Value } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import type { Running, Statistic } from './find-norms.ts';

/** Domains of samples: which one each belongs to, and where their running statistics are kept. */
export interface Domains {
  readonly count: number;
  /** i64[N]: the domain of each sample, from 0 on. */
  readonly of: Value;
  /** Normalizes by the running statistics. */
  readonly inference: boolean;
  /** Adds state for a norm, once for each name. */
  state(suffix: 'domain_mean' | 'domain_var', init: Tensor): Value;
  /** What a statistic starts from: the model's own, for every domain. */
  start(statistic: Value): Tensor;
}

/**
 * Mean and variance of x[N, C, ...] for each sample, shaped to broadcast to x: those of the samples of its domain in the batch, or of the domain's running statistics in inference.
 * Running statistics are [domains, C]; a domain that a batch lacks keeps its own.
 */
export function byDomain(b: Builder, x: Value, running: Running, momentum: number, domains: Domains): { readonly mean: Value; readonly variance: Value; readonly statistics: readonly Statistic[] } {
  const { shape, dtype } = x.type;
  const [n, channels] = shape as [number, number];
  const each = (v: Value): Value => b.reshape(v, shape.map((d, i) => (i < 2 ? d : 1)));
  const states = [domains.state('domain_mean', domains.start(running.mean)), domains.state('domain_var', domains.start(running.variance))] as const;
  if (domains.inference) {
    const [mean, variance] = states.map((s) => each(b.cast(b.one('gather', [s, domains.of], { axis: 0 }), dtype))) as [Value, Value];
    return { mean, variance, statistics: states.map((state) => ({ state, next: undefined })) };
  }
  const index = b.one('iota', [], { shape: [1, domains.count], axis: 1, dtype: 'i64' });
  const member = b.cast(b.binary('eq', b.reshape(domains.of, [n, 1]), index), dtype);
  const area = shape.slice(2).reduce((p, d) => p * d, 1);
  const count = b.mul(b.reduce('reduceSum', member, [0]), area);
  const divisor = b.reshape(b.max(count, 1), [domains.count, 1]);
  /** Means over the elements of each domain: [domains, C]. */
  const means = (v: Value): Value => b.div(b.contract('nd,nc->dc', member, b.reduce('reduceSum', v, shape.map((_, i) => i).slice(2))), divisor);
  const ofSample = (v: Value): Value => each(b.contract('nd,dc->nc', member, v));
  const mean = means(x);
  const centred = b.sub(x, ofSample(mean));
  const variance = means(b.mul(centred, centred));
  const present = b.binary('gt', b.reshape(count, [domains.count, 1]), 0);
  const next = (state: Value, now: Value): Statistic => {
    const moved = b.add(b.mul(state, momentum), b.mul(b.cast(now, state.type.dtype), 1 - momentum));
    return { state, next: b.select(b.broadcast(present, [domains.count, channels]), moved, state) };
  };
  return { mean: ofSample(mean), variance: ofSample(variance), statistics: [next(states[0], mean), next(states[1], variance)] };
}
