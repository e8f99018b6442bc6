/** MobileNetV2 (Sandler et al., arXiv 1801.04381) and EfficientNet (Tan and Le, arXiv 1905.11946; groups of 16 channels: arXiv 2106.03640). Names of weights are torchvision's. */
import type { Activation } from './activations.ts';
import type { Flow, Network } from './network.ts';
import { normAct, type NormOptions, type ZooNorm } from './norm.ts';
import { squeezeExcite } from './squeeze-excite.ts';

/** Rounds channels to a multiple of 8, to no less than nine tenths. */
export function roundChannels(x: number): number {
  const rounded = Math.max(8, Math.floor((x + 4) / 8) * 8);
  return rounded < 0.9 * x ? rounded + 8 : rounded;
}

/** Expansion, channels, blocks, stride of the first block. */
const mobilenetStages = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]] as const;

/** MobileNetV2 of width 1. */
export function mobilenetV2(net: Network, x: Flow, norm: ZooNorm, classes: number): Flow {
  const layer = (v: Flow, conv: string, bn: string, options: { readonly out: number; readonly kernel: number; readonly stride?: number; readonly groups?: number }, activation?: Activation): Flow =>
    normAct(net, net.conv(v, conv, options), bn, norm, activation ? { activation } : {});
  let y = layer(x, 'features.0.0', 'features.0.1', { out: 32, kernel: 3, stride: 2 }, 'relu6');
  let place = 1;
  for (const [expansion, out, depth, first] of mobilenetStages) {
    for (let b = 0; b < depth; b++, place++) {
      const stride = b === 0 ? first : 1;
      const name = `features.${place}.conv`;
      const input = y;
      const wide = input.shape[0]! * expansion;
      let at = 0;
      if (expansion > 1) y = layer(y, `${name}.${at}.0`, `${name}.${at++}.1`, { out: wide, kernel: 1 }, 'relu6');
      y = layer(y, `${name}.${at}.0`, `${name}.${at++}.1`, { out: wide, kernel: 3, stride, groups: wide }, 'relu6');
      y = layer(y, `${name}.${at}`, `${name}.${at + 1}`, { out, kernel: 1 });
      if (stride === 1 && input.shape[0] === out) y = net.add(input, y, `${name}.add`);
    }
  }
  y = layer(y, `features.${place}.0`, `features.${place}.1`, { out: 1280, kernel: 1 }, 'relu6');
  const pooled = net.dropout(net.flatten(net.globalPool(y, 'avgpool'), 'flatten'), 0.2, 'classifier.0');
  return net.linear(pooled, 'classifier.1', classes, { normal: 0.01 });
}

export interface EfficientNetSpec {
  readonly width: number;
  readonly depth: number;
  readonly dropout: number;
  /** Of batch norms. */
  readonly norm: NormOptions;
  /** Channels of a group in the middle convolutions: 1 is depthwise. Channels that 16 does not divide get groups of the largest power of two that divides them. */
  readonly groupSize: 1 | 16;
}

/** Expansion, kernel, stride of the first block, channels, blocks, of B0. */
const efficientStages = [[1, 3, 1, 16, 1], [6, 3, 2, 24, 2], [6, 5, 2, 40, 2], [6, 3, 2, 80, 3], [6, 5, 1, 112, 3], [6, 5, 2, 192, 4], [6, 3, 1, 320, 1]] as const;
/** Share of blocks that stochastic depth leaves out at the end of the network. */
const depthRate = 0.2;
/** Groups of 16 channels compute more; the expansion that makes up for it. */
const groupedExpansion = 4;

/** EfficientNet, scaled from B0 by width and depth. */
export function efficientNet(net: Network, x: Flow, spec: EfficientNetSpec, norm: ZooNorm, classes: number): Flow {
  const width = (channels: number): number => roundChannels(channels * spec.width);
  const act = (v: Flow, name: string, activation?: Activation): Flow => normAct(net, v, name, norm, { ...spec.norm, ...(activation && { activation }) });
  const depths = efficientStages.map(([, , , , depth]) => Math.ceil(depth * spec.depth));
  const blocks = depths.reduce((n, d) => n + d, 0);
  let y = act(net.conv(x, 'features.0.0', { out: width(32), kernel: 3, stride: 2 }), 'features.0.1', 'silu');
  let at = 0;
  for (const [stage, [ratio, kernel, first, channels]] of efficientStages.entries()) {
    for (let b = 0; b < depths[stage]!; b++, at++) {
      const name = `features.${stage + 1}.${b}`;
      const [input, out, stride] = [y, width(channels), b === 0 ? first : 1];
      const wide = roundChannels(input.shape[0]! * (spec.groupSize === 16 && ratio > 1 ? groupedExpansion : ratio));
      let part = 0;
      if (wide !== input.shape[0]) y = act(net.conv(y, `${name}.block.${part}.0`, { out: wide, kernel: 1 }), `${name}.block.${part++}.1`, 'silu');
      y = act(net.conv(y, `${name}.block.${part}.0`, { out: wide, kernel, stride, groups: wide / groupWidth(wide, spec.groupSize) }), `${name}.block.${part++}.1`, 'silu');
      y = squeezeExcite(net, y, `${name}.block.${part++}`, Math.max(1, Math.floor(input.shape[0]! / 4)), { activation: 'silu', as: 'conv' });
      y = act(net.conv(y, `${name}.block.${part}.0`, { out, kernel: 1 }), `${name}.block.${part}.1`);
      if (stride === 1 && input.shape[0] === out) y = net.add(net.stochasticDepth(y, (depthRate * at) / blocks, true, `${name}.depth`), input, `${name}.add`);
    }
  }
  const head = 'features.8';
  y = act(net.conv(y, `${head}.0`, { out: 4 * y.shape[0]!, kernel: 1 }), `${head}.1`, 'silu');
  const pooled = net.dropout(net.flatten(net.globalPool(y, 'avgpool'), 'flatten'), spec.dropout, 'classifier.0');
  return net.linear(pooled, 'classifier.1', classes, { uniform: 1 / Math.sqrt(classes) });
}

/** The largest common divisor of channels and a power of two. */
const groupWidth = (channels: number, most: number): number => (channels % most === 0 ? most : groupWidth(channels, most / 2));
