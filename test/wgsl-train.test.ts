/** tilewright train on a GPU. */
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openPeer } from '../cli/peers.ts';
import { positionOf, start, train, type Run } from '../cli/train/run.ts';
import { tellLostGpu } from '../cli/train/lost-gpu.ts';
import { compile } from '../index.ts';
import type { Epoch } from '../runtime/data/index.ts';
import { loadTrainer, LostGpu, openGpu, type Tensor, type Trainer } from '../runtime/index.ts';
import { readSafetensors } from '../runtime/safetensors.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel } from './onnx-encode.ts';
import { spread, tinyBatch, tinyModel } from './trainer-harness.ts';
import { gpu, onGpu } from './wgsl-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-wgsl-train-'));
const at = (name: string): string => join(folder, name);
afterAll(() => {
  gpu?.close();
  rmSync(folder, { recursive: true });
});
beforeAll(() => {
  writeFileSync(at('tiny.onnx'), encodeModel(tinyModel));
  writeFileSync(at('table.csv'), `a,b,c,class\n${Array.from({ length: 200 }, (_, i) => `${spread(1, 1, i)[0]! + (i % 2 ? 2 : -2)},${i % 3},0.5,${i % 2}`).join('\n')}\n`);
});

const run = (...more: readonly string[]): ReturnType<typeof tilewright> =>
  tilewright(['train', at('tiny.onnx'), '--data', at('table.csv'), '--batch', '10', '--optimizer', 'adam', '--lr', '0.05', '--json', ...more], 100_000);
/** All state of the newest checkpoint. */
async function newest(ck: string): Promise<Record<string, number[]>> {
  const file = readdirSync(ck).filter((f) => f.startsWith('step-')).sort().at(-1)!;
  return Object.fromEntries([...await readSafetensors(readFileSync(join(ck, file)))].map(([name, t]) => [name, Array.from(t.data, Number)]));
}

describe.skipIf(!gpu)(onGpu('tilewright train --backend wgsl'), { timeout: 240_000 }, () => {
  test('reaches what wasm reaches, in parts of the batch as well, and writes a model that another runtime reads', async () => {
    const gpuRun = await run('--backend', 'wgsl', '--epochs', '3', '--batch', '200', '--memory', '8KiB', '-o', at('gpu.onnx'));
    expect(gpuRun.code, gpuRun.stderr).toBe(0);
    expect(gpuRun.stderr).toMatch(/GPU: /);
    expect(gpuRun.stderr).toMatch(/memory: \d+ of 200 samples at a time/);
    const wasmRun = await run('--threads', '1', '--epochs', '3', '--batch', '200', '-o', at('wasm.onnx'));
    const losses = (text: string): number[] => (JSON.parse(text) as { epochs: { loss: number }[] }).epochs.map((e) => e.loss);
    losses(gpuRun.stdout).forEach((loss, i) => expect(Math.abs(loss - losses(wasmRun.stdout)[i]!)).toBeLessThan(1e-5));
    const results: Tensor[] = [];
    for (const file of ['gpu.onnx', 'wasm.onnx']) {
      const peer = await openPeer('onnxruntime-node', at(file), 1);
      results.push((await peer.run({ x: { dtype: 'f32', shape: [4, 3], data: tinyBatch(1).x } }))['logits']!);
      await peer.close();
    }
    results[0]!.data.forEach((y, i) => expect(Math.abs(Number(y) - Number(results[1]!.data[i]))).toBeLessThan(1e-4));
  });

  test('goes on from a checkpoint to the bits of a run that was not interrupted', async () => {
    expect((await run('--backend', 'wgsl', '--epochs', '4', '--checkpoint', at('straight'))).code).toBe(0);
    expect((await run('--backend', 'wgsl', '--epochs', '2', '--checkpoint', at('parts'))).code).toBe(0);
    expect((await run('--backend', 'wgsl', '--epochs', '4', '--resume', at('parts'))).code).toBe(0);
    expect(await newest(at('parts'))).toEqual(await newest(at('straight')));
  });

  test('refuses --threads', async () => {
    const { code, stderr } = await run('--backend', 'wgsl', '--threads', '2', '-o', at('o.onnx'));
    expect([code, stderr]).toEqual([2, expect.stringContaining('--threads')]);
  });
});

describe.skipIf(!gpu)(onGpu('a GPU that is lost while it trains'), { timeout: 120_000 }, () => {
  const ck = (): string => at('lost');
  const runOf = (trainer: Trainer, more: Partial<Run>): Run => ({
    trainer, epochs: 1, training: (): Epoch => ({ batches: 8, at: (i) => ({ ...tinyBatch(i), count: 4 }) }), evaluation: undefined, loss: { kind: 'crossEntropy' },
    inputs: { x: 'x', y: 'y' }, rate: () => 0.01, average: false, checkpoint: { folder: ck(), every: 2 }, settings: {}, stopped: () => false, ...more,
  });

  test('is told with the way to go on, and the checkpoint goes on to the same weights', async () => {
    const artifact = await compile(encodeModel(tinyModel), { backend: 'wgsl', train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' } } });
    const own = await openGpu();
    const lost = await loadTrainer(artifact, { gpu: own });
    const error = await train(runOf(lost, { onStep: ({ step }) => void (step === 5 && own.close()) }), start).catch((e: unknown) => tellLostGpu(e, ck()));
    expect(error).toBeInstanceOf(LostGpu);
    expect(String(error)).toMatch(/device was lost.*--resume .*lost/);
    expect(String(tellLostGpu(new LostGpu('gone'), undefined))).toContain('--checkpoint FOLDER');
    await lost.close();
    await using again = await loadTrainer(artifact, { gpu: gpu! });
    const position = positionOf(await again.restore(ck()), {}, ck());
    expect(position.batch).toBe(4);
    await train(runOf(again, {}), position);
    await using straight = await loadTrainer(artifact, { gpu: gpu! });
    await train(runOf(straight, { checkpoint: undefined }), start);
    for (const [name, t] of await straight.parameters()) expect((await again.parameters()).get(name)!.data).toEqual(t.data);
  });
});
