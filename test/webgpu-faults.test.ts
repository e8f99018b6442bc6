/** What becomes of faults of a GPU, of its driver and of artifacts for it: a message that names them, and WebAssembly where the artifact has it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { compile, type Artifact } from '../index.ts';
import { Builder } from '../ir/builder.ts';
import { InputError, load, RunError } from '../runtime/index.ts';
import type { Dispatch, GpuProgram, Manifest } from '../runtime/manifest.ts';
import { tilewright } from './cli-harness.ts';
import { compiled, gpu, numbers, onGpu } from './wgsl-harness.ts';

const model = new URL('../examples/mnist_cntk.onnx', import.meta.url);
const digits = await compile(readFileSync(model), { backend: 'wgsl', fallback: true, features: ['simd'] });
const alone = await compile(readFileSync(model), { backend: 'wgsl' });
const x = { [digits.manifest.inputs[0]!.name]: numbers([1, 1, 28, 28]) };
const folder = mkdtempSync(join(tmpdir(), 'tilewright-faults-'));
afterAll(() => {
  gpu?.close();
  rmSync(folder, { recursive: true });
});

type Refusal = 'requestAdapter' | 'requestDevice' | 'createComputePipelineAsync' | 'popErrorScope' | 'mapAsync';
type Loss = 'compiling' | 'filling';

/** As much of WebGPU as loading and running takes. It computes nothing; one call rejects, or the device is lost on the way. */
function faultyGpu(fault: Refusal | Loss): object {
  const nothing = (): void => {};
  const answer = (call: Refusal, value: unknown): Promise<unknown> => (call === fault ? Promise.reject(new Error(`${call} failed`)) : Promise.resolve(value));
  let lose: (how: object) => void = nothing;
  const lost = new Promise((resolve) => (lose = resolve));
  const gone = { reason: 'unknown', message: 'gone' };
  const device = {
    features: { has: () => false }, limits: {}, lost, destroy: nothing,
    queue: {
      submit: nothing, onSubmittedWorkDone: () => Promise.resolve(),
      writeBuffer() {
        if (fault === 'filling') lose(gone);
      },
    },
    createBuffer: ({ size }: { size: number }) => ({ size, mapAsync: () => answer('mapAsync', undefined), getMappedRange: (_: number, bytes: number) => new ArrayBuffer(bytes), unmap: nothing, destroy: nothing }),
    createShaderModule: () => ({ getCompilationInfo: () => Promise.resolve({ messages: [] }) }), createBindGroupLayout: () => ({}), createPipelineLayout: () => ({}), createBindGroup: () => ({}),
    createComputePipelineAsync() {
      if (fault !== 'compiling') return answer('createComputePipelineAsync', {});
      lose(gone);
      return new Promise(() => {});
    },
    createCommandEncoder: () => ({ copyBufferToBuffer: nothing, finish: () => ({}), beginComputePass: () => ({ setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, dispatchWorkgroupsIndirect: nothing, end: nothing }) }),
    pushErrorScope: nothing, popErrorScope: () => answer('popErrorScope', null),
  };
  const adapter = { features: { has: () => false }, limits: new Proxy({}, { get: () => 2 ** 31 }), info: { vendor: 'faulty' }, requestDevice: () => answer('requestDevice', device) };
  return { requestAdapter: () => answer('requestAdapter', adapter) };
}

describe('a GPU that fails while a model is loaded', () => {
  afterEach(() => {
    Reflect.deleteProperty(navigator, 'gpu');
  });

  test.each([
    ['requestAdapter', 'WebGPU named no adapter: requestAdapter failed'],
    ['requestDevice', 'the GPU adapter faulty made no device: requestDevice failed'],
    ['createComputePipelineAsync', /^the GPU driver did not compile the shader \S+ of contract.*, from Conv\(Convolution28\).*: createComputePipelineAsync failed$/],
    ['popErrorScope', /^the GPU driver did not compile .*: popErrorScope failed$/],
    ['compiling', 'the GPU device was lost (unknown): gone'],
    ['filling', 'the GPU device was lost (unknown): gone'],
  ] as const)('(%s) leaves the model to WebAssembly, with the reason as its only notice', async (fault, reason) => {
    Object.defineProperty(navigator, 'gpu', { value: faultyGpu(fault), configurable: true });
    await using session = await load(digits, { threads: 1 });
    expect(session.features).toBe('simd');
    expect(session.notices).toHaveLength(1);
    const [, told] = /^WebAssembly in place of WebGPU: (.*)$/.exec(session.notices[0]!)!;
    if (typeof reason === 'string') expect(told).toBe(reason);
    else expect(told).toMatch(reason);
    await using wasm = await load(digits, { backend: 'wasm', threads: 1 });
    expect(await session.run(x)).toEqual(await wasm.run(x));
  });

  test('is an error where the model has no other form', async () => {
    Object.defineProperty(navigator, 'gpu', { value: faultyGpu('compiling'), configurable: true });
    await expect(load(alone)).rejects.toThrow('the GPU device was lost (unknown): gone');
  });

  test('and one that fails while it runs closes the session', async () => {
    Object.defineProperty(navigator, 'gpu', { value: faultyGpu('mapAsync'), configurable: true });
    await using session = await load(digits, { threads: 1 });
    expect(session.features).toBe('webgpu');
    const error = await session.run(x).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(RunError);
    expect((error as Error).message).toBe('the GPU failed: mapAsync failed');
    await expect(session.run(x)).rejects.toThrow('an earlier run failed');
  });
});

/** The artifact with a change of its manifest. */
function changed(artifact: Artifact, change: (manifest: Omit<Manifest, 'gpu'> & { gpu: Mutable<GpuProgram> }) => void): { manifest: Manifest; modules: Artifact['modules']; shaders: Readonly<Record<string, string>>; weights: Artifact['weights'] } {
  const manifest = structuredClone(artifact.manifest) as Parameters<typeof change>[0];
  change(manifest);
  return { manifest, modules: artifact.modules, shaders: artifact.shaders!, weights: artifact.weights };
}
type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly [infer A, infer B] ? [A, B] : T[K] extends readonly (infer E)[] ? Mutable<E>[] : T[K] };

describe('a manifest for WebGPU that is damaged', () => {
  const first = (m: { gpu: Mutable<GpuProgram> }): { -readonly [K in keyof Dispatch]: Dispatch[K] } => (m.gpu.entries as unknown as Dispatch[][])[0]![0]!;
  test.each<[string, Parameters<typeof changed>[1], RegExp]>([
    ['without its program', (m) => void Reflect.deleteProperty(m, 'gpu'), /its backend is wgsl, and gpu is missing/],
    ['without segments', (m) => void Reflect.deleteProperty(m.gpu, 'segments'), /gpu\.segments is missing/],
    ['with a segment of no kind', (m) => void (m.gpu.segments[1]!.kind = 'heap' as 'io'), /gpu\.segments\[1\] is malformed/],
    ['without limits', (m) => void Reflect.deleteProperty(m.gpu, 'limits'), /gpu\.limits\.maxBufferSize is missing/],
    ['without entries', (m) => void (m.gpu.entries = []), /gpu\.entries has 0 programs, expected 1/],
    ['with a shader that is not there', (m) => void (first(m).shader = 99), /gpu\.entries\[0\]\[0\] names shader 99, there are \d/],
    ['with a shader that does not say what it writes', (m) => void ((m.gpu.shaders[0] as { writes: unknown }).writes = 'all'), /gpu\.shaders\[0\] is malformed/],
    ['with fewer bindings than the shader has', (m) => void (first(m).bindings = []), /the bindings of gpu\.entries\[0\]\[0\] are malformed/],
    ['with a binding of a segment that is not there', (m) => void (first(m).bindings = first(m).bindings.map(() => [99, 0, 4] as const)), /the bindings of gpu\.entries\[0\]\[0\] are malformed/],
    ['without workgroups', (m) => void (first(m).workgroups = [1] as unknown as [number, number]), /the workgroups of gpu\.entries\[0\]\[0\] are malformed/],
    ['with a step that is not there', (m) => void (first(m).step = 99), /gpu\.entries\[0\]\[0\] names row 99 of \d+ steps/],
    ['with floats that are no names', (m) => void (m.gpu.floatInputs = 5 as unknown as string[]), /gpu\.floatInputs is malformed/],
    ['with bounds that are none', (m) => void (m.gpu.integerInputs = [0, 1.5]), /gpu\.integerInputs is missing or malformed/],
  ])('%s is refused by the name of what is wrong', async (_, change, message) => {
    const error = await load(changed(alone, change)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InputError);
    expect((error as Error).message).toMatch(message);
  });
});

describe.skipIf(!gpu)(onGpu('faults'), { timeout: 60_000 }, () => {
  const wild = changed(alone, (m) => void ((m.gpu.entries as unknown as { workgroups: number[] }[][])[0]![0]!.workgroups = [1_000_000, 1]));

  test.each([['a device of its own', undefined], ['a shared device', gpu]])('in what is submitted to %s are told, and no numbers are given', async (_, shared) => {
    await using session = await load(wild, shared ? { gpu: shared } : {});
    const error = await session.run(x).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(RunError);
    expect((error as Error).message).toMatch(/^the GPU refuses what the artifact asks for: Dispatch workgroup count X \(1000000\)/);
    expect((error as Error).message).not.toContain('\n');
  });

  test('of inputs leave the session as it is', async () => {
    const b = new Builder('gathered');
    const y = b.one('gather', [b.input({ dtype: 'f32', shape: [4] }, 'x'), b.input({ dtype: 'i64', shape: [2] }, 'at')], { axis: 0 });
    await using session = await load(await compiled(b.finish([{ name: 'y', value: y }])), { gpu: gpu! });
    const given = { x: Float32Array.of(10, 11, 12, 13) };
    await expect(session.run({ ...given, at: BigInt64Array.of(0n, 2n ** 40n) })).rejects.toBeInstanceOf(InputError);
    expect((await session.run({ ...given, at: BigInt64Array.of(3n, 1n) }))['y']!.data).toEqual(Float32Array.of(13, 11));
  });

  test('are no matter of size: results larger than any buffer that can be mapped at once come in pieces', async () => {
    // 272 MiB of results; 256 MiB is what a buffer has by default. The second ends within a word.
    const n = 2 ** 26 + 2 ** 20;
    const b = new Builder('large');
    const v = b.input({ dtype: 'f32', shape: [n] }, 'v');
    const artifact = await compiled(b.finish([{ name: 'small', value: b.one('slice', [v], { starts: [0], steps: [1], sizes: [3] }) }, { name: 'large', value: b.unary('neg', v) }]));
    await using session = await load(artifact, { backend: 'webgpu' });
    const data = new Float32Array(n);
    for (let i = 0; i < n; i += 4093) data[i] = i % 1000;
    const { small, large } = await session.run({ v: data });
    expect(small!.data).toEqual(data.slice(0, 3));
    const got = large!.data as Float32Array;
    expect(got.length).toBe(n);
    let wrong = 0;
    for (let i = 0; i < n; i++) if (got[i] !== -data[i]!) wrong++;
    expect(wrong).toBe(0);
  });

  test('of the device reach the command line as such, and --backend is kept to for folders', async () => {
    const out = join(folder, 'out');
    await digits.save(out);
    const picture = new URL('../examples/digit.png', import.meta.url).pathname;
    const onWasm = await tilewright(['run', out, '--backend', 'wasm', '--input', picture, '--top', '1', '--json']);
    expect(JSON.parse(onWasm.stdout)).toMatchObject({ features: 'simd' });
    const byGpu = await tilewright(['run', out, '--backend', 'wgsl', '--input', picture, '--top', '1', '--json']);
    expect(JSON.parse(byGpu.stdout)).toMatchObject({ features: 'webgpu', gpu: gpu!.adapter });
    const file = join(out, 'manifest.json');
    writeFileSync(file, JSON.stringify({ ...wild.manifest, fallback: digits.manifest.fallback }));
    const failed = await tilewright(['run', out, '--input', picture, '--top', '1']);
    expect(failed.code).toBe(2);
    expect(failed.stderr).toMatch(/^error: the GPU refuses what the artifact asks for/m);
    expect(failed.stderr).not.toContain('bug of tilewright');
  });
});
