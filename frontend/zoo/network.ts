/** Builds an architecture as plain ONNX nodes: layers know their shapes, so that widths, paddings and fans follow. */
import { UserError } from '../../ir/diagnostic.ts';
import { sizeOf, type Tensor } from '../../ir/type.ts';
import type { PlainAttribute, PlainModel, PlainNode, PlainValue } from '../onnx/write.ts';
import { heNormal, unitNormal, type Init, type Weight } from './weights.ts';

/** Opset of the models: the first whose GroupNormalization has scale and shift a channel. */
const opset = 21;

/** A value of the network: its name and the shape of one sample. */
export interface Flow {
  readonly name: string;
  readonly shape: readonly number[];
}

export type Padding = 'half' | 'same' | 'none';

export interface ConvOptions {
  readonly out: number;
  readonly kernel: number;
  readonly stride?: number;
  readonly groups?: number;
  /** `half`: (kernel - 1) / 2 on each side; `same`: as little as gives ceil(size / stride), the odd one at the end. */
  readonly pad?: Padding;
  readonly bias?: boolean;
  readonly init?: Init;
}

/** A model of the zoo: plain ONNX, whose weights say how they start. */
export type ZooModel = PlainModel<Weight>;

/** Collects nodes and weights. Names of layers are those of the weights (`layer1.0.conv1`); a weight that is asked for twice is shared. */
export class Network {
  /** Norms and dropout work as in training. */
  readonly training: boolean;
  readonly #nodes: PlainNode[] = [];
  readonly #weights = new Map<string, Weight>();
  readonly #inputs: PlainValue[] = [];
  readonly #names = new Set<string>();

  constructor(training: boolean) {
    this.training = training;
  }

  /** An input of n samples. */
  input(shape: readonly number[], name = 'x'): Flow {
    this.#inputs.push({ name, dtype: 'f32', dims: ['n', ...shape] });
    return { name, shape };
  }

  /** A weight of the given shape; one of the same name is the same weight. */
  weight(name: string, shape: readonly number[], init: Init, statistic = false): Flow {
    const before = this.#weights.get(name);
    if (!before) this.#weights.set(name, { name, shape, init, statistic });
    return { name, shape };
  }

  /** A node with one result, called after the node. */
  node(op: string, name: string, inputs: readonly (Flow | string)[], shape: readonly number[], attributes: Readonly<Record<string, PlainAttribute>> = {}): Flow {
    const [out] = this.nodes(op, name, inputs, 1, attributes);
    return { name: out!, shape };
  }

  /** A node with several results; its name, made unique, begins theirs. */
  nodes(op: string, name: string, inputs: readonly (Flow | string)[], results: number, attributes: Readonly<Record<string, PlainAttribute>> = {}): string[] {
    let own = name;
    for (let i = 1; this.#names.has(own); i++) own = `${name}~${i}`;
    this.#names.add(own);
    const outputs = Array.from({ length: results }, (_, i) => (i === 0 ? `${own}.out` : `${own}.out${i}`));
    this.#nodes.push({ op, name: own, inputs: inputs.map((x) => (typeof x === 'string' ? x : x.name)), outputs, attributes });
    return outputs;
  }

  /** A number, or a tensor, that is no weight. */
  constant(value: number | Tensor, name: string): Flow {
    const tensor: Tensor = typeof value === 'number' ? { dtype: 'f32', shape: [], data: Float32Array.of(value) } : value;
    return this.node('Constant', name, [], tensor.shape, { value: { tensor } });
  }

  /** Whole numbers as a vector: a shape, or axes. */
  indices(values: readonly number[], name: string): Flow {
    return this.constant({ dtype: 'i64', shape: [values.length], data: BigInt64Array.from(values, BigInt) }, name);
  }

  /** x · factor; x itself where the factor is 1. */
  scale(x: Flow, factor: number, name: string): Flow {
    return factor === 1 ? x : this.node('Mul', `${name}.scale`, [x, this.constant(factor, `${name}.factor`)], x.shape);
  }

  add(a: Flow, b: Flow, name: string): Flow {
    return this.node('Add', name, [a, b], a.shape);
  }

  /** A convolution whose weight (`name.weight`) and bias (`name.bias`) are as given, or new. */
  conv(x: Flow, name: string, options: ConvOptions, weight?: Flow): Flow {
    const { out, kernel, stride = 1, groups = 1, pad = 'half', bias = false, init = heNormal((out * kernel * kernel)) } = options;
    const [channels, ...space] = x.shape as [number, number, number];
    if (channels % groups !== 0 || out % groups !== 0) throw new UserError(`${name}: ${groups} groups divide neither ${channels} nor ${out} channels evenly`);
    const w = weight ?? this.weight(`${name}.weight`, [out, channels / groups, kernel, kernel], init);
    const b = bias ? [this.weight(`${name}.bias`, [out], { constant: 0 })] : [];
    const { pads, sizes } = windows(space, kernel, stride, pad);
    return this.node('Conv', name, [x, w, ...b], [out, ...sizes], { kernel_shape: [kernel, kernel], strides: [stride, stride], pads, ...(groups > 1 && { group: groups }) });
  }

  pool(kind: 'MaxPool' | 'AveragePool', x: Flow, name: string, { kernel, stride, pad = 'half' }: { readonly kernel: number; readonly stride: number; readonly pad?: Padding }): Flow {
    const [channels, ...space] = x.shape as [number, ...number[]];
    const { pads, sizes } = windows(space, kernel, stride, pad);
    return this.node(kind, name, [x], [channels, ...sizes], { kernel_shape: [kernel, kernel], strides: [stride, stride], pads });
  }

  /** The mean over all positions, as a 1x1 image. */
  globalPool(x: Flow, name: string): Flow {
    return this.node('GlobalAveragePool', name, [x], [x.shape[0]!, ...x.shape.slice(1).map(() => 1)]);
  }

  flatten(x: Flow, name: string): Flow {
    return this.node('Flatten', name, [x], [sizeOf(x.shape)], { axis: 1 });
  }

  /** x·wᵀ + b, of vectors. */
  linear(x: Flow, name: string, out: number, init: Init = unitNormal(x.shape[0]!), bias: Init = { constant: 0 }): Flow {
    const w = this.weight(`${name}.weight`, [out, x.shape[0]!], init);
    return this.node('Gemm', name, [x, w, this.weight(`${name}.bias`, [out], bias)], [out], { transB: 1 });
  }

  /** Dropout in training, nothing else. */
  dropout(x: Flow, ratio: number, name: string): Flow {
    if (!this.training || ratio === 0) return x;
    const training = this.constant({ dtype: 'bool', shape: [], data: Uint8Array.of(1) }, `${name}.training`);
    return this.node('Dropout', name, [x, this.constant(ratio, `${name}.ratio`), training], x.shape);
  }

  /**
   * Stochastic depth (Huang et al., arXiv 1603.09382) in training: leaves whole samples of a branch out with probability `rate`; with `rescale` the others are divided by 1 - rate.
   * The mask is that of a Dropout of ones, so that what switches dropout off switches this off as well.
   */
  stochasticDepth(x: Flow, rate: number, rescale: boolean, name: string): Flow {
    if (!this.training || rate === 0) return x;
    const samples = this.node('Shape', `${name}.samples`, [x], [], { start: 0, end: 1 });
    const shape = this.node('Concat', `${name}.shape`, [samples, this.indices(x.shape.map(() => 1), `${name}.ones`)], [], { axis: 0 });
    const one: Tensor = { dtype: 'f32', shape: [1], data: Float32Array.of(1) };
    const ones = this.node('ConstantOfShape', `${name}.all`, [shape], [], { value: { tensor: one } });
    const training = this.constant({ dtype: 'bool', shape: [], data: Uint8Array.of(1) }, `${name}.training`);
    const [kept, mask] = this.nodes('Dropout', name, [ones, this.constant(rate, `${name}.ratio`), training], 2);
    const factor = rescale ? kept! : this.node('Cast', `${name}.mask`, [mask!], [], { to: 1 }).name;
    return this.node('Mul', `${name}.kept`, [x, factor], x.shape);
  }

  /** The finished model: `result` is its output under the given name. */
  finish(name: string, result: Flow, output = 'logits'): ZooModel {
    const named = this.node('Identity', output, [result], result.shape);
    const nodes = this.#nodes.map((n) => (n.outputs[0] === named.name ? { ...n, outputs: [output] } : n));
    return { name, opset, nodes, weights: [...this.#weights.values()], inputs: this.#inputs, outputs: [{ name: output, dtype: 'f32', dims: ['n', ...result.shape] }] };
  }
}

/** Pads (all beginnings, then all ends) and result sizes of a window over space. */
function windows(space: readonly number[], kernel: number, stride: number, pad: Padding): { readonly pads: readonly number[]; readonly sizes: readonly number[] } {
  const sumOf = (size: number): number => {
    if (pad === 'none') return 0;
    return pad === 'half' ? 2 * Math.floor((kernel - 1) / 2) : Math.max(0, (Math.ceil(size / stride) - 1) * stride + kernel - size);
  };
  const sums = space.map(sumOf);
  const before = sums.map((sum) => Math.floor(sum / 2));
  return { pads: [...before, ...sums.map((sum, i) => sum - before[i]!)], sizes: space.map((size, i) => Math.floor((size + sums[i]! - kernel) / stride) + 1) };
}
