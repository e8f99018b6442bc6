/**
 * Times a training step of the convnet of bench:train against a JavaScript peer that can run it, TensorFlow.js on its CPU backend, from the same weights on the same batch; losses of both are
 * printed. The peer takes minutes for a batch of 128, so both run a smaller one. The peer is no dependency: npm install --no-save @tensorflow/tfjs
 * npm run bench:train-peer -- [--batch 8] [--steps 2] [--threads 2]
 */
import { compile } from '../cli/driver/compile.ts';
import { bestFeatures } from '../cli/model.ts';
import { median } from '../cli/statistics.ts';
import { loadTrainer } from '../runtime/index.ts';
import { commandLine } from './options.ts';
import { convnet, numbers } from './train-networks.ts';

const { options: { batch, steps, threads } } = commandLine('npm run bench:train-peer', '', { batch: 8, steps: 2, threads: 2 });
const rate = 0.01;
const network = convnet();
const pixels = 28 * 28;
const x = numbers(batch * pixels, 77);
const labels = Array.from({ length: batch }, (_, i) => i % network.classes);

/** As much of TensorFlow.js as a step takes. */
interface Tensor { dataSync(): Float32Array }
interface TensorFlow {
  readonly version_core: string;
  setBackend(name: string): Promise<boolean>;
  tensor(data: Float32Array, shape: readonly number[]): Tensor;
  variable(t: Tensor): Tensor;
  oneHot(labels: Tensor, depth: number): Tensor;
  tensor1d(data: readonly number[], dtype: string): Tensor;
  transpose(t: Tensor, perm: readonly number[]): Tensor;
  reshape(t: Tensor, shape: readonly number[]): Tensor;
  conv2d(x: Tensor, w: Tensor, strides: number, pad: string): Tensor;
  maxPool(x: Tensor, size: number, strides: number, pad: string): Tensor;
  relu(x: Tensor): Tensor;
  add(a: Tensor, b: Tensor): Tensor;
  matMul(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Tensor;
  readonly losses: { softmaxCrossEntropy(labels: Tensor, logits: Tensor): Tensor };
  readonly train: { momentum(rate: number, momentum: number): { minimize(f: () => Tensor, returnCost: boolean): Tensor } };
}

const theirs = await timePeer();
const ours = await timeOurs();
const show = (losses: readonly number[]): string => losses.slice(0, 3).map((l) => l.toFixed(5)).join(' ');
console.log(`${network.name.replace(/batch \d+/, `batch ${batch}`)}`);
console.log(`  tilewright, ${threads} threads            ${median(ours.times).toFixed(2)} ms a step, losses ${show(ours.losses)}`);
if (theirs) {
  console.log(`  TensorFlow.js ${theirs.version}, CPU backend  ${median(theirs.times).toFixed(0)} ms a step, losses ${show(theirs.losses)}`);
  console.log(`  ratio ${(median(theirs.times) / median(ours.times)).toFixed(0)}`);
} else console.log('  TensorFlow.js is not installed: npm install --no-save @tensorflow/tfjs');

interface Timing { readonly times: readonly number[]; readonly losses: readonly number[] }

async function timeOurs(): Promise<Timing> {
  const warmUp = 20;
  const artifact = await compile(network.model, { file: network.name, features: [bestFeatures()], train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 }, batch } });
  await using trainer = await loadTrainer(artifact, { threads });
  const times: number[] = [];
  const losses: number[] = [];
  for (let k = 0; k < warmUp + 20; k++) {
    const start = performance.now();
    losses.push((await trainer.trainStep({ x, y: BigInt64Array.from(labels, BigInt), lr: rate })).loss);
    if (k >= warmUp) times.push(performance.now() - start);
  }
  return { times, losses };
}

async function timePeer(): Promise<(Timing & { readonly version: string }) | undefined> {
  const name = '@tensorflow/tfjs';
  let tf: TensorFlow;
  try {
    const module = (await import(name)) as { readonly default?: TensorFlow } & Partial<TensorFlow>;
    tf = (module.default ?? module) as TensorFlow;
  } catch {
    return undefined;
  }
  await tf.setBackend('cpu');
  const weights = new Map(network.weights.map((w) => {
    const t = tf.tensor(w.data, w.shape);
    return [w.name, tf.variable(w.shape.length === 4 ? tf.transpose(t, [2, 3, 1, 0]) : t)];
  }));
  const w = (name: string): Tensor => weights.get(name)!;
  const images = tf.tensor(x, [batch, 28, 28, 1]);
  const wanted = tf.oneHot(tf.tensor1d(labels, 'int32'), network.classes);
  const loss = (): Tensor => {
    let h = images;
    for (const layer of ['conv1', 'conv2']) h = tf.maxPool(tf.relu(tf.add(tf.conv2d(h, w(`${layer}.weight`), 1, 'same'), w(`${layer}.bias`))), 2, 2, 'valid');
    h = tf.reshape(tf.transpose(h, [0, 3, 1, 2]), [batch, 3136]);
    h = tf.relu(tf.add(tf.matMul(h, w('fc1.weight'), false, true), w('fc1.bias')));
    return tf.losses.softmaxCrossEntropy(wanted, tf.add(tf.matMul(h, w('fc2.weight'), false, true), w('fc2.bias')));
  };
  const optimizer = tf.train.momentum(rate, 0.9);
  const times: number[] = [];
  const losses: number[] = [];
  for (let k = 0; k < steps; k++) {
    const start = performance.now();
    losses.push(optimizer.minimize(loss, true).dataSync()[0]!);
    times.push(performance.now() - start);
  }
  return { times, losses, version: tf.version_core };
}
