/** Architectures as ONNX models with seeded weights. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { convnet, randomNetwork } from './convnet.ts';
import { efficientNet, mobilenetV2 } from './inverted-residual.ts';
import { Network, type Flow, type ZooModel } from './network.ts';
import { nfnet, nfnetSizes, nfnetSpec, nfResnet } from './normalizer-free.ts';
import type { ZooNorm } from './norm.ts';
import { resnet, type ResnetSpec } from './resnet.ts';

export { Network, type Flow, type ZooModel } from './network.ts';
export type { ZooNorm } from './norm.ts';
export { initialValues, type Weight } from './weights.ts';

export interface ZooOptions {
  /** 1000 unless given; 10 for networks of small pictures. */
  readonly classes?: number;
  /** Channels, height and width of a picture; the architecture's own unless given (its test resolution). */
  readonly image?: readonly [number, number, number];
  readonly norm?: ZooNorm;
  /** Norms follow the batch, and dropout and stochastic depth are in the graph. */
  readonly training?: boolean;
}

interface Architecture {
  readonly classes: number;
  readonly image: readonly [number, number, number];
  /** Undefined where the network has no normalization. */
  readonly norm: ZooNorm | undefined;
  build(net: Network, x: Flow, norm: ZooNorm, classes: number): Flow;
}

const batch: ZooNorm = { kind: 'batch' };
const photograph = (size: number): readonly [number, number, number] => [3, size, size];

/** Depths of bottlenecks by the number of layers. */
const depths = { 50: [3, 4, 6, 3], 101: [3, 4, 23, 3] } as const;

function resnets(): [string, Architecture][] {
  const of = (name: string, spec: Omit<ResnetSpec, 'version'>, versions: readonly (1 | 2)[] = [1, 2]): [string, Architecture][] => versions.map((version) => [
    version === 1 ? name : `${name}-v2`,
    {
      ...(spec.stem === 'small' ? { classes: 10, image: photograph(32) } : { classes: 1000, image: photograph(224) }), norm: batch,
      build: (net, x, norm, classes) => resnet(net, x, { ...spec, version }, norm, classes),
    },
  ]);
  return [
    ...([20, 32] as const).flatMap((layers) => of(`resnet-${layers}`, { depths: [1, 1, 1].map(() => (layers - 2) / 6), width: 16, block: 'basic', stem: 'small' })),
    ...([50, 101] as const).flatMap((layers) => of(`resnet-${layers}`, { depths: depths[layers], width: 64, block: 'bottleneck', stem: 'photograph' })),
    ...of('resnext-50', { depths: depths[50], width: 64, block: 'bottleneck', stem: 'photograph', groups: 32, groupWidth: 4 }, [1]),
  ];
}

/** Width, depth, dropout, size of pictures, of B0 to B5. */
const efficientSizes = [[1, 1, 0.2, 224], [1, 1.1, 0.2, 240], [1.1, 1.2, 0.3, 260], [1.2, 1.4, 0.3, 300], [1.4, 1.8, 0.4, 380], [1.6, 2.2, 0.4, 456]] as const;

const efficientNets = (): [string, Architecture][] => efficientSizes.flatMap(([width, depth, dropout, size], b) => ([1, 16] as const).map((groupSize): [string, Architecture] => [
  groupSize === 1 ? `efficientnet-b${b}` : `efficientnet-b${b}-g16`,
  {
    classes: 1000, image: photograph(size), norm: batch,
    build: (net, x, norm, classes) => efficientNet(net, x, { width, depth, dropout, groupSize, norm: b === 5 ? { epsilon: 1e-3, momentum: 0.99 } : {} }, norm, classes),
  },
]));

const nfnets = (): [string, Architecture][] => nfnetSizes.map(({ test }, size) => [
  `nfnet-f${size}`, { classes: 1000, image: photograph(test), norm: undefined, build: (net, x, _, classes) => nfnet(net, x, nfnetSpec(size), classes) },
]);

const nfResnets = (): [string, Architecture][] => ([50, 101] as const).map((layers) => [
  `nf-resnet-${layers}`,
  { classes: 1000, image: photograph(224), norm: undefined, build: (net, x, _, classes) => nfResnet(net, x, { depths: depths[layers], width: 256, stem: 'photograph' }, classes) },
]);

const architectures: ReadonlyMap<string, Architecture> = new Map<string, Architecture>([
  ...resnets(), ...efficientNets(), ...nfnets(), ...nfResnets(),
  ['mobilenet-v2', { classes: 1000, image: photograph(224), norm: batch, build: mobilenetV2 }],
  ['convnet', { classes: 10, image: [1, 28, 28], norm: batch, build: (net, x, norm, classes) => convnet(net, x, { widths: [32, 64], dropout: 0.25, norm, classes }) }],
]);

/** Names of the architectures. */
export const zooNames: readonly string[] = [...architectures.keys()];

/** An architecture as plain ONNX; its weights have still to be drawn. What does not fit is a UserError. Hyphens in names may be left out. */
export function zooModel(name: string, options: ZooOptions = {}): ZooModel {
  const plain = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const key = zooNames.find((n) => plain(n) === plain(name));
  if (key === undefined) throw new UserError(`there is no architecture "${name}"; there are ${zooNames.join(', ')}`);
  const found = architectures.get(key)!;
  if (options.norm && !found.norm) throw new Unsupported(`a norm in ${key}`, `${key} has no normalization that --norm could replace: it standardizes its weights`);
  const net = new Network(options.training ?? false);
  const x = net.input(options.image ?? found.image);
  return net.finish(key, found.build(net, x, options.norm ?? found.norm ?? { kind: 'none' }, options.classes ?? found.classes));
}

/** The random network of `depth` layers for pictures of the given shape; see convnet.ts. */
export function randomModel(depth: number, image: readonly [number, number, number], norm: ZooNorm = batch): ZooModel {
  const net = new Network(true);
  return net.finish(`random-${depth}`, randomNetwork(net, net.input(image), depth, norm), 'out');
}
