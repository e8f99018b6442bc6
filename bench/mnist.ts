/**
 * Trains two 3x3 convolutions (32, 64) and two linear layers (128, 10) on MNIST from scratch, and says how many of the 10,000 test images it reads:
 * npm run bench:mnist -- [--data ../shared/datasets/mnist] [--epochs 3] [--threads 2] [--seed 0]
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { commandLine, stop, text } from './options.ts';
import { convnet } from './train-networks.ts';

const root = join(import.meta.dirname, '..');
const { options } = commandLine('npm run bench:mnist', '', { data: text('FOLDER'), epochs: 3, threads: 2, seed: 0 });
const data = options.data ?? join(root, '../shared/datasets/mnist');
const figure = 0.988;
const files = (set: string): string => [`${set}-images-idx3-ubyte.gz`, `${set}-labels-idx1-ubyte.gz`].map((f) => join(data, f)).join(',');
if (!existsSync(join(data, 'train-images-idx3-ubyte.gz'))) stop(`${data} holds no MNIST (train-images-idx3-ubyte.gz and the like); name its folder with --data`);

const folder = mkdtempSync(join(tmpdir(), 'mnist-'));
try {
  const model = join(folder, 'convnet.onnx');
  writeFileSync(model, convnet().model);
  const started = performance.now();
  const { status } = spawnSync(process.execPath, [
    join(root, 'cli/tilewright.js'), 'train', model, '--data', files('train'), '--eval', files('t10k'), '--loss', 'cross-entropy', '--optimizer', 'sgd', '--lr', '0.1', '--momentum', '0.9',
    '--nesterov', '--weight-decay', '5e-4', '--schedule', 'cosine', '--warmup', '0.5', '--standardize', '--epochs', String(options.epochs), '--batch', '128', '--seed', String(options.seed), '--threads', String(options.threads),
    '-o', join(folder, 'trained.onnx'),
  ], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
  const seconds = (performance.now() - started) / 1000;
  const last = readFileSync(join(folder, 'metrics.csv'), 'utf8').trim().split('\n').at(-1)!.split(',');
  const accuracy = Number(last[5]);
  console.log(`test accuracy ${(100 * accuracy).toFixed(2)} % after ${options.epochs} epochs, ${seconds.toFixed(0)} s with compilation and evaluation`);
  if (accuracy < figure) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}
