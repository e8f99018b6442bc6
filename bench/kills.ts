/**
 * Kills a training run (SIGKILL) at random moments, resumes it each time, and compares where it ends with a run that nobody disturbed: weights, moments, running statistics, counters and
 * losses have to be equal to the bit. Augmentation and dropout are on, checkpoints come every other step, so many kills hit one.
 * npm run bench:kills -- [--kills 20] [--seed 0] [--threads 2] [--epochs 60]
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { draws, purposes } from '../runtime/data/random.ts';
import { writeNpy } from '../runtime/npy.ts';
import { readSafetensors } from '../runtime/safetensors.ts';
import { encodeModel, floats, node, raw, value } from '../test/onnx-encode.ts';
import { commandLine } from './options.ts';
import { numbers } from './train-networks.ts';

const { options: { kills: wanted, seed, threads, epochs } } = commandLine('npm run bench:kills', '', { kills: 20, seed: 0, threads: 2, epochs: 60 });
const samples = 192;
const side = 16;
/** A life lasts up to so long after its first checkpoint. */
const longestLife = 350;
/** Share of the lives that end while they start up. */
const earlyShare = 0.15;

const folder = mkdtempSync(join(tmpdir(), 'kills-'));
try {
  writeInputs();
  const straight = join(folder, 'straight');
  const began = performance.now();
  await lived(straight, false, () => new Promise(() => {}));
  const whole = performance.now() - began;
  const killed = join(folder, 'killed');
  const draw = draws(seed, purposes.shuffle, 0, 0);
  let [kills, inCheckpoint, early] = [0, 0, 0];
  for (;;) {
    const starting = draw.uniform() < earlyShare;
    const delay = draw.uniform() * (starting ? 600 : longestLife);
    const before = newest(killed);
    const ended = await lived(killed, kills > 0, kills >= wanted ? () => new Promise(() => {}) : async (alive) => {
      while (!starting && alive() && newest(killed) === before) await sleep(2);
      await sleep(delay);
    });
    if (ended) break;
    kills++;
    if (starting) early++;
    if (filesOf(killed).some((f) => f.includes('.part-'))) inCheckpoint++;
    if (process.stderr.isTTY) process.stderr.write(`\r${kills} of ${wanted} kills, ${newest(killed)}`);
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  if (kills < wanted) throw new Error(`the run ended after ${kills} kills; give more --epochs`);
  const [a, b] = [await digest(straight), await digest(killed)];
  const losses = [straight, killed].map((f) => readFileSync(join(f, 'metrics.csv'), 'utf8').split('\n').map((row) => row.split(',').slice(0, 4).join()).join('\n'));
  const same = a === b && losses[0] === losses[1];
  console.log(`${kills} kills (${inCheckpoint} while a checkpoint was written, ${early} while the run started), seed ${seed}, ${threads} threads; an undisturbed run takes ${(whole / 1000).toFixed(1)} s`);
  console.log(`undisturbed ${newest(straight)} ${a}`);
  console.log(`killed      ${newest(killed)} ${b}`);
  console.log(same ? 'state and losses are equal to the bit' : 'they differ');
  process.exitCode = same ? 0 : 1;
} finally {
  rmSync(folder, { recursive: true });
}

/** One life of a run: true if it came to its end, false if it was killed once `moment` had passed. */
async function lived(ck: string, resume: boolean, moment: (alive: () => boolean) => Promise<void>): Promise<boolean> {
  const args = ['train', join(folder, 'model.onnx'), '--data', `${join(folder, 'x.npy')},${join(folder, 'y.npy')}`, '--batch', '16', '--epochs', String(epochs), '--optimizer', 'adamw', '--lr', '0.002', '--schedule', 'cosine', '--ema', '0.99',
    '--augment', 'crop:2,flip,mixup:0.2,cutmix:1', '--seed', String(seed), '--threads', String(threads), '--checkpoint', ck, '--checkpoint-every', '2', ...(resume ? ['--resume', ck] : [])];
  const child = spawn(process.execPath, [new URL('../cli/tilewright.js', import.meta.url).pathname, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text: Buffer) => (said += text.toString()));
  const closed = new Promise<number | null>((resolve) => child.on('close', resolve));
  const alive = (): boolean => child.exitCode === null && child.signalCode === null;
  const first = await Promise.race([closed, moment(alive).then(() => 'kill' as const)]);
  if (first === 'kill') child.kill('SIGKILL');
  const code = await closed;
  if (child.signalCode === 'SIGKILL') return false;
  if (code !== 0) throw new Error(`a run ended with ${code}: ${said}`);
  return true;
}

/** Pictures of two classes, and two convolutions with a batch norm, dropout and a wide linear layer. */
function writeInputs(): void {
  const weights = (name: string, shape: readonly number[], seed: number, fanIn: number): ReturnType<typeof raw> => raw(name, 'f32', shape, numbers(shape.reduce((n, d) => n * d), seed).map((v) => v / Math.sqrt(fanIn)));
  const features = 16 * (side / 4) ** 2;
  writeFileSync(join(folder, 'model.onnx'), encodeModel({
    name: 'kills',
    nodes: [
      node('Conv', ['x', 'k1'], ['c1'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), node('BatchNormalization', ['c1', 's', 'o', 'm', 'v'], ['n1', 'm1', 'v1'], { training_mode: 1 }), node('Relu', ['n1'], ['r1']),
      node('MaxPool', ['r1'], ['p1'], { kernel_shape: [2, 2], strides: [2, 2] }), node('Conv', ['p1', 'k2'], ['c2'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), node('Relu', ['c2'], ['r2']), node('MaxPool', ['r2'], ['p2'], { kernel_shape: [2, 2], strides: [2, 2] }),
      node('Flatten', ['p2'], ['f']), node('Gemm', ['f', 'w1', 'b1'], ['h']), node('Relu', ['h'], ['r3']), node('Dropout', ['r3', 'ratio', 'on'], ['d']), node('Gemm', ['d', 'w2', 'b2'], ['logits']),
    ],
    inputs: [value('x', 'f32', ['n', 1, side, side])], outputs: [value('logits', 'f32', ['n', 2])],
    initializers: [
      weights('k1', [8, 1, 3, 3], 1, 9), weights('k2', [16, 8, 3, 3], 2, 72), weights('w1', [features, 512], 3, features), weights('b1', [512], 4, features), weights('w2', [512, 2], 5, 512), weights('b2', [2], 6, 512),
      floats('s', [8], new Array<number>(8).fill(1)), floats('o', [8], new Array<number>(8).fill(0)), floats('m', [8], new Array<number>(8).fill(0)), floats('v', [8], new Array<number>(8).fill(1)),
      floats('ratio', [], [0.3]), { name: 'on', dataType: 9, dims: [], rawData: Uint8Array.of(1) },
    ],
  }));
  const y = Int32Array.from({ length: samples }, (_, i) => i % 2);
  writeFileSync(join(folder, 'x.npy'), writeNpy({ dtype: 'u8', shape: [samples, side, side], data: Uint8Array.from(numbers(samples * side * side, 9), (v, i) => 100 + 60 * v + 40 * y[Math.floor(i / side ** 2)]!) }));
  writeFileSync(join(folder, 'y.npy'), writeNpy({ dtype: 'i32', shape: [samples], data: y }));
}

function filesOf(ck: string): string[] {
  try {
    return readdirSync(ck).sort();
  } catch {
    return [];
  }
}

/** The newest checkpoint's file. */
function newest(ck: string): string | undefined {
  return filesOf(ck).filter((f) => /^step-\d+\.safetensors$/.test(f)).at(-1);
}

/** A digest of all state of the newest checkpoint. */
async function digest(ck: string): Promise<string> {
  const hash = createHash('sha256');
  const state = await readSafetensors(readFileSync(join(ck, newest(ck)!)));
  for (const [name, t] of [...state].sort(([a], [b]) => (a < b ? -1 : 1))) hash.update(`${name} ${t.dtype} ${t.shape.join()}`).update(new Uint8Array(t.data.buffer, t.data.byteOffset, t.data.byteLength));
  return hash.digest('hex').slice(0, 32);
}
