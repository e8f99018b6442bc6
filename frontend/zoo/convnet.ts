/** Small networks of convolutions: one to try things on, and the random one that health is shown on. */
import type { Flow, Network } from './network.ts';
import { normAct, type ZooNorm } from './norm.ts';
import { heNormal } from './weights.ts';

export interface ConvnetSpec {
  /** Channels of each stage. */
  readonly widths: readonly number[];
  /** Before the linear layer. */
  readonly dropout?: number;
  readonly norm: ZooNorm;
  readonly classes: number;
  /** Keeps running statistics of its own under names that end so; weights of networks that differ in nothing else are shared. */
  readonly domain?: string;
}

/** Stages of a 3x3 convolution, norm, relu and a 2x2 pool, then a linear layer. */
export function convnet(net: Network, x: Flow, { widths, dropout = 0, norm, classes, domain = '' }: ConvnetSpec): Flow {
  let y = x;
  for (const [i, out] of widths.entries()) {
    y = normAct(net, net.conv(y, `conv${i + 1}`, { out, kernel: 3 }), `norm${i + 1}`, norm, { activation: 'relu', statistics: `norm${i + 1}${domain}` });
    y = net.pool('MaxPool', y, `pool${i + 1}`, { kernel: 2, stride: 2, pad: 'same' });
  }
  return net.linear(net.dropout(net.flatten(y, 'flatten'), dropout, 'dropout'), 'fc', classes);
}

/**
 * The random network of Labatie et al. (arXiv 2106.03743, figure 2): `depth` times a 3x3 convolution around the edges of the picture, a norm, relu; scales drawn from N(1, 0.2²) and shifts
 * from N(0, 0.2²). It classifies nothing: its result is the last activation.
 */
export function randomNetwork(net: Network, x: Flow, depth: number, norm: ZooNorm): Flow {
  const channels = x.shape[0]!;
  let y = x;
  for (let layer = 1; layer <= depth; layer++) {
    net.weight(`norm${layer}.weight`, [channels], { normal: 0.2, mean: 1 });
    net.weight(`norm${layer}.bias`, [channels], { normal: 0.2 });
    const wrapped = net.node('Pad', `wrap${layer}`, [y, net.indices([0, 0, 1, 1, 0, 0, 1, 1], `wrap${layer}.pads`)], [channels, ...y.shape.slice(1).map((s) => s + 2)], { mode: 'wrap' });
    const wide = net.conv(wrapped, `conv${layer}`, { out: channels, kernel: 3, pad: 'none', init: heNormal(channels * 9) });
    y = normAct(net, wide, `norm${layer}`, norm, { activation: 'relu' });
  }
  return y;
}
