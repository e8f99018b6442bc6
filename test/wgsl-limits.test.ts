/** Programs for adapters with other limits than WebGPU's defaults: tensors above what a binding or a buffer holds, and workgroups with less memory. */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { compile } from '../index.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { withConstants } from '../passes/tile/target.ts';
import { limitsHere } from '../cli/backend.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { load, NoGpu, type SharedGpu } from '../runtime/index.ts';
import type { GpuStep, GpuProgram } from '../runtime/manifest.ts';
import type { GpuDevice } from '../runtime/webgpu/types.ts';
import { digit, example, tilewright } from './cli-harness.ts';
import { difference } from './wasm-harness.ts';
import { compiled, gpu, numbers, onGpu, runOnGpu } from './wgsl-harness.ts';

const model = readFileSync(new URL('../examples/mnist_cntk.onnx', import.meta.url));
afterAll(() => gpu?.close());

const dispatches = (program: GpuProgram): number => {
  const count = (steps: readonly GpuStep[]): number => steps.reduce((n, s) => n + ('repeat' in s ? count(s.body) : 1), 0);
  return program.entries.reduce((n, e) => n + count(e), 0);
};

/** Elementwise ops, sums, a product, grouped convolutions, a gather, a concat, a reversed slice and a sort, over tensors of 8 to 20 KiB. */
function large(): { readonly graph: Graph; readonly inputs: Record<string, Tensor> } {
  const b = new Builder('large');
  const x = b.input({ dtype: 'f32', shape: [60, 84] }, 'x');
  const image = b.input({ dtype: 'f32', shape: [1, 12, 20, 20] }, 'image');
  const w = b.input({ dtype: 'f32', shape: [24, 1, 3, 3] }, 'w');
  const at = b.input({ dtype: 'i32', shape: [7] }, 'at');
  const square = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1] };
  const outputs: readonly [string, Value][] = [
    ['map', b.unary('relu', b.sub(b.mul(x, x), b.transpose(b.reshape(x, [84, 60]), [1, 0])))],
    ['rows', b.reduce('reduceSum', x, [1])],
    ['columns', b.reduce('reduceMax', x, [0])],
    ['all', b.reduce('reduceSum', x, [0, 1])],
    ['product', b.one('contract', [x, x], { spec: 'mk,nk->mn' })],
    ['depthwise', b.unary('relu', b.one('conv', [image, w], { ...square, groups: 12 }))],
    ['gathered', b.one('gather', [x, at], { axis: 0 })],
    ['joined', b.one('concat', [x, b.unary('neg', x)], { axis: 1 })],
    ['back', b.one('slice', [x], { starts: [59, 3], sizes: [30, 40], steps: [-2, 2] })],
    ['sorted', b.op('topK', [x], { axis: 1, k: 5, largest: true, sorted: true })[0]!],
  ];
  return {
    graph: b.finish(outputs.map(([name, value]) => ({ name, value }))),
    inputs: { x: numbers([60, 84]), image: numbers([1, 12, 20, 20]), w: numbers([24, 1, 3, 3]), at: { dtype: 'i32', shape: [7], data: Int32Array.of(0, 59, 31, -1, 30, 15, 44) } },
  };
}

async function agrees({ graph, inputs }: ReturnType<typeof large>, options: NonNullable<Parameters<typeof compiled>[2]>): Promise<void> {
  const got = await runOnGpu(graph, inputs, options);
  for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${difference(got.get(name)!, want, 16)}`).toBe(`${name}: undefined`);
}

describe('a program for small limits', () => {
  test('binds and allocates no more at once than they allow, and computes slices or binds pages', async () => {
    const limits = { maxStorageBufferBindingSize: 8192, maxBufferSize: 16384 };
    const { graph } = large();
    const [small, usual] = [await compiled(graph, true, { gpuLimits: limits }), await compiled(graph)];
    for (const [name, limit] of Object.entries(limits)) expect(small.manifest.gpu!.limits[name as keyof typeof limits]).toBeLessThanOrEqual(limit);
    for (const s of small.manifest.gpu!.segments) expect(s.bytes).toBeLessThanOrEqual(limits.maxBufferSize);
    expect(usual.manifest.gpu!.limits.maxStorageBufferBindingSize).toBeGreaterThan(2 * limits.maxStorageBufferBindingSize);
    expect(dispatches(small.manifest.gpu!)).toBeGreaterThan(dispatches(usual.manifest.gpu!));
    expect(Object.values(small.shaders!).join()).toContain('x0_page1');
  });

  test('has workgroups whose slices fit the memory that its target says', async () => {
    const usual = readTarget('gpu');
    const sizes = [];
    for (const bytesPerTile of [2048, 4096, usual.constants.bytesPerTile]) {
      const target = withConstants(usual, { bytesPerTile });
      const { manifest } = await compiled(large().graph, true, { target });
      const vertices = manifest.steps.map((s) => s.vertex ?? 0);
      for (const v of vertices) expect(v).toBeLessThanOrEqual(bytesPerTile);
      expect(manifest.gpu!.limits.maxComputeWorkgroupStorageSize).toBe(Math.max(...vertices));
      sizes.push(Math.max(...vertices));
    }
    expect(sizes[0]).toBeLessThan(sizes[1]!);
    expect(sizes[1]).toBeLessThan(sizes[2]!);
    await expect(compiled(large().graph, true, { target: withConstants(usual, { bytesPerTile: 64 }) })).rejects.toThrow(/a workgroup takes \d+ bytes of memory/);
  });
});

describe.skipIf(!gpu)(onGpu('limits'), { timeout: 120_000 }, () => {
  test.each([[16384, 65536], [8192, 16384], [4096, 8192]])('of %i bytes a binding and %i a buffer change no result', async (maxStorageBufferBindingSize, maxBufferSize) => {
    await agrees(large(), { gpuLimits: { maxStorageBufferBindingSize, maxBufferSize } });
  });

  test('of a real model change no result', async () => {
    const image = { Input3: numbers([1, 1, 28, 28]) };
    await using wasm = await load(await compile(model), { threads: 1 });
    const [want] = Object.values(await wasm.run(image));
    const artifact = await compile(model, { backend: 'wgsl', gpuLimits: { maxStorageBufferBindingSize: 6144, maxBufferSize: 8192 } });
    await using session = await load(artifact, { gpu: gpu! });
    const [got] = Object.values(await session.run(image));
    (want!.data as Float32Array).forEach((y, k) => expect(Math.abs((got!.data as Float32Array)[k]! - y)).toBeLessThan(1e-5));
  });

  test('of 2 KiB of workgroup memory change no result', async () => {
    await agrees(large(), { target: withConstants(readTarget('gpu'), { bytesPerTile: 2048 }) });
  });

  test('of memory, where the GPU has too little, leave the model to WebAssembly, with the reason', async () => {
    const both = await compile(model, { backend: 'wgsl', fallback: true, features: ['simd'] });
    const full: SharedGpu = { ...gpu!, device: outOfMemory(gpu!.device) };
    await using session = await load(both, { gpu: full, threads: 1 });
    expect([session.features, session.notices.join()]).toEqual(['simd', expect.stringMatching(/WebAssembly in place of WebGPU: the GPU .* has no room for the 1 MiB that the model needs: out of memory/)]);
    await expect(load({ ...both, fallback: undefined } as unknown as typeof both, { gpu: full })).rejects.toThrow(NoGpu);
  });
});

describe.skipIf(!gpu)(onGpu('the limits of the adapter that is here'), { timeout: 120_000 }, () => {
  const offered = (name: string): number => gpu!.device.limits[name]!;

  test('are those that shaders are written for, but for limits that are named; other backends have none', async () => {
    expect(await limitsHere({ backend: 'wasm' })).toEqual({});
    const { gpuLimits } = await limitsHere({ backend: 'wgsl', gpuLimit: { maxBufferSize: 4096 } });
    expect(gpuLimits).toEqual({
      maxBufferSize: 4096, maxStorageBufferBindingSize: offered('maxStorageBufferBindingSize'), maxStorageBuffersPerShaderStage: offered('maxStorageBuffersPerShaderStage'),
      maxComputeWorkgroupStorageSize: offered('maxComputeWorkgroupStorageSize'), maxComputeInvocationsPerWorkgroup: Math.min(offered('maxComputeInvocationsPerWorkgroup'), offered('maxComputeWorkgroupSizeX')),
    });
  });

  test('give a sort all of the memory that a workgroup has, on a device of its own', async () => {
    const words = 2 ** Math.floor(Math.log2(offered('maxComputeWorkgroupStorageSize') / 8));
    const b = new Builder('lines');
    const x = b.input({ dtype: 'f32', shape: [2, words] }, 'x');
    const graph = b.finish([{ name: 'y', value: b.op('topK', [x], { axis: 1, k: words, largest: false, sorted: true })[0]! }]);
    const artifact = await compiled(graph, true, await limitsHere({ backend: 'wgsl' }));
    expect(Math.max(...artifact.manifest.steps.map((s) => s.vertex ?? 0))).toBe(8 * words);
    const given = numbers([2, words]);
    await using session = await load(artifact);
    const { y } = await session.run({ x: given });
    const lines = [0, 1].flatMap((i) => [...(given.data as Float32Array).slice(i * words, (i + 1) * words).sort()]);
    expect([...(y!.data as Float32Array)]).toEqual(lines);
  });

  test.each([['run', ['--input', digit]], ['bench', []], ['profile', []], ['train', ['--data', 'none.npz', '-o', join(tmpdir(), 'never.onnx')]]] as const)('can be replaced in %s', async (command, args) => {
    const { code, stderr } = await tilewright([command, example, ...args, '--backend', 'wgsl', '--gpu-limit', 'maxStorageBufferBindingSize=100'], 60_000);
    expect(stderr).toMatch(/maxStorageBufferBindingSize is 100 bytes, expected at least 256/);
    expect(code).toBe(2);
  });
});

test('limits of adapters do not go with WebAssembly', async () => {
  const { code, stderr } = await tilewright(['bench', example, '--gpu-limit', 'maxBufferSize=1MiB'], 60_000);
  expect([code, stderr]).toEqual([2, expect.stringMatching(/--gpu-limit goes with --backend wgsl/)]);
});

/** A device whose first error scope finds that memory is short, as a driver's does. */
function outOfMemory(device: GpuDevice): GpuDevice {
  const scopes: string[] = [];
  return new Proxy(device, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      const call = (...args: unknown[]): unknown => (value as (...a: unknown[]) => unknown).apply(target, args);
      if (key === 'pushErrorScope') return (filter: string) => void (scopes.push(filter), call(filter));
      if (key !== 'popErrorScope') return call;
      return async () => {
        const found = await (call() as Promise<object | null>);
        return scopes.pop() === 'out-of-memory' ? { message: 'out of memory' } : found;
      };
    },
  });
}
