/** The zoo's networks compute what their sources say, and run elsewhere. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkedWeights } from '../cli/new.ts';
import { compile } from '../index.ts';
import { loadTrainer } from '../runtime/index.ts';
import { importModel } from '../frontend/index.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, Network, zooModel, zooNames, type Flow, type ZooModel } from '../frontend/zoo/index.ts';
import { activate } from '../frontend/zoo/activations.ts';
import { expectedDeviations, nfnet, nfResnet, standardizedConv } from '../frontend/zoo/normalizer-free.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Tensor } from '../ir/type.ts';
import { proveBatchIndependence, proofBatches } from '../passes/batch-independence.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { readSafetensors } from '../runtime/safetensors.ts';

/** Runs a model on the interpreter. */
function outputs(bytes: Uint8Array, x: Tensor): Float32Array {
  const { graph } = importModel(bytes, { dims: { n: x.shape[0]! } });
  return evaluate(graph, { x }).outputs.get('logits')!.data as Float32Array;
}

/** Weights that start as a constant hide mistakes (a gain of 1, a branch times 0): here they are drawn around it. */
const lively = (w: ZooModel['weights'][number], seed = 1): Float32Array =>
  w.name.endsWith('running_var') ? initialValues({ ...w, init: { uniform: 0.3 } }, seed).map((v) => 1 + v) : initialValues('constant' in w.init ? { ...w, init: { normal: 0.2, mean: w.init.constant } } : w, seed);

const drawn = (shape: readonly number[], seed = 3): Tensor => ({ dtype: 'f32', shape, data: initialValues({ name: 'x', shape, init: { normal: 1 }, statistic: false }, seed) });

/** Largest difference, as a share of the largest magnitude. */
const difference = (a: Float32Array, b: Float32Array): number => a.reduce((m, v, i) => Math.max(m, Math.abs(v - b[i]!)), 0) / b.reduce((m, v) => Math.max(m, Math.abs(v)), 0);

describe('normalizer-free networks, against PyTorch (test/twins/zoo.py)', () => {
  test.each([
    ['small_nf_resnet', (net: Network, x: Flow): Flow => nfResnet(net, x, { depths: [2, 1], width: 32, stem: 'photograph' }, 4)],
    ['small_nfnet', (net: Network, x: Flow): Flow => nfnet(net, x, { depths: [1, 2], widths: [16, 32], groupWidth: 4, dropout: 0.2 }, 4)],
  ] as const)('%s', async (name, build) => {
    const file = join(import.meta.dirname, `zoo-goldens/${name}.safetensors`);
    const tensors = await readSafetensors(readFileSync(file));
    const net = new Network(false);
    const model = net.finish(name, build(net, net.input([3, 16, 16])));
    const weights = checkedWeights(new Map([...tensors].filter(([key]) => !key.includes('/'))), file, model);
    const got = outputs(onnxBytes(model, (w) => weights.get(w.name)!), tensors.get('input/x') as Tensor);
    expect(difference(got, tensors.get('output/logits')!.data as Float32Array)).toBeLessThan(1e-5);
  });

  test('the expected deviations of F0', () => {
    // The first block of a stage still sees the sums of the stage before it.
    const betas = [[1], [0.980580676, 0.980580676], [0.962250449, 0.980580676, 0.962250449, 0.944911183, 0.928476691, 0.912870929], [0.89802651, 0.980580676, 0.962250449]];
    const found = expectedDeviations([1, 2, 6, 3]).map((stage) => stage.map((d) => 1 / d));
    expect(found.map((s) => s.length)).toEqual(betas.map((s) => s.length));
    found.flat().forEach((beta, i) => expect(beta).toBeCloseTo(betas.flat()[i]!, 8));
  });

  test('scaled weight standardization: [1,2,3,6] with a gain of 1', () => {
    const net = new Network(false);
    // A 1x1 convolution of four unit vectors gives the weight back.
    const model = net.finish('ws', net.flatten(standardizedConv(net, net.input([4, 1, 1]), 'c', { out: 1, kernel: 1 }), 'f'));
    const eye: Tensor = { dtype: 'f32', shape: [4, 4, 1, 1], data: Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0)) };
    const got = outputs(onnxBytes(model, (w) => (w.name === 'c.weight' ? Float32Array.of(1, 2, 3, 6) : initialValues(w, 0))), eye);
    [-0.53452248, -0.26726124, 0, 0.80178373].forEach((v, i) => expect(got[i]).toBeCloseTo(v, 6));
  });
});

test('gelu is the tanh approximation', () => {
  const net = new Network(false);
  const bytes = onnxBytes(net.finish('g', activate(net, net.input([1]), 'gelu', 'g')), (w) => initialValues(w, 0));
  expect(outputs(bytes, { dtype: 'f32', shape: [2, 1], data: Float32Array.of(1, -2) })[0]).toBeCloseTo(0.5 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * 1.044715)), 6);
});

describe('normalizations of the zoo', () => {
  test.each(['group:4+proxy', 'layer+proxy', 'group:2', 'instance', 'layer'] as const)('%s written as ONNX is what the rewrite of a batch norm gives', (text) => {
    const kind = text.split(/[:+]/)[0] as 'group' | 'layer' | 'instance';
    const norm = { kind, ...(/:(\d)/.test(text) && { groups: Number(/:(\d)/.exec(text)![1]) }), ...(text.endsWith('proxy') && { proxy: {} }) };
    const image = [3, 8, 8] as const;
    const own = zooModel('resnet-20-v2', { norm, image });
    const x = drawn([2, ...image]);
    const batch = importModel(onnxBytes(zooModel('resnet-20-v2', { image }), lively), { dims: { n: 2 } });
    const { graph } = rewriteNorms(batch, norm, wasmTarget);
    const state = new Map(graph.state.map((s) => [s.value, own.weights.some((w) => w.name === s.name) ? tensorOf(own, s.name) : (s.init as Tensor)]));
    expect(difference(outputs(onnxBytes(own, lively), x), evaluate(graph, { x }, { state }).outputs.get('logits')!.data as Float32Array)).toBeLessThan(1e-5);
  });

  const tensorOf = (model: ZooModel, name: string): Tensor => {
    const w = model.weights.find((v) => v.name === name)!;
    return { dtype: 'f32', shape: w.shape, data: lively(w) };
  };

  test('layer norm with proxy in the grouped EfficientNet: no sample influences another, in training form too', () => {
    const model = onnxBytes(zooModel('efficientnet-b0-g16', { norm: { kind: 'layer', proxy: {} }, image: [3, 32, 32], classes: 10, training: true }), lively);
    const [a, b] = proofBatches.map((n) => importModel(model, { dims: { n } }).graph);
    expect(proveBatchIndependence(a!, wasmTarget, b)).toEqual({ proved: true });
  });

  test('no architecture has Proxy Norm unasked', () => {
    for (const name of zooNames) expect(zooModel(name).weights.some((w) => w.name.includes('proxy')), name).toBe(false);
  });

  test('what cannot be is refused by name', () => {
    expect(() => zooModel('resnet-51')).toThrow(/no architecture "resnet-51"; there are resnet-20/);
    expect(() => zooModel('nfnet-f0', { norm: { kind: 'layer' } })).toThrow(/nfnet-f0 has no normalization/);
    expect(() => zooModel('resnet-20', { norm: { kind: 'group', groups: 3 } })).toThrow(/bn1 has 16 channels, which do not divide into 3 groups; give one of 1, 2, 4, 8, 16/);
  });
});

describe('in training form', () => {
  const bytes = (seed: number): Uint8Array => {
    const net = new Network(true);
    const x = net.input([2, 1, 1]);
    const kept = net.stochasticDepth(net.add(x, x, 'twice'), 0.5, seed === 1, 'depth');
    return onnxBytes(net.finish('d', net.flatten(kept, 'flat')), (w) => initialValues(w, 0));
  };
  const x = drawn([64, 2, 1, 1]);

  test.each([[0, 2], [1, 4]] as const)('stochastic depth leaves out whole samples; with rescale %i the others are times %i', (rescale, factor) => {
    const got = outputs(bytes(rescale), x);
    const factors = Array.from({ length: 64 }, (_, i) => [0, 1].map((k) => got[2 * i + k]! / (x.data[2 * i + k] as number)));
    for (const [a, b] of factors) expect(Math.abs(a! - b!)).toBeLessThan(1e-5);
    const rounded = factors.map(([a]) => Math.round(a!));
    expect([...new Set(rounded)].sort()).toEqual([0, factor]);
    // Binomial with 64 samples: five deviations.
    expect(Math.abs(rounded.filter((f) => f === 0).length - 32)).toBeLessThan(20);
  });

  test('imported for inference it leaves out nothing', () => {
    const { graph } = importModel(bytes(0), { dims: { n: 64 }, inference: true });
    expect(difference(evaluate(graph, { x }).outputs.get('logits')!.data as Float32Array, (x.data as Float32Array).map((v) => 2 * v))).toBe(0);
  });
});

test('a normalizer-free network trains with adaptive gradient clipping, dropout and stochastic depth', async () => {
  const [classes, batch] = [3, 16];
  const net = new Network(true);
  const y = nfnet(net, net.input([3, 16, 16]), { depths: [1, 2], widths: [16, 32], groupWidth: 4, dropout: 0.2 }, classes);
  const train = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9, nesterov: true, agc: { lambda: 0.1 } } } as const;
  const artifact = await compile(onnxBytes(net.finish('nf', y), (w) => initialValues(w, 0)), { dims: { n: batch }, train, features: ['relaxed'] });
  await using trainer = await loadTrainer(artifact, { threads: 1, lr: 0.05 });
  // Classes that differ by the brightness of one colour.
  const labels = Array.from({ length: batch }, (_, i) => i % classes);
  const pictures = drawn([batch, 3, 16, 16]);
  const x = (pictures.data as Float32Array).map((v, k) => v + (Math.floor(k / 256) % 3 === labels[Math.floor(k / 768)] ? 2 : 0));
  const losses: number[] = [];
  for (let step = 0; step < 30; step++) losses.push((await trainer.trainStep({ x, y: BigInt64Array.from(labels, BigInt) })).loss);
  expect(losses[0]).toBeGreaterThan(0.8);
  // Half of what guessing costs.
  expect(losses.slice(-5).reduce((n, l) => n + l, 0) / 5).toBeLessThan(Math.log(classes) / 2);
  const parameters = await trainer.parameters();
  // Every branch's gain has left 0.
  for (const [name, t] of parameters) if (name.endsWith('skipinit_gain')) expect(Math.abs(Number(t.data[0])), name).toBeGreaterThan(0);
});

describe('onnxruntime gives the same outputs', async () => {
  const ort = await import('onnxruntime-node').catch(() => undefined);
  const runs = test.skipIf(!ort);
  runs.each([
    ['resnet-20', {}], ['resnet-20-v2', { norm: { kind: 'group', groups: 4, proxy: {} } }], ['convnet', {}], ['mobilenet-v2', {}], ['efficientnet-b0-g16', { norm: { kind: 'layer', proxy: {} } }],
  ] as const)('%s %j', async (name, options) => {
    const image = name === 'convnet' ? ([1, 12, 12] as const) : ([3, 32, 32] as const);
    await compare(onnxBytes(zooModel(name, { ...options, image, classes: 5 }), lively), drawn([2, ...image]));
  });
  runs('a normalizer-free network', async () => {
    const net = new Network(false);
    const y = nfnet(net, net.input([3, 16, 16]), { depths: [1, 2], widths: [16, 32], groupWidth: 4, dropout: 0.2 }, 4);
    await compare(onnxBytes(net.finish('nf', y), lively), drawn([2, 3, 16, 16]));
  });

  async function compare(model: Uint8Array, x: Tensor): Promise<void> {
    const session = await ort!.InferenceSession.create(model, { logSeverityLevel: 3, intraOpNumThreads: 1 });
    const { logits } = await session.run({ x: new ort!.Tensor('float32', x.data as Float32Array, [...x.shape]) });
    expect(difference(outputs(model, x), logits!.data as Float32Array)).toBeLessThan(1e-4);
  }
});
