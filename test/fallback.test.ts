/** Artifacts that hold a model for WebGPU and for WebAssembly: which one runs, and what the caller is told. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compile, type Artifact } from '../index.ts';
import { load, loadTrainer, NoGpu } from '../runtime/index.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';

const model = readFileSync(new URL('../examples/mnist_cntk.onnx', import.meta.url));
const png = PNG.sync.read(readFileSync(new URL('../examples/digit.png', import.meta.url)));
const digit = Float32Array.from({ length: 784 }, (_, i) => png.data[4 * i]!);
const folder = mkdtempSync(join(tmpdir(), 'tilewright-fallback-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** y = x·w, n samples of 2 numbers. */
const linear = encodeModel({
  nodes: [node('MatMul', ['x', 'w'], ['y'])],
  inputs: [value('x', 'f32', ['n', 2])],
  outputs: [value('y', 'f32', ['n', 2])],
  initializers: [floats('w', [2, 2], [1, 2, 3, 4])],
});

/** The artifact as an adapter without enough memory for workgroups meets it: on no machine does its GPU part run. */
function tooLarge(artifact: Artifact): Artifact {
  const { gpu } = artifact.manifest;
  return { ...artifact, manifest: { ...artifact.manifest, gpu: { ...gpu!, limits: { ...gpu!.limits, maxComputeWorkgroupStorageSize: 2 ** 30 } } } };
}

const best = (scores: ArrayLike<number | bigint>): number => Array.from(scores, Number).reduce((top, s, i, all) => (s > all[top]! ? i : top), 0);

describe('an artifact for both', { timeout: 60_000 }, () => {
  let both: Artifact;
  beforeAll(async () => {
    both = await compile(model, { backend: 'wgsl', fallback: true, features: ['simd'] });
  });

  test('runs WebAssembly and says why where the GPU does not do', async () => {
    await using session = await load(tooLarge(both), { threads: 1 });
    expect(session.features).toBe('simd');
    expect(session.notices).toEqual([expect.stringMatching(/^WebAssembly in place of WebGPU: (the GPU adapter .* offers maxComputeWorkgroupStorageSize = \d+, but this artifact needs 1073741824|there is no GPU adapter here.*|Node has no WebGPU.*)$/)]);
    expect(best(Object.values(await session.run({ Input3: digit }))[0]!.data)).toBe(7);
  });

  test('runs WebAssembly where it is asked for, without a notice', async () => {
    await using session = await load(both, { backend: 'wasm', threads: 1 });
    expect([session.features, session.notices]).toEqual(['simd', []]);
    expect(best(Object.values(await session.run({ Input3: digit }))[0]!.data)).toBe(7);
  });

  test('takes no other where WebGPU is asked for', async () => {
    await expect(load(tooLarge(both), { backend: 'webgpu' })).rejects.toThrow(NoGpu);
  });

  test('with a GPU program that is damaged is refused: that is no reason to take the other', async () => {
    const { gpu: _, ...manifest } = both.manifest;
    await expect(load({ ...both, manifest })).rejects.toThrow(/its backend is wgsl, and gpu is missing/);
  });

  test('compiles other specialisations for whichever runs', async () => {
    await using session = await load(tooLarge(await compile(linear, { backend: 'wgsl', fallback: true, features: ['simd'] })), { backend: 'wasm', threads: 1 });
    const { y } = await session.run({ x: { dtype: 'f32', shape: [3, 2], data: Float32Array.of(1, 0, 0, 1, 1, 1) } });
    expect(Array.from(y!.data, Number)).toEqual([1, 2, 3, 4, 4, 6]);
  });

  test('trains on WebAssembly and says why', async () => {
    const step = await compile(linear, { dims: { n: 1 }, backend: 'wgsl', fallback: true, features: ['simd'], train: { loss: { kind: 'mse' }, optimizer: { kind: 'sgd' } } });
    const trainer = await loadTrainer(tooLarge(step), { threads: 1, lr: 0.5 });
    expect(trainer.notices).toEqual([expect.stringMatching(/^WebAssembly in place of WebGPU: /)]);
    // The mean of (1 - 0)² and (2 - 0)², and w - lr · 2/2 · xᵀ·(xw - y).
    expect((await trainer.trainStep({ x: [1, 0], y: [0, 0] })).loss).toBe(2.5);
    expect(Array.from((await trainer.parameters()).get('w')!.data, Number)).toEqual([0.5, 1, 3, 4]);
    await trainer.close();
  });

  test('is one folder, replaced as one', async () => {
    const out = join(folder, 'digits');
    await tooLarge(both).save(out);
    await both.save(out);
    await tooLarge(both).save(out);
    expect(['manifest.json', 'shaders.json', 'weights.safetensors', 'model.js', 'wasm/manifest.json', 'wasm/model.wasm', 'wasm/weights.safetensors'].filter((f) => !existsSync(join(out, f)))).toEqual([]);
    await using session = await load(out, { backend: 'wasm', threads: 1 });
    expect(best(Object.values(await session.run({ Input3: digit }))[0]!.data)).toBe(7);
  });

  test('whose manifest leads out of its folder is refused', async () => {
    const out = join(folder, 'outside');
    await both.save(out);
    writeFileSync(join(out, 'manifest.json'), JSON.stringify({ ...both.manifest, fallback: '../digits' }));
    await expect(load(out, { backend: 'wasm' })).rejects.toThrow(/names "\.\.\/digits", which is not a plain file name/);
  });
});

test('an artifact for one backend refuses the other by name', { timeout: 60_000 }, async () => {
  await expect(load(await compile(linear, { features: ['simd'] }), { backend: 'webgpu' })).rejects.toThrow(/compiled for WebAssembly alone; compile the model with --backend wgsl/);
  await expect(load(await compile(linear, { backend: 'wgsl' }), { backend: 'wasm' })).rejects.toThrow(/compiled for WebGPU alone/);
});

test('the command line writes both, or one with --no-fallback', { timeout: 120_000 }, async () => {
  const file = new URL('../examples/mnist_cntk.onnx', import.meta.url).pathname;
  const [two, one] = [join(folder, 'two'), join(folder, 'one')];
  expect((await tilewright(['compile', file, '--backend', 'wgsl', '-o', two], 100_000)).stdout).toContain('shaders and WebAssembly');
  expect(existsSync(join(two, 'wasm/model.wasm'))).toBe(true);
  expect((await tilewright(['compile', file, '--backend', 'wgsl', '--no-fallback', '-o', one], 100_000)).code).toBe(0);
  expect(existsSync(join(one, 'wasm'))).toBe(false);
  const { code, stderr } = await tilewright(['compile', file, '--no-fallback', '-o', one], 100_000);
  expect([code, stderr]).toEqual([2, expect.stringContaining('goes with --backend wgsl')]);
});
