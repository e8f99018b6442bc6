/**
 * Draws what gradient centralization does on MNIST, as in figures 3 and 4 of Yong et al. (arXiv 2004.01461): norm and largest magnitude of each layer's gradient with and without it, and the losses
 * of batch norm and group norm, each with and without it. Seeds 0 to 4, five epochs over a part of MNIST; writes SVG files and the numbers behind them.
 * npm run figures:gc -- [--data ../shared/datasets/mnist] [-o docs/figures] [--samples 2560] [--epochs 5] [--seeds 5]
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readData } from '../cli/data/files.ts';
import { compile } from '../cli/driver/compile.ts';
import { bestFeatures } from '../cli/model.ts';
import { evaluate } from '../cli/train/evaluate.ts';
import { wantedOf } from '../cli/train/model.ts';
import type { TrainOptions } from '../passes/train/options.ts';
import { batchesOf, standardisation, type Samples } from '../runtime/data/index.ts';
import { loadTrainer } from '../runtime/index.ts';
import { commandLine, stop, text } from './options.ts';
import { writeChart, type Line } from './plot.ts';
import { smallNet } from './train-networks.ts';

const root = new URL('..', import.meta.url).pathname;
const { options } = commandLine('npm run figures:gc', '', { data: text('FOLDER'), output: text('FOLDER'), samples: 2560, epochs: 5, seeds: 5, threads: 2 });
const [data, output] = [options.data ?? join(root, '../shared/datasets/mnist'), options.output ?? join(root, 'docs/figures')];
const { samples: count, epochs, seeds } = options;
const batch = 64;
/** Steps that one point of a curve is the mean of. */
const window = 10;
if (!existsSync(join(data, 'train-images-idx3-ubyte.gz'))) stop(`${data} holds no MNIST (train-images-idx3-ubyte.gz and the like); name its folder with --data`);

/** The first so many samples. */
function part({ x, y, name }: Samples, n: number): Samples {
  const first = (t: Samples['x']): Samples['x'] => ({ ...t, shape: [n, ...t.shape.slice(1)], data: t.data.slice(0, (t.data.length / t.shape[0]!) * n) });
  return { name, x: first(x), y: first(y) };
}
const read = async (set: string, n: number): Promise<Samples> => part(await readData(['images-idx3', 'labels-idx1'].map((f) => join(data, `${set}-${f}-ubyte.gz`)).join(','), { sample: [1, 28, 28] }), n);
const samples = await read('train', count);
const test = await read('t10k', 2048);
const normalisation = standardisation(samples, 1);

interface Run {
  /** By step. */
  readonly losses: readonly number[];
  /** By layer, then by step. */
  readonly norms: ReadonlyMap<string, readonly number[]>;
  readonly largest: ReadonlyMap<string, readonly number[]>;
  readonly accuracy: number;
  readonly testLoss: number;
}

/** Trains one network from one seed. */
async function run(norm: 'batch' | 'group', gc: boolean, seed: number): Promise<Run> {
  const network = smallNet(norm, seed, batch);
  const train: TrainOptions = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9, weightDecay: 5e-4, ...(gc && { gc: {} }) }, gradients: true };
  const artifact = await compile(network.model, { file: network.name, features: [bestFeatures()], train });
  await using trainer = await loadTrainer(artifact, { threads: options.threads });
  const wanted = wantedOf(trainer, train);
  const training = batchesOf(samples, wanted, { seed, normalisation });
  const layers = network.weights.map((w) => w.name).filter((n) => /(conv|fc)\d*\.weight$/.test(n));
  const losses: number[] = [];
  const norms = new Map(layers.map((n) => [n, [] as number[]]));
  const largest = new Map(layers.map((n) => [n, [] as number[]]));
  for (let e = 0; e < epochs; e++) {
    const epoch = training(e);
    for (let b = 0; b < epoch.batches; b++) {
      const { x, y } = epoch.at(b);
      const { loss, outputs } = await trainer.trainStep({ x, y, lr: 0.02 });
      losses.push(loss);
      for (const name of layers) {
        const g = gc ? centred(outputs[`${name}.grad`]!.data as Float32Array, network.weights.find((w) => w.name === name)!.shape[0]!) : (outputs[`${name}.grad`]!.data as Float32Array);
        norms.get(name)!.push(Math.sqrt(g.reduce((n, v) => n + v * v, 0)));
        largest.get(name)!.push(g.reduce((n, v) => Math.max(n, Math.abs(v)), 0));
      }
    }
  }
  const { loss, accuracy } = await evaluate(trainer, batchesOf(test, wanted, { shuffle: false, rest: 'pad', normalisation })(0), train.loss, { x: 'x', y: 'y' });
  return { losses, norms, largest, accuracy: accuracy!, testLoss: loss };
}

/** What the step moves weights by: the raw gradient less the mean of each unit, of which there are `units`. */
function centred(gradient: Float32Array, units: number): Float32Array {
  const size = gradient.length / units;
  const means = Array.from({ length: units }, (_, u) => gradient.subarray(u * size, (u + 1) * size).reduce((n, v) => n + v, 0) / size);
  return gradient.map((v, i) => v - means[Math.floor(i / size)]!);
}

const kinds = [['BN', 'batch', false], ['BN+GC', 'batch', true], ['GN', 'group', false], ['GN+GC', 'group', true]] as const;
const runs = new Map<string, Run[]>();
for (const [name, norm, gc] of kinds) {
  const own: Run[] = [];
  for (let seed = 0; seed < seeds; seed++) own.push(await run(norm, gc, seed));
  runs.set(name, own);
  console.log(`${name.padEnd(6)} last epoch's loss ${spreadOf(own.map(({ losses }) => mean(losses.slice(-losses.length / epochs))))}, test loss ${spreadOf(own.map((r) => r.testLoss))}, test accuracy ${spreadOf(own.map((r) => 100 * r.accuracy), 2)} %`);
}

/** One line: the mean over seeds at every window of steps, and the range of seeds behind it. */
function line(name: string, curves: readonly (readonly number[])[], dashed = false): Line {
  const points = Array.from({ length: Math.floor(curves[0]!.length / window) }, (_, k) => {
    const seen = curves.map((c) => mean(c.slice(k * window, (k + 1) * window)));
    return { x: (k + 1) * window, y: mean(seen), low: Math.min(...seen), high: Math.max(...seen) };
  });
  return { name, points: points.map((p) => [p.x, p.y] as const), band: points.map((p) => [p.x, p.low, p.high] as const), ...(dashed && { dashed }) };
}

mkdirSync(output, { recursive: true });
const layers = [...runs.get('BN')![0]!.norms.keys()];
const gradients = (norm: 'BN' | 'GN', of: 'norms' | 'largest'): { title: string; x: string; y: string; lines: Line[] }[] => layers.map((layer) => ({
  title: `${layer}, ${of === 'norms' ? 'norm' : 'largest magnitude'}`, x: 'step', y: '',
  lines: [line(norm, runs.get(norm)!.map((r) => r[of].get(layer)!)), line(`${norm}+GC`, runs.get(`${norm}+GC`)!.map((r) => r[of].get(layer)!), true)],
}));
for (const norm of ['BN', 'GN'] as const) {
  const panels = layers.flatMap((_, i) => [gradients(norm, 'norms')[i]!, gradients(norm, 'largest')[i]!]);
  writeChart(join(output, `gc-gradients-${norm.toLowerCase()}.svg`), `Gradients of each layer, ${norm} and ${norm}+GC, MNIST, seeds 0 to ${seeds - 1}`, panels);
}
writeChart(join(output, 'gc-losses.svg'), `Training loss on MNIST, seeds 0 to ${seeds - 1}`, [
  { title: 'batch norm', x: 'step', y: 'loss', lines: [line('BN', runs.get('BN')!.map((r) => r.losses)), line('BN+GC', runs.get('BN+GC')!.map((r) => r.losses), true)] },
  { title: 'group norm', x: 'step', y: 'loss', lines: [line('GN', runs.get('GN')!.map((r) => r.losses)), line('GN+GC', runs.get('GN+GC')!.map((r) => r.losses), true)] },
]);
const rows = [...runs].flatMap(([name, own]) => own.map((r, seed) => [name, seed, mean(r.losses.slice(-r.losses.length / epochs)), r.testLoss, r.accuracy, ...layers.flatMap((l) => [mean(r.norms.get(l)!), mean(r.largest.get(l)!)])].join(',')));
writeFileSync(join(output, 'gc.csv'), `${['kind', 'seed', 'last_epoch_loss', 'test_loss', 'test_accuracy', ...layers.flatMap((l) => [`${l}.norm`, `${l}.max`])].join(',')}\n${rows.join('\n')}\n`);
console.log(`wrote gc-gradients-bn.svg, gc-gradients-gn.svg, gc-losses.svg and gc.csv to ${output}, ${readFileSync(join(output, 'gc.csv'), 'utf8').trim().split('\n').length - 1} runs`);

function mean(xs: readonly number[]): number {
  return xs.reduce((n, v) => n + v, 0) / xs.length;
}
/** Mean, least and largest. */
function spreadOf(xs: readonly number[], digits = 4): string {
  return `${mean(xs).toFixed(digits)} (${Math.min(...xs).toFixed(digits)} to ${Math.max(...xs).toFixed(digits)})`;
}
