/** Normalizations of an architecture, and the activations that follow them. */
import { UserError } from '../../ir/diagnostic.ts';
import { normalQuantiles } from '../../ir/gaussian.ts';
import { activate, type Activation } from './activations.ts';
import type { Flow, Network } from './network.ts';

/** Which normalization an architecture is built with. */
export interface ZooNorm {
  /** `frozen`: batch norm by its running statistics, in training too; `none`: scale and shift alone. */
  readonly kind: 'group' | 'layer' | 'instance' | 'batch' | 'frozen' | 'none';
  /** Of `group`; a layer with fewer channels has a group for each. */
  readonly groups?: number;
  /** Added to the variance; the architecture's own for batch norms, else 1e-3. */
  readonly epsilon?: number;
  /** Proxy Norm (Labatie et al., arXiv 2106.03743) behind each activation that follows a norm. */
  readonly proxy?: { readonly samples?: number; readonly epsilon?: number; readonly centerOnly?: boolean };
}

export interface NormOptions {
  readonly activation?: Activation;
  /** Of batch norms. */
  readonly epsilon?: number;
  /** Share of the old running statistic that an update keeps. */
  readonly momentum?: number;
  /** What running statistics are called; after the norm unless given. */
  readonly statistics?: string;
}

/**
 * A norm over channels with its activation. Weights: `name.weight`, `name.bias`, of a batch norm `name.running_mean` and `name.running_var`, of a proxy `name.proxy_gamma` and
 * `name.proxy_beta`.
 */
export function normAct(net: Network, x: Flow, name: string, norm: ZooNorm, options: NormOptions = {}): Flow {
  const { activation } = options;
  const u = normalized(net, x, name, norm, options);
  if (!activation) return u;
  const active = activate(net, u, activation, `${name}.act`);
  return norm.proxy ? proxied(net, active, name, activation, norm.proxy) : active;
}

function normalized(net: Network, x: Flow, name: string, norm: ZooNorm, { activation, epsilon = 1e-5, momentum = 0.9, statistics = name }: NormOptions): Flow {
  const channels = x.shape[0]!;
  const scale = net.weight(`${name}.weight`, [channels], { constant: 1 });
  const shift = norm.proxy?.centerOnly && !activation
    ? net.constant({ dtype: 'f32', shape: [channels], data: new Float32Array(channels) }, `${name}.zero`)
    : net.weight(`${name}.bias`, [channels], { constant: 0 });
  const each = (v: Flow, as: string): Flow => perChannel(net, v, x.shape.length, `${name}.${as}`);
  switch (norm.kind) {
    case 'batch':
    case 'frozen': {
      const mean = net.weight(`${statistics}.running_mean`, [channels], { constant: 0 }, true);
      const variance = net.weight(`${statistics}.running_var`, [channels], { constant: 1 }, true);
      const training = net.training && norm.kind === 'batch';
      const attributes = { epsilon: { float: norm.epsilon ?? epsilon }, momentum: { float: momentum }, ...(training && { training_mode: 1 }) };
      const [y] = net.nodes('BatchNormalization', name, [x, scale, shift, mean, variance], training ? 3 : 1, attributes);
      return { name: y!, shape: x.shape };
    }
    case 'none':
      return net.node('Add', `${name}.shifted`, [net.node('Mul', `${name}.scaled`, [x, each(scale, 'scale')], x.shape), each(shift, 'shift')], x.shape);
    case 'instance':
      return net.node('InstanceNormalization', name, [x, scale, shift], x.shape, { epsilon: { float: norm.epsilon ?? 1e-3 } });
    case 'layer':
    case 'group': {
      const groups = norm.kind === 'layer' ? 1 : Math.min(norm.groups ?? 1, channels);
      if (channels % groups !== 0) throw new UserError(`${name} has ${channels} channels, which do not divide into ${groups} groups; give one of ${divisors(channels).join(', ')}`);
      return net.node('GroupNormalization', name, [x, scale, shift], x.shape, { num_groups: groups, epsilon: { float: norm.epsilon ?? 1e-3 } });
    }
  }
}

/** (active - mean) / deviation of the activation under the proxy: quadrature over mid-point quantiles of parameters alone. */
function proxied(net: Network, active: Flow, name: string, activation: Activation, { samples = 200, epsilon = 0.03 }: NonNullable<ZooNorm['proxy']>): Flow {
  const channels = active.shape[0]!;
  const rank = active.shape.length;
  const own = `${name}.proxy`;
  const each = (v: Flow, as: string): Flow => perChannel(net, v, rank, `${own}.${as}`);
  const weight = (suffix: string, start: number): Flow => net.weight(`${name}.${suffix}`, [channels], { constant: start });
  const quantiles = net.constant({ dtype: 'f32', shape: [samples, ...active.shape.map(() => 1)], data: Float32Array.from(normalQuantiles(samples)) }, `${own}.quantiles`);
  const shape = [channels, ...active.shape.slice(1).map(() => 1)];
  const op = (kind: string, as: string, ...inputs: readonly Flow[]): Flow => net.node(kind, `${own}.${as}`, inputs, shape);
  const deviation = op('Add', 'deviation', each(weight('proxy_gamma', 0), 'gamma'), net.constant(1, `${own}.one`));
  const normal = op('Add', 'normal', op('Mul', 'spread', quantiles, deviation), each(weight('proxy_beta', 0), 'beta'));
  const affine = op('Add', 'shifted', op('Mul', 'scaled', normal, each(weight('weight', 1), 'scale')), each(weight('bias', 0), 'shift'));
  const values = activate(net, affine, activation, `${own}.act`);
  const axes = net.indices([0], `${own}.axes`);
  const mean = net.node('ReduceMean', `${own}.mean`, [values, axes], shape);
  const centred = op('Sub', 'centred', values, mean);
  const variance = net.node('ReduceMean', `${own}.variance`, [op('Mul', 'squares', centred, centred), axes], shape);
  const inverse = op('Reciprocal', 'inverse', op('Sqrt', 'root', op('Add', 'safe', variance, net.constant(epsilon, `${own}.epsilon`))));
  return net.node('Mul', `${own}.out`, [net.node('Sub', `${own}.free`, [active, mean], active.shape), inverse], active.shape);
}

/** A value a channel, to broadcast over n and space. */
const perChannel = (net: Network, v: Flow, rank: number, name: string): Flow =>
  net.node('Reshape', name, [v, net.indices([1, v.shape[0]!, ...new Array<number>(rank - 1).fill(1)], `${name}.form`)], [v.shape[0]!, ...new Array<number>(rank - 1).fill(1)]);

const divisors = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
