/** Normalizer-free networks: NF-ResNet (Brock et al., arXiv 2101.08692) and NFNet (arXiv 2102.06171). Names of weights are timm's. */
import { scaledActivation, type Activation } from './activations.ts';
import type { ConvOptions, Flow, Network } from './network.ts';
import { squeezeExcite } from './squeeze-excite.ts';
import { unitNormal } from './weights.ts';

/** Share of a branch in the sum. */
const alpha = 0.2;
/** Least variance · fan-in of a weight that is standardized. */
const leastVariance = 1e-4;

/** What a branch's input is divided by, block by block: the deviation that the sums before it give, which starts anew with each stage. */
export function expectedDeviations(depths: readonly number[]): number[][] {
  let deviation = 1;
  return depths.map((depth) => Array.from({ length: depth }, (_, b) => {
    const expected = deviation;
    deviation = Math.sqrt((b === 0 ? 1 : deviation ** 2) + alpha ** 2);
    return expected;
  }));
}

/**
 * A convolution with scaled weight standardization: (w - mean) · gain / sqrt(max(variance · fan-in, 1e-4)) for each output channel. Weights: `name.weight`, `name.gain` [O,1,1,1], `name.bias`.
 */
export function standardizedConv(net: Network, x: Flow, name: string, options: Pick<ConvOptions, 'out' | 'kernel' | 'stride' | 'groups'>): Flow {
  const { out, kernel, groups = 1 } = options;
  const shape = [out, x.shape[0]! / groups, kernel, kernel];
  const fanIn = shape[1]! * kernel * kernel;
  const w = net.weight(`${name}.weight`, shape, unitNormal(fanIn));
  const gain = net.weight(`${name}.gain`, [out, 1, 1, 1], { constant: 1 });
  const op = (kind: string, as: string, ...inputs: readonly Flow[]): Flow => net.node(kind, `${name}.${as}`, inputs, shape);
  const axes = net.indices([1, 2, 3], `${name}.axes`);
  const centred = op('Sub', 'centred', w, op('ReduceMean', 'mean', w, axes));
  // The sum of squares is the variance times the fan-in.
  const squares = op('ReduceSum', 'squares', op('Mul', 'square', centred, centred), axes);
  const deviation = op('Sqrt', 'deviation', op('Max', 'safe', squares, net.constant(leastVariance, `${name}.least`)));
  const standard = op('Mul', 'standard', op('Div', 'unit', centred, deviation), gain);
  return net.conv(x, name, { ...options, pad: 'same', bias: true }, standard);
}

interface Block {
  readonly name: string;
  readonly out: number;
  /** Channels inside the branch, and of one group. */
  readonly middle: number;
  readonly groupWidth: number;
  readonly stride: number;
  readonly deviation: number;
  readonly activation: Activation;
  /** 3x3 convolutions of the branch. */
  readonly spatial: 1 | 2;
  /** A strided shortcut pools first, or strides its convolution. */
  readonly pooledShortcut: boolean;
  /** Hidden channels of the squeeze-and-excite; none without. */
  readonly squeeze: number | undefined;
  /** Stochastic depth. */
  readonly rate: number;
}

/** branch · gain · α + shortcut; `skipinit_gain` starts at 0. */
function block(net: Network, x: Flow, b: Block): Flow {
  const { name, out, middle, stride } = b;
  const act = (v: Flow, as: string): Flow => scaledActivation(net, v, b.activation, 1, `${name}.${as}`);
  const groups = middle / b.groupWidth;
  const h = scaledActivation(net, x, b.activation, 1 / b.deviation, `${name}.act1`);
  const project = stride > 1 || x.shape[0] !== out;
  const pooled = stride > 1 && b.pooledShortcut ? net.pool('AveragePool', h, `${name}.downsample.pool`, { kernel: 2, stride: 2, pad: 'same' }) : h;
  const short = project ? standardizedConv(net, pooled, `${name}.downsample.conv`, { out, kernel: 1, stride: b.pooledShortcut ? 1 : stride }) : x;
  let y = standardizedConv(net, h, `${name}.conv1`, { out: middle, kernel: 1 });
  y = standardizedConv(net, act(y, 'act2'), `${name}.conv2`, { out: middle, kernel: 3, stride, groups });
  if (b.spatial === 2) y = standardizedConv(net, act(y, 'act2b'), `${name}.conv2b`, { out: middle, kernel: 3, groups });
  y = standardizedConv(net, act(y, 'act3'), `${name}.conv3`, { out, kernel: 1 });
  if (b.squeeze !== undefined) y = squeezeExcite(net, y, `${name}.attn_last`, b.squeeze, { activation: 'relu', as: 'linear', factor: 2 });
  y = net.stochasticDepth(y, b.rate, false, `${name}.depth`);
  const gain = net.weight(`${name}.skipinit_gain`, [], { constant: 0 });
  y = net.scale(net.node('Mul', `${name}.skipinit`, [y, gain], y.shape), alpha, `${name}.branch`);
  return net.add(y, short, `${name}.add`);
}

/** Settings of F0 to F6: dropout, and sizes of pictures to train and to test with. */
export const nfnetSizes = [
  { dropout: 0.2, train: 192, test: 256 }, { dropout: 0.3, train: 224, test: 320 }, { dropout: 0.4, train: 256, test: 352 }, { dropout: 0.4, train: 320, test: 416 },
  { dropout: 0.5, train: 384, test: 512 }, { dropout: 0.5, train: 416, test: 544 }, { dropout: 0.5, train: 448, test: 576 },
] as const;
/** Share of blocks that stochastic depth leaves out at the end of the network. */
const depthRate = 0.25;

export interface NfnetSpec {
  /** Blocks and channels of each stage. */
  readonly depths: readonly number[];
  readonly widths: readonly number[];
  /** Channels of a group in 3x3 convolutions. */
  readonly groupWidth: number;
  readonly dropout: number;
}

/** The settings of NFNet-F`size`. */
export const nfnetSpec = (size: number): NfnetSpec => ({ depths: [1, 2, 6, 3].map((d) => d * (size + 1)), widths: [256, 512, 1536, 1536], groupWidth: 128, dropout: nfnetSizes[size]!.dropout });

/** NFNet: gelu, two 3x3 convolutions in groups a block, squeeze-and-excite, stochastic depth, dropout. */
export function nfnet(net: Network, x: Flow, { depths, widths, groupWidth, dropout }: NfnetSpec, classes: number): Flow {
  const act = (v: Flow, name: string): Flow => scaledActivation(net, v, 'gelu', 1, name);
  let y = x;
  for (const [i, [share, stride]] of ([[1 / 16, 2], [1 / 8, 1], [1 / 4, 1], [1 / 2, 2]] as const).entries()) {
    if (i > 0) y = act(y, `stem.act${i + 1}`);
    y = standardizedConv(net, y, `stem.conv${i + 1}`, { out: widths[0]! * share, kernel: 3, stride });
  }
  const deviations = expectedDeviations(depths);
  const blocks = depths.reduce((n, d) => n + d, 0);
  let at = 0;
  for (const [stage, depth] of depths.entries()) {
    const out = widths[stage]!;
    for (let b = 0; b < depth; b++, at++) {
      y = block(net, y, {
        name: `stages.${stage}.${b}`, out, middle: out / 2, groupWidth, stride: stage > 0 && b === 0 ? 2 : 1, deviation: deviations[stage]![b]!, activation: 'gelu', spatial: 2,
        pooledShortcut: true, squeeze: out / 2, rate: (depthRate * at) / blocks,
      });
    }
  }
  y = act(standardizedConv(net, y, 'final_conv', { out: 2 * widths.at(-1)!, kernel: 1 }), 'final_act');
  const pooled = net.dropout(net.flatten(net.globalPool(y, 'head.pool'), 'head.flatten'), dropout, 'head.drop');
  return net.linear(pooled, 'head.fc', classes, { normal: 0.01 });
}

export interface NfResnetSpec {
  readonly depths: readonly number[];
  /** Channels at the end of the first stage; each further stage has twice as many. */
  readonly width: number;
  /** As of a ResNet. */
  readonly stem: 'photograph' | 'small';
}

/** NF-ResNet: bottlenecks of relu with a quarter of the channels inside. */
export function nfResnet(net: Network, x: Flow, { depths, width, stem }: NfResnetSpec, classes: number): Flow {
  let y = standardizedConv(net, x, 'stem.conv', stem === 'photograph' ? { out: width / 4, kernel: 7, stride: 2 } : { out: width / 4, kernel: 3 });
  if (stem === 'photograph') y = net.pool('MaxPool', y, 'stem.pool', { kernel: 3, stride: 2, pad: 'same' });
  const deviations = expectedDeviations(depths);
  for (const [stage, depth] of depths.entries()) {
    for (let b = 0; b < depth; b++) {
      const out = width * 2 ** stage;
      y = block(net, y, {
        name: `stages.${stage}.${b}`, out, middle: out / 4, groupWidth: out / 4, stride: stage > 0 && b === 0 ? 2 : 1, deviation: deviations[stage]![b]!, activation: 'relu', spatial: 1,
        pooledShortcut: false, squeeze: undefined, rate: 0,
      });
    }
  }
  y = scaledActivation(net, y, 'relu', 1, 'final_act');
  return net.linear(net.flatten(net.globalPool(y, 'head.pool'), 'head.flatten'), 'head.fc', classes, { normal: 0.01 });
}
