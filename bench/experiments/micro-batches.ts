/** Norms at small micro-batches: 64 pictures an update, computed a few at a time, with the same extra regularization in every row. */
import { join } from 'node:path';
import { Network, type ZooNorm } from '../../frontend/zoo/index.ts';
import { convnet } from '../../frontend/zoo/convnet.ts';
import { batchesOf } from '../../runtime/index.ts';
import { median } from '../../cli/statistics.ts';
import { writeChart } from '../plot.ts';
import { mnist } from './data.ts';
import { figures, seedsText, spread, writeRuns, writeTable } from './report.ts';
import { Training } from './training.ts';

const [batch, epochs, lr] = [64, 2, 0.05];
const microBatches = [1, 2, 4, 8, 64];
const norms: readonly (readonly [string, ZooNorm])[] = [
  ['batch norm', { kind: 'batch' }], ['group norm', { kind: 'group', groups: 4 }], ['group norm with Proxy Norm', { kind: 'group', groups: 4, proxy: {} }],
  ['layer norm with Proxy Norm', { kind: 'layer', proxy: {} }],
];

/** What the legend of a picture has room for. */
const shortName = (norm: string): string => norm.replace(/(\w)\w* norm/, (_, letter: string) => `${letter.toUpperCase()}N`).replace(' with Proxy Norm', '+PN');

/** Runs the experiment on the first `samples` pictures. */
export async function microBatchExperiment(data: string, seeds: readonly number[], samples: number, tests: number): Promise<void> {
  const train = await mnist(data, 'train', samples);
  const test = await mnist(data, 't10k', tests);
  const found: { readonly seed: number; readonly norm: string; readonly micro: number; readonly accuracy: number }[] = [];
  for (const [name, norm] of norms) {
    for (const micro of microBatches) {
      const net = new Network(true);
      const model = net.finish('digits', convnet(net, net.input([1, 28, 28]), { widths: [16, 32], dropout: 0.25, norm, classes: 10 }));
      await using training = await Training.of({
        model, batch, epochs, lr,
        train: {
          loss: { kind: 'crossEntropy', labelSmoothing: 0.1, target: 'probabilities' }, optimizer: { kind: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 5e-4 },
          ...(micro < batch && { microBatch: micro, ...(norm.kind === 'batch' && { joinWithinMicroBatch: true }) }),
        },
      });
      for (const seed of seeds) {
        await training.run(seed, batchesOf(train, { ...training.inputs, classes: 10 }, { seed, augmentation: { mixup: 0.2 } }));
        found.push({ seed, norm: name, micro, accuracy: await training.accuracy(test) });
        console.error(`seed ${seed}, ${name}, micro-batch ${micro}: ${(100 * found.at(-1)!.accuracy).toFixed(2)} %`);
      }
    }
  }
  const of = (name: string, micro: number): number[] => found.filter((f) => f.norm === name && f.micro === micro).map((f) => f.accuracy);
  writeRuns('micro-batches', ['seed', 'norm', 'micro-batch', 'accuracy'], found.map((f) => [f.seed, f.norm, f.micro, f.accuracy]));
  writeTable('micro-batches', ['', ...microBatches.map((m) => `micro-batch ${m}`)], norms.map(([name]) => [name, ...microBatches.map((m) => spread(of(name, m)))]),
    `Test accuracy in %, ${seedsText(seeds)}, after ${epochs} epochs of ${samples} pictures.`);
  const line = (name: string): { name: string; points: [number, number][]; band: [number, number, number][] } => ({
    name: shortName(name), points: microBatches.map((m) => [m, 100 * median(of(name, m))]), band: microBatches.map((m) => [m, 100 * Math.min(...of(name, m)), 100 * Math.max(...of(name, m))]),
  });
  writeChart(join(figures, 'micro-batches.svg'), 'MNIST at small micro-batches', [
    { title: 'all', x: 'micro-batch', y: 'accuracy, %', log: ['x'], lines: norms.map(([name]) => line(name)) },
    { title: 'without batch norm', x: 'micro-batch', y: 'accuracy, %', log: ['x'], lines: norms.slice(1).map(([name]) => line(name)) },
  ]);
}
