/** Residual networks: ResNet (He et al., arXiv 1512.03385, with strides on the 3x3 convolutions), its second version (arXiv 1603.05027) and ResNeXt (arXiv 1611.05431). */
import type { Activation } from './activations.ts';
import type { Network, Flow } from './network.ts';
import { normAct, type ZooNorm } from './norm.ts';
import type { Init } from './weights.ts';

export interface ResnetSpec {
  /** Blocks of each stage. */
  readonly depths: readonly number[];
  /** Channels of the first stage; each further stage has twice as many. */
  readonly width: number;
  /** Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels at the end. */
  readonly block: 'basic' | 'bottleneck';
  /** For photographs: a 7x7 convolution and a pool, each of stride 2; for small pictures: a 3x3 convolution. */
  readonly stem: 'photograph' | 'small';
  /** 1: activation after the sum; 2: norm and activation before each convolution. */
  readonly version: 1 | 2;
  /** Groups and their width in the first stage, of 3x3 convolutions in bottlenecks. */
  readonly groups?: number;
  readonly groupWidth?: number;
}

/** Builds a network. Names of weights are torchvision's. */
export function resnet(net: Network, x: Flow, spec: ResnetSpec, norm: ZooNorm, classes: number): Flow {
  const { depths, width, stem, version } = spec;
  const act = (v: Flow, name: string, activation?: Activation): Flow => normAct(net, v, name, norm, activation ? { activation } : {});
  let y = stem === 'photograph' ? net.conv(x, 'conv1', { out: width, kernel: 7, stride: 2 }) : net.conv(x, 'conv1', { out: width, kernel: 3 });
  if (version === 1) y = act(y, 'bn1', 'relu');
  if (stem === 'photograph') y = net.pool('MaxPool', y, 'maxpool', { kernel: 3, stride: 2 });
  for (const [stage, depth] of depths.entries()) {
    for (let b = 0; b < depth; b++) {
      const block: Block = { name: `layer${stage + 1}.${b}`, planes: width * 2 ** stage, stride: stage > 0 && b === 0 ? 2 : 1, spec, act };
      y = version === 1 ? blockV1(net, y, block) : blockV2(net, y, block);
    }
  }
  if (version === 2) y = act(y, 'bn', 'relu');
  const pooled = net.flatten(net.globalPool(y, 'avgpool'), 'flatten');
  return net.linear(pooled, 'fc', classes, uniformBy(pooled), uniformBy(pooled));
}

/** What PyTorch starts linear layers with. */
const uniformBy = (x: Flow): Init => ({ uniform: 1 / Math.sqrt(x.shape[0]!) });

interface Block {
  readonly name: string;
  readonly planes: number;
  readonly stride: number;
  readonly spec: ResnetSpec;
  readonly act: (v: Flow, name: string, activation?: Activation) => Flow;
}

/** Convolutions of a block's branch: channels, kernel, stride, groups. */
function convolutions({ planes, stride, spec }: Block): readonly (readonly [out: number, kernel: number, stride: number, groups: number])[] {
  if (spec.block === 'basic') return [[planes, 3, stride, 1], [planes, 3, 1, 1]];
  const { groups = 1, groupWidth = 64 } = spec;
  const middle = Math.floor((planes * groupWidth) / 64) * groups;
  return [[middle, 1, 1, 1], [middle, 3, stride, groups], [4 * planes, 1, 1, 1]];
}

function blockV1(net: Network, x: Flow, block: Block): Flow {
  const { name, stride, act } = block;
  const convs = convolutions(block);
  let y = x;
  for (const [i, [out, kernel, step, groups]] of convs.entries()) {
    y = net.conv(y, `${name}.conv${i + 1}`, { out, kernel, stride: step, groups });
    y = act(y, `${name}.bn${i + 1}`, i < convs.length - 1 ? 'relu' : undefined);
  }
  const out = y.shape[0]!;
  const same = stride === 1 && x.shape[0] === out;
  const project = (): Flow => act(net.conv(x, `${name}.downsample.0`, { out, kernel: 1, stride }), `${name}.downsample.1`);
  const short = same ? x : block.spec.stem === 'small' ? sparse(net, x, out, stride, `${name}.downsample`) : project();
  const sum = net.add(y, short, `${name}.add`);
  return net.node('Relu', `${name}.relu`, [sum], sum.shape);
}

/** The shortcut without weights that networks of small pictures have: every `stride`-th pixel, and zeros for the channels that are new. */
function sparse(net: Network, x: Flow, out: number, stride: number, name: string): Flow {
  const fewer = net.pool('AveragePool', x, `${name}.pool`, { kernel: 1, stride });
  return net.node('Pad', name, [fewer, net.indices([0, 0, 0, 0, 0, out - x.shape[0]!, 0, 0], `${name}.pads`)], [out, ...fewer.shape.slice(1)]);
}

function blockV2(net: Network, x: Flow, block: Block): Flow {
  const { name, stride, act } = block;
  const first = act(x, `${name}.bn1`, 'relu');
  let y = first;
  for (const [i, [out, kernel, step, groups]] of convolutions(block).entries()) {
    if (i > 0) y = act(y, `${name}.bn${i + 1}`, 'relu');
    y = net.conv(y, `${name}.conv${i + 1}`, { out, kernel, stride: step, groups });
  }
  const same = stride === 1 && x.shape[0] === y.shape[0];
  const short = same ? x : net.conv(first, `${name}.downsample`, { out: y.shape[0]!, kernel: 1, stride });
  return net.add(y, short, `${name}.add`);
}
