/** tilewright train, as a user runs it. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PNG } from 'pngjs';
import { openPeer } from '../cli/peers.ts';
import { writeNpy } from '../runtime/npy.ts';
import { readSafetensors } from '../runtime/safetensors.ts';
import { root, tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';
import { spread, tinyModel } from './trainer-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'cli-train-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

/** A convolution over pictures of 1x6x6, with dropout, and two classes. */
const picturesModel: TestModel = {
  name: 'pictures',
  nodes: [
    node('Conv', ['x', 'k', 'kb'], ['c'], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }), node('Relu', ['c'], ['r']), node('GlobalAveragePool', ['r'], ['p']), node('Flatten', ['p'], ['f']),
    node('Dropout', ['f', 'ratio', 'on'], ['d']), node('Gemm', ['d', 'w', 'b'], ['logits'], { transB: 1 }),
  ],
  inputs: [value('x', 'f32', ['n', 1, 6, 6])],
  outputs: [value('logits', 'f32', ['n', 2])],
  initializers: [
    floats('k', [4, 1, 3, 3], spread(36)), floats('kb', [4], [0, 0, 0, 0]), floats('w', [2, 4], spread(8)), floats('b', [2], [0, 0]),
    floats('ratio', [], [0.25]), { name: 'on', dataType: 9, dims: [], rawData: Uint8Array.of(1) },
  ],
};

const count = 96;
const labels = Int32Array.from({ length: count }, (_, i) => i % 2);
/** Class 1 is bright. */
const pictures = Uint8Array.from(spread(count * 36, 60), (v, i) => 90 + v + (labels[Math.floor(i / 36)] === 1 ? 80 : 0));

beforeAll(() => {
  writeFileSync(at('model.onnx'), encodeModel(picturesModel));
  writeFileSync(at('tiny.onnx'), encodeModel(tinyModel));
  writeFileSync(at('x.npy'), writeNpy({ dtype: 'u8', shape: [count, 6, 6], data: pictures }));
  writeFileSync(at('y.npy'), writeNpy({ dtype: 'i32', shape: [count], data: labels }));
  writeFileSync(at('table.csv'), `a,b,c,class\n${Array.from({ length: 40 }, (_, i) => `${spread(1, 1, i)[0]! + (i % 2 ? 2 : -2)},${i % 3},0.5,${i % 2}`).join('\n')}\n`);
});

const data = (): string[] => ['--data', `${at('x.npy')},${at('y.npy')}`];
const adam = ['--optimizer', 'adam', '--lr', '0.02', '--batch', '8', '--seed', '3', '--threads', '2'];

describe('tilewright train', () => {
  it('learns, reports, and writes a model that another runtime reads', async () => {
    const { code, stdout, stderr } = await tilewright(['train', at('model.onnx'), ...data(), '--eval', `${at('x.npy')},${at('y.npy')}`, ...adam, '--epochs', '6', '--standardize', '--schedule', 'cosine', '--warmup', '1', '--log-gradients', at('grads.csv'), '-o', at('trained.onnx')], 60_000);
    expect(stderr).toMatch(/standardized by mean/);
    expect(code).toBe(0);
    expect(stdout).toMatch(/epoch 6\/6 {2}step 72 .* accuracy 100.00 %/);
    const rows = readFileSync(at('metrics.csv'), 'utf8').trim().split('\n');
    expect(rows[0]).toBe('epoch,step,lr,loss,eval_loss,eval_accuracy,seconds');
    expect(rows).toHaveLength(7);
    expect(readFileSync(at('metrics.svg'), 'utf8')).toMatch(/^<svg .*<\/svg>\s*$/s);
    const gradients = readFileSync(at('grads.csv'), 'utf8').trim().split('\n');
    expect(gradients).toHaveLength(1 + 72 * 4);
    expect(gradients[1]).toMatch(/^1,k,\d/);
    const peer = await openPeer('onnxruntime-node', at('trained.onnx'), 1);
    const [mean, std] = /mean ([\d.]+) and deviation ([\d.]+)/.exec(stderr)!.slice(1).map(Number) as [number, number];
    const { logits } = await peer.run({ x: { dtype: 'f32', shape: [count, 1, 6, 6], data: Float32Array.from(pictures, (v) => (v / 255 - mean) / std) }});
    await peer.close();
    const right = labels.filter((label, i) => ((logits!.data[2 * i + 1] as number) > (logits!.data[2 * i] as number)) === (label === 1)).length;
    // The file keeps its dropout, which this runtime applies as the file says.
    expect(right / count).toBeGreaterThan(0.9);
  }, 90_000);

  it('reads tables, and rebinds a fixed batch', async () => {
    const { code, stdout, stderr } = await tilewright(['train', at('tiny.onnx'), '--data', at('table.csv'), '--batch', '10', '--optimizer', 'AdamW_GCC', '--lr', '0.05', '--epochs', '5', '--checkpoint', at('ck-table'), '--json'], 60_000);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const facts = JSON.parse(stdout) as { steps: number; epochs: { loss: number }[] };
    expect(facts.steps).toBe(20);
    expect(facts.epochs.at(-1)!.loss).toBeLessThan(facts.epochs[0]!.loss);
  }, 90_000);

  it('reads folders of pictures by class', async () => {
    const { mkdirSync } = await import('node:fs');
    for (const [c, name] of ['dark', 'light'].entries()) {
      mkdirSync(at(`pictures/${name}`), { recursive: true });
      for (let i = 0; i < 4; i++) {
        const png = new PNG({ width: 6, height: 6 });
        png.data.fill(c === 0 ? 20 + i : 220 + i);
        for (let p = 3; p < png.data.length; p += 4) png.data[p] = 255;
        writeFileSync(at(`pictures/${name}/${i}.png`), PNG.sync.write(png));
      }
    }
    const { code, stdout } = await tilewright(['train', at('model.onnx'), '--data', at('pictures'), '--batch', '4', '--epochs', '2', '--checkpoint', at('ck-pictures')], 60_000);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/epoch 2\/2 {2}step 4/)]);
  }, 90_000);
});

/** State of the newest checkpoint, as bytes. */
async function newest(ck: string): Promise<Record<string, string>> {
  const file = readdirSync(ck).filter((f) => f.startsWith('step-')).sort().at(-1)!;
  const tensors = await readSafetensors(readFileSync(join(ck, file)));
  return Object.fromEntries([...tensors].map(([name, t]) => [name, Buffer.from(t.data.buffer).toString('base64')]));
}

describe('a run that is interrupted', () => {
  const args = (ck: string, more: readonly string[]): string[] => ['train', at('model.onnx'), ...data(), ...adam, '--epochs', '40', '--augment', 'crop:1,flip', '--checkpoint', ck, '--checkpoint-every', '3', ...more];
  /** Starts a run and ends it by a signal once it has reached a step. */
  async function interrupted(ck: string, more: readonly string[], signal: NodeJS.Signals, step: number): Promise<number | null> {
    const child = spawn(process.execPath, [join(root, 'cli/tilewright.js'), ...args(ck, more)], { stdio: 'ignore' });
    const ended = new Promise<number | null>((resolve) => child.on('close', (code) => resolve(code)));
    const reached = (): boolean => existsSync(ck) && readdirSync(ck).some((f) => /^step-\d+\.safetensors$/.test(f) && Number(/\d+/.exec(f)![0]) >= step);
    while (!reached() && child.exitCode === null) await sleep(5);
    child.kill(signal);
    return ended;
  }

  it('by kill -9 or Ctrl-C goes on to the same bits as one that is not', async () => {
    const straight = await tilewright(args(at('ck-straight'), []), 60_000);
    expect(straight.code).toBe(0);
    const ck = at('ck-killed');
    await interrupted(ck, [], 'SIGKILL', 30);
    await interrupted(ck, ['--resume', ck], 'SIGKILL', 100);
    expect(await interrupted(ck, ['--resume', ck], 'SIGINT', 200)).toBe(130);
    const last = await tilewright(args(ck, ['--resume', ck]), 60_000);
    expect(last.code, last.stderr).toBe(0);
    expect(await newest(ck)).toEqual(await newest(at('ck-straight')));
    const losses = (place: string): string[][] => readFileSync(join(place, 'metrics.csv'), 'utf8').trim().split('\n').map((row) => row.split(',').slice(0, 4));
    expect(losses(ck)).toEqual(losses(at('ck-straight')));
  }, 180_000);
});

describe('mistakes are told before the first step', () => {
  it.each<[string, (place: (name: string) => string) => string[], RegExp]>([
    ['a label out of range', (p) => ['--data', `${p('x.npy')},${p('bad-labels.npy')}`, '-o', p('o.onnx')], /label of sample 0 is 7, but the model has classes 0 to 1/],
    ['a file shorter than its header', (p) => ['--data', `${p('short-idx')},${p('y.npy')}`, '-o', p('o.onnx')], /short-idx .*the file is cut off/],
    ['no place for the result', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`], /nothing would be kept/],
    ['a checkpoint folder that cannot be', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--checkpoint', p('x.npy/ck')], /cannot write checkpoints to .*not a folder/],
    ...(process.platform === 'linux' ? [['a checkpoint folder where the system makes none', (p: (name: string) => string) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--checkpoint', '/proc/nothing/ck'], /cannot write checkpoints to \/proc\/nothing\/ck: \/proc\/nothing takes no new folder/] as [string, (place: (name: string) => string) => string[], RegExp]] : []),
    ['an unknown optimizer', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--optimizer', 'sdg', '-o', p('o.onnx')], /no optimizer "sdg"/],
    ['an option of another optimizer', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--optimizer', 'adam', '--nesterov', '-o', p('o.onnx')], /--nesterov goes with sgd, sgdw, lars, not with adam/],
    ['a place for the result that is not there', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '-o', p('nowhere/o.onnx')], /cannot write .*nowhere\/o\.onnx: its folder does not exist/],
    ['a learning rate below 0', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--lr', '-1', '-o', p('o.onnx')], /'--lr <rate>' argument '-1' is invalid. expected a number of at least 0/],
    ['a warm-up below 0', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--warmup', '-1', '-o', p('o.onnx')], /'--warmup <epochs>' argument '-1' is invalid. expected a number of at least 0/],
    ['a step schedule that never steps on', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--schedule', 'step', '--schedule-every', '0', '-o', p('o.onnx')], /'--schedule-every <epochs>' argument '0' is invalid. expected a positive number/],
    ['smoothing above 1', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--label-smoothing', '3', '-o', p('o.onnx')], /the loss's label smoothing is 3, expected a share from 0 to 1/],
    ['a class weight below 0', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--class-weights', '1,-2', '-o', p('o.onnx')], /the loss's class weight is -2, expected numbers of at least 0/],
    ['a huber loss without a width', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--loss', 'huber', '--huber-delta', '0', '-o', p('o.onnx')], /the loss's delta is 0, expected a positive number/],
    ['a class to ignore among blended ones', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--ignore-index', '1', '--augment', 'mixup:0.2', '-o', p('o.onnx')], /mixup and cutmix blend classes, .*--ignore-index does not go with them/],
    ['an unknown loss', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--loss', 'hinge', '-o', p('o.onnx')], /no loss "hinge"/],
    ['data that is not there', (p) => ['--data', p('nothing.npz'), '-o', p('o.onnx')], /cannot read .*nothing.npz: it does not exist/],
    ['nothing to resume', (p) => ['--data', `${p('x.npy')},${p('y.npy')}`, '--resume', p('nothing')], /there is no such folder or file/],
  ])('%s', async (_, args, message) => {
    writeFileSync(at('bad-labels.npy'), writeNpy({ dtype: 'i32', shape: [count], data: new Int32Array(count).fill(7) }));
    writeFileSync(at('short-idx'), Uint8Array.from([0, 0, 8, 1, 0, 0, 0, 9, 1, 2]));
    const { code, stderr } = await tilewright(['train', at('model.onnx'), '--batch', '8', ...args(at)], 60_000);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(existsSync(at('o.onnx'))).toBe(false);
  }, 90_000);

  it('a checkpoint of another batch size', async () => {
    const common = ['train', at('model.onnx'), ...data(), '--epochs', '1'];
    await tilewright([...common, '--batch', '8', '--checkpoint', at('ck-batch')], 60_000);
    const { code, stderr } = await tilewright([...common, '--batch', '4', '--resume', at('ck-batch')], 60_000);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/was made with batch 8, this run has 4/)]);
  }, 90_000);
});

describe('a loss that is not finite', () => {
  it('stops the run, names the op, and leaves the checkpoint', async () => {
    const exploding: TestModel = { ...tinyModel, nodes: [...tinyModel.nodes.slice(0, 2), node('Exp', ['r'], ['e'], {}, { name: 'grow' }), node('Gemm', ['e', 'w2', 'b2'], ['logits'], { transB: 1 })] };
    writeFileSync(at('exploding.onnx'), encodeModel(exploding));
    writeFileSync(at('huge.csv'), `${Array.from({ length: 8 }, (_, i) => `${i === 7 ? 1e6 : 1},1,1,${i % 2}`).join('\n')}\n`);
    const { code, stderr } = await tilewright(['train', at('exploding.onnx'), '--data', at('huge.csv'), '--lr', '0', '--epochs', '3', '--checkpoint', at('ck-exploding')], 60_000);
    expect(stderr).toMatch(/the loss of step \d is (NaN|Infinity): the first op with infinity in its result is exp of Exp\(grow\)/);
    expect(code).toBe(2);
    expect(readdirSync(at('ck-exploding'))).toEqual(['step-000000000.safetensors']);
  }, 90_000);
});
