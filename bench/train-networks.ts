/** The networks of training benchmarks, as ONNX models with fixed pseudo-random weights. */
import { encodeModel, node, raw, value, type TestNode } from '../test/onnx-encode.ts';

export interface Weight {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** A network with the weights that it starts from; `torch` says how bench/train-step.py builds the same. */
export interface Network {
  readonly name: string;
  readonly model: Uint8Array;
  readonly weights: readonly Weight[];
  /** Shape of a batch, and number of classes. */
  readonly input: readonly [number, number, number, number];
  readonly classes: number;
  readonly torch: { readonly kind: 'convnet' } | { readonly kind: 'resnet20'; readonly norm: 'batch' | 'group' };
}

/** Numbers in [-1, 1), the same on every machine. */
export function numbers(count: number, seed: number): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31) - 1;
  });
}

/** Collects nodes and weights; each method returns the name of its result. */
class Net {
  readonly nodes: TestNode[] = [];
  readonly weights: Weight[] = [];
  readonly constants: Weight[] = [];
  readonly #seed: number;
  #values = 0;

  constructor(seed = 0) {
    this.#seed = seed;
  }
  op(op: string, inputs: readonly string[], attributes: TestNode['attributes'] = {}): string {
    const out = `v${this.#values++}`;
    this.nodes.push(node(op, inputs, [out], attributes));
    return out;
  }
  #weight(name: string, shape: readonly number[], make: (i: number) => number): string {
    this.weights.push({ name, shape, data: Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => make(i)) });
    return name;
  }
  #random(name: string, shape: readonly number[], fanIn: number): string {
    const values = numbers(shape.reduce((n, d) => n * d, 1), 1000 * this.#seed + this.weights.length + 1);
    return this.#weight(name, shape, (i) => values[i]! / Math.sqrt(fanIn));
  }
  conv(x: string, name: string, [inputs, outputs, kernel, stride]: readonly [number, number, number, number], bias: boolean): string {
    const w = this.#random(`${name}.weight`, [outputs, inputs, kernel, kernel], inputs * kernel * kernel);
    const b = bias ? [this.#random(`${name}.bias`, [outputs], inputs * kernel * kernel)] : [];
    const pad = (kernel - 1) / 2;
    return this.op('Conv', [x, w, ...b], { kernel_shape: [kernel, kernel], strides: [stride, stride], pads: [pad, pad, pad, pad] });
  }
  linear(x: string, name: string, inputs: number, outputs: number): string {
    return this.op('Gemm', [x, this.#random(`${name}.weight`, [outputs, inputs], inputs), this.#random(`${name}.bias`, [outputs], inputs)], { transB: 1 });
  }
  norm(x: string, name: string, channels: number, kind: 'batch' | 'group'): string {
    const scale = this.#weight(`${name}.weight`, [channels], () => 1);
    const shift = this.#weight(`${name}.bias`, [channels], () => 0);
    if (kind === 'group') return this.op('GroupNormalization', [x, scale, shift], { num_groups: 4, epsilon: 1e-5 });
    const mean = this.#weight(`${name}.running_mean`, [channels], () => 0);
    const variance = this.#weight(`${name}.running_var`, [channels], () => 1);
    const out = `v${this.#values++}`;
    this.nodes.push(node('BatchNormalization', [x, scale, shift, mean, variance], [out, `${out}.mean`, `${out}.var`], { epsilon: 1e-5, momentum: 0.9, training_mode: 1 }));
    return out;
  }
  finish(logits: string, name: string, input: Network['input'], torch: Network['torch']): Network {
    const last = this.nodes.at(-1)!;
    this.nodes[this.nodes.length - 1] = { ...last, outputs: ['logits'] };
    const model = encodeModel({
      name: 'net', nodes: this.nodes, inputs: [value('x', 'f32', input)], outputs: [value('logits', 'f32', [input[0], 10])],
      initializers: this.weights.map((w) => raw(w.name, 'f32', w.shape, w.data)),
    });
    return { name, model, weights: this.weights, input, classes: 10, torch };
  }
}

/** Two 3x3 convolutions (32, 64), each with relu and a 2x2 max pool, and linear layers of 128 and 10. */
export function convnet(): Network {
  const net = new Net();
  let x = 'x';
  for (const [i, [inputs, outputs]] of ([[1, 32], [32, 64]] as const).entries()) {
    x = net.op('Relu', [net.conv(x, `conv${i + 1}`, [inputs, outputs, 3, 1], true)]);
    x = net.op('MaxPool', [x], { kernel_shape: [2, 2], strides: [2, 2] });
  }
  x = net.op('Relu', [net.linear(net.op('Flatten', [x], { axis: 1 }), 'fc1', 3136, 128)]);
  return net.finish(net.linear(x, 'fc2', 128, 10), 'convnet, batch 128 of 1x28x28', [128, 1, 28, 28], { kind: 'convnet' });
}

/** Two 3x3 convolutions (8, 16), each with norm, relu and a 2x2 max pool, and linear layers of 32 and 10, for 1x28x28; its weights follow from a seed. */
export function smallNet(norm: 'batch' | 'group', seed: number, batch: number): Pick<Network, 'name' | 'model' | 'weights'> {
  const net = new Net(seed);
  let x = 'x';
  for (const [i, [inputs, outputs]] of ([[1, 8], [8, 16]] as const).entries()) {
    x = net.op('Relu', [net.norm(net.conv(x, `conv${i + 1}`, [inputs, outputs, 3, 1], false), `norm${i + 1}`, outputs, norm)]);
    x = net.op('MaxPool', [x], { kernel_shape: [2, 2], strides: [2, 2] });
  }
  x = net.op('Relu', [net.linear(net.op('Flatten', [x], { axis: 1 }), 'fc1', 784, 32)]);
  return net.finish(net.linear(x, 'fc2', 32, 10), `small net, ${norm} norm`, [batch, 1, 28, 28], { kind: 'convnet' });
}

/** ResNet-20 for 32x32 images (He et al. 2015), with projections where the shape changes. */
export function resnet20(norm: 'batch' | 'group', batch = 64): Network {
  const net = new Net();
  let x = net.op('Relu', [net.norm(net.conv('x', 'conv1', [3, 16, 3, 1], false), 'norm1', 16, norm)]);
  let channels = 16;
  for (const [s, outputs] of [16, 32, 64].entries()) {
    for (let b = 0; b < 3; b++) {
      const stride = s > 0 && b === 0 ? 2 : 1;
      const name = `stage${s + 1}.${b}`;
      let y = net.op('Relu', [net.norm(net.conv(x, `${name}.conv1`, [channels, outputs, 3, stride], false), `${name}.norm1`, outputs, norm)]);
      y = net.norm(net.conv(y, `${name}.conv2`, [outputs, outputs, 3, 1], false), `${name}.norm2`, outputs, norm);
      const short = channels === outputs ? x : net.norm(net.conv(x, `${name}.short`, [channels, outputs, 1, stride], false), `${name}.norm3`, outputs, norm);
      x = net.op('Relu', [net.op('Add', [y, short])]);
      channels = outputs;
    }
  }
  x = net.op('Flatten', [net.op('GlobalAveragePool', [x])], { axis: 1 });
  return net.finish(net.linear(x, 'fc', 64, 10), `ResNet-20 with ${norm} norm, batch ${batch} of 3x32x32`, [batch, 3, 32, 32], { kind: 'resnet20', norm });
}
