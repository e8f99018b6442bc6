/** Every wait for a GPU has a bound: a WebGPU that stops answering at one call or another. */
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { compile } from '../index.ts';
import { load, RunError } from '../runtime/index.ts';
import { patience } from '../runtime/webgpu/device.ts';

const artifact = await compile(readFileSync(new URL('../examples/mnist_cntk.onnx', import.meta.url)), { backend: 'wgsl' });
const x = { [artifact.manifest.inputs[0]!.name]: new Float32Array(784) };

type Silent = 'requestAdapter' | 'requestDevice' | 'createComputePipelineAsync' | 'popErrorScope' | 'mapAsync' | 'nothing';
const never = (): Promise<never> => new Promise(() => {});

/** As much of WebGPU as loading and running takes. It computes nothing, and one call is never answered. */
function gpuWithout(silent: Silent): object {
  const answer = (call: Silent, value: unknown): Promise<unknown> => (call === silent ? never() : Promise.resolve(value));
  const nothing = (): void => {};
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, dispatchWorkgroupsIndirect: nothing, end: nothing };
  const device = {
    features: { has: () => false }, limits: {}, lost: never(), queue: { submit: nothing, writeBuffer: nothing, onSubmittedWorkDone: () => Promise.resolve() }, destroy: nothing,
    createBuffer: ({ size }: { size: number }) => ({ size, mapAsync: () => answer('mapAsync', undefined), getMappedRange: (_: number, bytes: number) => new ArrayBuffer(bytes), unmap: nothing, destroy: nothing }),
    createShaderModule: () => ({}), createBindGroupLayout: () => ({}), createPipelineLayout: () => ({}), createBindGroup: () => ({}), createComputePipelineAsync: () => answer('createComputePipelineAsync', {}),
    createCommandEncoder: () => ({ beginComputePass: () => pass, copyBufferToBuffer: nothing, finish: () => ({}) }), pushErrorScope: nothing, popErrorScope: () => answer('popErrorScope', null),
  };
  const adapter = { features: { has: () => false }, limits: new Proxy({}, { get: () => 2 ** 31 }), info: { vendor: 'silent' }, requestDevice: () => answer('requestDevice', device) };
  return { requestAdapter: () => answer('requestAdapter', adapter) };
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 500; turn++) await new Promise((resolve) => setImmediate(resolve));
};

async function loadAndRun(): Promise<readonly number[]> {
  const session = await load(artifact, { backend: 'webgpu' });
  const [y] = Object.values(await session.run(x));
  await session.close();
  return y!.shape;
}

afterEach(() => {
  vi.useRealTimers();
  Reflect.deleteProperty(navigator, 'gpu');
});

describe('a GPU that does not answer', () => {
  test('is what the silence makes of it: one that answers all runs to the end', async () => {
    Object.defineProperty(navigator, 'gpu', { value: gpuWithout('nothing'), configurable: true });
    expect(await loadAndRun()).toEqual([1, 10]);
  });

  test.each([
    ['requestAdapter', 'WebGPU named no adapter within 30 s', patience.device],
    ['requestDevice', 'the GPU adapter made no device within 30 s', patience.device],
    ['createComputePipelineAsync', 'the GPU driver did not compile the shaders within 300 s', patience.pipelines],
    // First asked whether a shader's text is right.
    ['popErrorScope', 'the GPU driver did not compile the shaders within 300 s', patience.pipelines],
    ['mapAsync', 'the GPU did not finish its work within 600 s', patience.run],
  ] as const)('to %s is given up: %s', async (silent, message, limit) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    Object.defineProperty(navigator, 'gpu', { value: gpuWithout(silent), configurable: true });
    let ended: unknown;
    void loadAndRun().then((shape) => (ended = shape), (e: unknown) => (ended = e));
    // Until only the silent call is waited for: what is answered takes turns of the event loop, and none of the clock.
    await turns();
    await vi.advanceTimersByTimeAsync(limit - 1);
    expect(ended).toBeUndefined();
    // Once more as long, for the wait may have begun while the clock went.
    await vi.advanceTimersByTimeAsync(limit);
    await turns();
    expect(ended).toBeInstanceOf(RunError);
    expect((ended as Error).message).toBe(message);
  });
});

test('a WebGPU that names no adapter is told so, and WebAssembly named as the way out', async () => {
  Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: () => Promise.resolve(null) }, configurable: true });
  await expect(loadAndRun()).rejects.toThrow(/^there is no GPU adapter here.*compiled for wasm$/);
});
