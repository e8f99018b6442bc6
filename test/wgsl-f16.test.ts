/** f16 on GPUs: what an artifact asks for and what its shaders hold. What they compute is in wgsl-f16-values and wgsl-f16-models. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { compile } from '../index.ts';
import { Builder } from '../ir/builder.ts';
import { UserError } from '../ir/diagnostic.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { encodeFloat } from '../ir/number.ts';
import type { Tensor } from '../ir/type.ts';
import { wgslTarget } from '../cli/driver/target.ts';
import { halfPrecision } from '../passes/half-precision.ts';
import { load, NoGpu, type SharedGpu } from '../runtime/index.ts';
import type { GpuDevice } from '../runtime/webgpu/types.ts';
import { digit, tilewright } from './cli-harness.ts';
import { difference } from './wasm-harness.ts';
import { compiled, gpu, halfGpu, numbers, onGpu, runOnGpu } from './wgsl-harness.ts';

const file = new URL('../examples/mnist_cntk.onnx', import.meta.url);
const model = readFileSync(file);
afterAll(() => {
  gpu?.close();
  checking?.close();
  held = undefined;
});

/** What devices come from: it has to outlive them. */
let held: unknown;

/** A device of Dawn's that checks all that it is given and computes nothing: it has every feature. */
async function nullDevice(): Promise<SharedGpu | undefined> {
  const name = 'webgpu';
  const dawn = await (import(name) as Promise<{ create(flags: readonly string[]): { requestAdapter(): Promise<{ limits: Readonly<Record<string, number>>; requestDevice(d: object): Promise<GpuDevice> } | null> } }>).catch(() => undefined);
  held = dawn?.create(['backend=null']);
  const adapter = await (held as ReturnType<NonNullable<typeof dawn>['create']> | undefined)?.requestAdapter();
  if (!adapter) return undefined;
  const limits = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup'];
  const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16'], requiredLimits: Object.fromEntries(limits.map((n) => [n, adapter.limits[n]!])) });
  return { device, adapter: 'null', close: () => device.destroy() };
}
const checking = await nullDevice();

/** Products, convolutions, reductions, a softmax, a gather and moves over f16, all results f16. */
function halves(): Graph {
  const b = new Builder('halves');
  const input = (shape: readonly number[], name: string): Value => b.input({ dtype: 'f16', shape }, name);
  const x = input([2, 8, 10, 10], 'x');
  const w = input([20, 8, 3, 3], 'w');
  const a = input([70, 65], 'a');
  const wide = b.cast(a, 'f32');
  const e = b.unary('exp', b.sub(wide, b.reduce('reduceMax', wide, [1], true)));
  const outputs: readonly [string, Value][] = [
    ['conv', b.unary('relu', b.one('conv', [x, w], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 }))],
    ['product', b.one('contract', [a, a], { spec: 'mk,nk->mn' })],
    ['softmax', b.cast(b.div(e, b.reduce('reduceSum', e, [1], true)), 'f16')],
    ['gathered', b.one('gather', [a, b.input({ dtype: 'i32', shape: [3] }, 'at')], { axis: 0 })],
    ['turned', b.transpose(b.mul(a, b.add(a, a)), [1, 0])],
    ['odd', b.one('slice', [a], { starts: [0, 0], sizes: [1, 3], steps: [1, 1] })],
  ];
  return b.finish(outputs.map(([name, value]) => ({ name, value })));
}

const half = (shape: readonly number[]): Tensor => ({ dtype: 'f16', shape: [...shape], data: Uint16Array.from(numbers(shape).data as Float32Array, (v) => encodeFloat('f16', v)) });
const inputs = { x: half([2, 8, 10, 10]), w: half([20, 8, 3, 3]), a: half([70, 65]), at: { dtype: 'i32' as const, shape: [3], data: Int32Array.of(5, 0, -1) } };

describe('an artifact in f16', () => {
  test('asks for shader-f16, keeps inputs and outputs f32, and stores half the bytes of weights and values', async () => {
    const [narrow, wide] = [await compile(model, { backend: 'wgsl', f16: true }), await compile(model, { backend: 'wgsl' })];
    expect([narrow.manifest.gpu!.features, wide.manifest.gpu!.features]).toEqual([['shader-f16'], []]);
    for (const io of [...narrow.manifest.inputs, ...narrow.manifest.outputs]) expect(io.dtype).toBe('f32');
    const bytes = (a: typeof wide, kind: string): number => a.manifest.gpu!.segments.filter((s) => s.kind === kind).reduce((n, s) => n + s.bytes, 0);
    const weights = (a: typeof wide): number => a.manifest.weights.reduce((n, w) => n + w.bytes, 0);
    expect(weights(narrow)).toBeLessThan(0.51 * weights(wide));
    expect(bytes(narrow, 'constant')).toBeLessThan(0.55 * bytes(wide, 'constant'));
    expect(bytes(narrow, 'temp')).toBeLessThan(0.55 * bytes(wide, 'temp'));
  });

  test('of a step that trains needs mixed precision', async () => {
    await expect(compile(model, { backend: 'wgsl', f16: true, train: { optimizer: { kind: 'sgd' }, loss: { kind: 'crossEntropy' } } })).rejects.toThrow(UserError);
  });

  test('differs from f32 by what f16 rounds, in the interpreter', () => {
    const b = new Builder('layers');
    const x = b.input({ dtype: 'f32', shape: [4, 50] }, 'x');
    const h = b.unary('relu', b.one('contract', [x, b.input({ dtype: 'f32', shape: [50, 30] }, 'w')], { spec: 'mk,kn->mn' }));
    const graph = b.finish([{ name: 'y', value: b.reduce('reduceSum', h, [1]) }]);
    const narrow = halfPrecision(graph, wgslTarget);
    expect(narrow.ops.filter((o) => o.name === 'contract').map((o) => o.results[0]!.type.dtype)).toEqual(['f16']);
    const given = { x: numbers([4, 50]), w: numbers([50, 30]) };
    const [want, got] = [graph, narrow].map((g) => evaluate(g, given).outputs.get('y')!);
    want!.data.forEach((y, i) => expect(Math.abs(Number(got!.data[i]) - Number(y))).toBeLessThan(30 * 8 * 2 ** -10));
    expect(got!.data).not.toEqual(want!.data);
  });
});

describe.skipIf(!checking)(`shaders in f16${checking ? '' : ' (skipped: Dawn is not installed)'}`, { timeout: 60_000 }, () => {
  test('are valid WGSL, as are their bindings and dispatches', async () => {
    for (const artifact of [await compiled(halves(), true, { f16: true }), await compile(model, { backend: 'wgsl', f16: true })]) {
      expect(Object.values(artifact.shaders!).some((s) => s.includes('vec4<f16>'))).toBe(true);
      await using session = await load(artifact, { gpu: checking! });
      expect(session.features).toBe('webgpu');
    }
  });

  test('that write halves of words beside other tensors are valid, too', async () => {
    const b = new Builder('many');
    const x = b.input({ dtype: 'f32', shape: [50] }, 'x');
    const y = b.cast(b.add(x, 0.5), 'f16');
    const artifact = await compiled(b.finish([{ name: 'y', value: y }]), true, { f16: true, gpuLimits: { maxStorageBuffersPerShaderStage: 1 } });
    expect(Object.values(artifact.shaders!).join()).toContain('atomicOr');
    await using session = await load(artifact, { gpu: checking! });
    expect(session.features).toBe('webgpu');
  });
});

describe('the option --f16', { timeout: 120_000 }, () => {
  test.each(['run', 'bench', 'profile', 'compile'])('of %s goes with --backend wgsl alone', async (command) => {
    const { code, stderr } = await tilewright([command, file.pathname, '--f16'], 100_000);
    expect([code, stderr]).toEqual([2, expect.stringContaining('--f16 goes with --backend wgsl')]);
  });

  test('does not go with an artifact, whose element types are chosen', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tilewright-f16-'));
    try {
      await (await compile(file.pathname, { backend: 'wgsl' })).save(folder);
      for (const command of ['run', 'profile']) {
        const { code, stderr } = await tilewright([command, folder, '--backend', 'wgsl', '--f16'], 100_000);
        expect([code, stderr]).toEqual([2, expect.stringContaining('an artifact has its element types already')]);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.skipIf(!gpu).each(['run', 'bench', 'profile'])(onGpu('of %s reaches the GPU'), async (command) => {
    const more = command === 'run' ? ['--input', `Input3=${digit}`] : ['--runs', '1'];
    const { code, stderr } = await tilewright([command, file.pathname, '--backend', 'wgsl', '--f16', ...more, '--json'], 100_000);
    expect([code, stderr]).toEqual(halfGpu ? [0, expect.anything()] : [2, expect.stringContaining('lacks the feature shader-f16')]);
  });
});

describe.skipIf(!gpu || halfGpu !== undefined)(onGpu('an adapter without shader-f16'), { timeout: 60_000 }, () => {
  test('is refused by the feature’s name, and the model runs on WebAssembly where the artifact has it', async () => {
    const artifact = await compile(model, { backend: 'wgsl', f16: true, fallback: true, features: ['simd'] });
    const { fallback: _, ...alone } = artifact;
    await expect(load(alone)).rejects.toThrow(NoGpu);
    await expect(load(alone, { gpu: gpu! })).rejects.toThrow(/lacks the feature shader-f16, which this artifact needs \(it was compiled with --f16\)/);
    await using session = await load(artifact, { threads: 1 });
    expect([session.features, session.notices.join()]).toEqual(['simd', expect.stringContaining('lacks the feature shader-f16')]);
  });

  test('computes the same graph with f16 in 32-bit words', async () => {
    const got = await runOnGpu(halves(), inputs);
    for (const [name, want] of evaluate(halves(), inputs).outputs) expect(`${name}: ${difference(got.get(name)!, want, 4)}`).toBe(`${name}: undefined`);
  });
});

