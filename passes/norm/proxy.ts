/** Proxy Norm (Labatie et al., arXiv 2106.03743): the moments of an activation under a Gaussian proxy of its input, from parameters alone. */
import type { Builder } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import { normalQuantiles } from '../../ir/gaussian.ts';
import type { Value } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';

/** What a proxy is made of; all values have one element a channel. */
export interface Proxy {
  readonly gamma: Value;
  readonly beta: Value;
  /** γ̃ and β̃: the proxy is normal with mean β̃ and deviation 1 + γ̃. */
  readonly proxyGamma: Value;
  readonly proxyBeta: Value;
  /** Quantiles that stand for the distribution. */
  readonly samples: number;
  readonly epsilon: number;
}

/**
 * Mean and reciprocal deviation of φ(γY + β), Y ~ N(β̃, (1 + γ̃)²), with one element a channel: by quadrature over mid-point quantiles, so that neither data nor random numbers enter.
 * `activate` gets a value of shape [samples, channels, 1...] of the given rank, like an input of the activation.
 */
export function proxyMoments(b: Builder, proxy: Proxy, rank: number, activate: (u: Value) => Value): { readonly mean: Value; readonly scale: Value } {
  const { gamma, beta, proxyGamma, proxyBeta, samples, epsilon } = proxy;
  const channels = gamma.type.shape[0]!;
  const quantiles = b.constant(gaussianQuantiles(samples, rank));
  const z = quantiles.type.dtype === gamma.type.dtype ? quantiles : b.cast(quantiles, gamma.type.dtype);
  const row = (v: Value): Value => b.reshape(v, [1, channels, ...new Array<number>(rank - 2).fill(1)]);
  const normal = b.add(b.mul(z, row(b.add(proxyGamma, 1))), row(proxyBeta));
  const values = activate(b.add(b.mul(normal, row(gamma)), row(beta)));
  const wide = values.type.dtype === 'f64' ? values : b.cast(values, 'f32');
  const [mean, m2] = b.op('moments', [wide], { axes: wide.type.shape.flatMap((_, i) => (i === 1 ? [] : [i])) }) as [Value, Value];
  return { mean, scale: b.unary('rsqrt', b.add(b.div(m2, samples), epsilon)) };
}

/** The quantiles of the standard normal distribution at (k + ½) / count, as f64 of shape [count, 1...]. */
export function gaussianQuantiles(count: number, rank: number): Tensor {
  if (!Number.isInteger(count) || count < 2) throw new UserError(`a proxy of ${count} samples has no variance: norm-samples has to be a whole number of at least 2`);
  return { dtype: 'f64', shape: [count, ...new Array<number>(rank - 1).fill(1)], data: normalQuantiles(count) };
}
