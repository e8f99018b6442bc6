/** Adaptive gradient clipping (Brock et al., arXiv 2102.06171): its λ against the size of the batch, on a small NF-ResNet. */
import { join } from 'node:path';
import { median } from '../../cli/statistics.ts';
import { Network } from '../../frontend/zoo/index.ts';
import { nfResnet } from '../../frontend/zoo/normalizer-free.ts';
import { batchesOf } from '../../runtime/index.ts';
import { writeChart } from '../plot.ts';
import { mnist } from './data.ts';
import { figures, seedsText, spread, writeRuns, writeTable } from './report.ts';
import { Training } from './training.ts';

const epochs = 3;
const batches = [32, 128, 512];
/** Larger than the paper's 0.1 for 256 samples, so that there is something to clip. */
const rate = (batch: number): number => (0.4 * batch) / 256;
const lambdas = [0.01, 0.02, 0.04, 0.08, 0.16, undefined];
const show = (lambda: number | undefined): string => (lambda === undefined ? 'no clipping' : String(lambda));

/** Runs the experiment on the first `samples` pictures. */
export async function clippingExperiment(data: string, seeds: readonly number[], samples: number, tests: number): Promise<void> {
  const train = await mnist(data, 'train', samples);
  const test = await mnist(data, 't10k', tests);
  const found: { readonly seed: number; readonly batch: number; readonly lambda: number | undefined; readonly accuracy: number | undefined }[] = [];
  for (const batch of batches) {
    for (const lambda of lambdas) {
      const net = new Network(true);
      const model = net.finish('digits', nfResnet(net, net.input([1, 28, 28]), { depths: [1, 1], width: 64, stem: 'photograph' }, 10));
      await using training = await Training.of({
        model, batch, epochs, lr: rate(batch),
        train: {
          loss: { kind: 'crossEntropy', labelSmoothing: 0.1, target: 'probabilities' },
          optimizer: { kind: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 2e-5, noDecay: ['*gain', '*.bias'], ...(lambda !== undefined && { agc: { lambda } }) },
        },
      });
      for (const seed of seeds) {
        const state = await training.run(seed, batchesOf(train, { ...training.inputs, classes: 10 }, { seed }));
        found.push({ seed, batch, lambda, accuracy: state && (await training.accuracy(test)) });
        console.error(`seed ${seed}, batch ${batch}, λ ${show(lambda)}: ${state ? `${(100 * found.at(-1)!.accuracy!).toFixed(2)} %` : 'diverged'}`);
      }
    }
  }
  const of = (batch: number, lambda: number | undefined): (number | undefined)[] => found.filter((f) => f.batch === batch && f.lambda === lambda).map((f) => f.accuracy);
  writeRuns('clipping', ['seed', 'batch', 'lambda', 'accuracy'], found.map((f) => [f.seed, f.batch, show(f.lambda), f.accuracy ?? 'diverged']));
  writeTable('clipping', ['λ', ...batches.map((b) => `batch ${b}, rate ${rate(b)}`)], lambdas.map((l) => [show(l), ...batches.map((b) => spread(of(b, l)))]),
    `Test accuracy in %, ${seedsText(seeds)}, after ${epochs} epochs of ${samples} pictures.`);
  const points = (batch: number): [number, number][] => lambdas.flatMap((l): [number, number][] => {
    const runs = of(batch, l).filter((a): a is number => a !== undefined);
    return l === undefined || runs.length === 0 ? [] : [[l, 100 * median(runs)]];
  });
  writeChart(join(figures, 'clipping.svg'), 'Adaptive gradient clipping on a small NF-ResNet', [{ title: 'Test accuracy, median over seeds', x: 'λ', y: 'accuracy, %', log: ['x'], lines: batches.map((b) => ({ name: `batch ${b}`, points: points(b) })) }]);
}
