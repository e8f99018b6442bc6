/** Activations, plain and scaled. */
import { UserError } from '../../ir/diagnostic.ts';
import type { Flow, Network } from './network.ts';

export type Activation = 'relu' | 'relu6' | 'silu' | 'gelu';

/** Factors that give an activation of a standard normal variance 1: the table of the NFNet authors (Monte-Carlo values, kept for equal weights). */
const gains: Readonly<Partial<Record<Activation, number>>> = { relu: 1.7139588594436646, relu6: 1.7131484746932983, silu: 1.7881293296813965, gelu: 1.7015043497085571 };

/** φ(x); gelu is the tanh approximation. */
export function activate(net: Network, x: Flow, kind: Activation, name: string): Flow {
  switch (kind) {
    case 'relu':
      return net.node('Relu', name, [x], x.shape);
    case 'relu6':
      return net.node('Clip', name, [x, net.constant(0, `${name}.low`), net.constant(6, `${name}.high`)], x.shape);
    case 'silu':
      return net.node('Mul', name, [x, net.node('Sigmoid', `${name}.gate`, [x], x.shape)], x.shape);
    case 'gelu':
      return net.node('Gelu', name, [x], x.shape, { approximate: 'tanh' });
  }
}

/** φ(x) · gain · factor: what a normalizer-free network has in place of a norm (Brock et al., arXiv 2101.08692). */
export function scaledActivation(net: Network, x: Flow, kind: Activation, factor: number, name: string): Flow {
  const gain = gains[kind];
  if (gain === undefined) throw new UserError(`${kind} has no gain for normalizer-free networks; known are ${Object.keys(gains).join(', ')}`);
  return net.scale(activate(net, x, kind, name), gain * factor, name);
}
