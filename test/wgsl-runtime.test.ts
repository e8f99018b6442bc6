import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { compile, type Artifact } from '../index.ts';
import { Builder } from '../ir/builder.ts';
import { InputError, load, NoGpu, openGpu, RunError, ShaderError } from '../runtime/index.ts';
import type { GpuDevice } from '../runtime/webgpu/types.ts';
import { tilewright } from './cli-harness.ts';
import { compiled, gpu, numbers, onGpu } from './wgsl-harness.ts';

const model = new URL('../examples/mnist_cntk.onnx', import.meta.url);
const digits = (): Promise<Artifact> => compile(readFileSync(model), { backend: 'wgsl' });
const folder = mkdtempSync(join(tmpdir(), 'tilewright-wgsl-'));
afterAll(() => {
  gpu?.close();
  rmSync(folder, { recursive: true });
});

/** The sum of a gathered vector, by run-time indices. */
async function gathered(): Promise<Artifact> {
  const b = new Builder('gathered');
  const y = b.one('gather', [b.input({ dtype: 'f32', shape: [4] }, 'x'), b.input({ dtype: 'i64', shape: [2] }, 'at')], { axis: 0 });
  return compiled(b.finish([{ name: 'y', value: y }]));
}

/** A device that says that it lacks a feature. */
const lacking = (device: GpuDevice, feature: string): GpuDevice => new Proxy(device, {
  get(target, key) {
    if (key === 'features') return { has: (name: string) => name !== feature && target.features.has(name) };
    const value: unknown = Reflect.get(target, key);
    return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
  },
});

describe.skipIf(!gpu)(onGpu('a session'), { timeout: 60_000 }, () => {
  test('of an artifact gives what wasm gives, run after run, from memory and from its folder', async () => {
    const artifact = await digits();
    await artifact.save(join(folder, 'digits'));
    const input = { [artifact.manifest.inputs[0]!.name]: numbers([1, 1, 28, 28]) };
    await using wasm = await load(await compile(readFileSync(model)), { threads: 1 });
    const [want] = Object.values(await wasm.run(input));
    for (const source of [artifact, join(folder, 'digits')]) {
      await using session = await load(source);
      expect(session.features).toBe('webgpu');
      expect(session.notices.join()).toContain('GPU: ');
      for (let i = 0; i < 3; i++) {
        const [got] = Object.values(await session.run(input));
        (want!.data as Float32Array).forEach((y, k) => expect(Math.abs((got!.data as Float32Array)[k]! - y)).toBeLessThan(1e-5));
      }
    }
  });

  test('takes 64-bit integers that fit 32 bits, and names an input that holds others', async () => {
    await using session = await load(await gathered(), { gpu: gpu! });
    const x = Float32Array.of(10, 11, 12, 13);
    expect((await session.run({ x, at: BigInt64Array.of(3n, -4n) }))['y']!.data).toEqual(Float32Array.of(13, 10));
    const error = await session.run({ x, at: BigInt64Array.of(0n, 2n ** 40n) }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InputError);
    expect(String(error)).toContain('"at" holds 1099511627776');
  });

  test('casts floats to 64-bit integers that fit 32 bits, and names an input that holds others', async () => {
    const b = new Builder('cast');
    await using session = await load(await compiled(b.finish([{ name: 'y', value: b.cast(b.input({ dtype: 'f32', shape: [3] }, 'x'), 'i64') }])), { gpu: gpu! });
    expect((await session.run({ x: Float32Array.of(-2.5, 2 ** 30, NaN) }))['y']!.data).toEqual(BigInt64Array.of(-2n, 2n ** 30n, 0n));
    const error = await session.run({ x: Float32Array.of(0, 2 ** 31, 0) }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(InputError);
    expect(String(error)).toContain('"x" holds 2147483648');
  });

  test('keeps several models on one device', async () => {
    await using a = await load(await gathered(), { gpu: gpu! });
    await using b = await load(await digits(), { gpu: gpu! });
    const input = { [b.inputs[0]!.name]: numbers([1, 1, 28, 28]) };
    const first = Object.values(await b.run(input))[0]!;
    await a.run({ x: [1, 2, 3, 4], at: [0, 0] });
    expect(Object.values(await b.run(input))[0]!.data).toEqual(first.data);
  });

  test.each([['with', gpu], ['without', gpu && { ...gpu, device: lacking(gpu.device, 'timestamp-query') }]])('notes times of its steps in a profiling build, on a GPU %s timestamp-query', async (which, on) => {
    await using session = await load(await compile(readFileSync(model), { backend: 'wgsl', profile: true }), { gpu: on! });
    expect(session.notices.some((n) => n.includes('no timestamp-query'))).toBe(which === 'without');
    const input = { [session.inputs[0]!.name]: numbers([1, 1, 28, 28]) };
    const [first] = Object.values(await session.run(input));
    const begun = performance.now();
    const [second] = Object.values(await session.run(input));
    const took = performance.now() - begun;
    expect(second!.data).toEqual(first!.data);
    const steps = session.profile()!;
    expect(steps.map((s) => s.name)).toEqual(['contract(conv add relu)', 'maxPool', 'contract(conv add relu)', 'maxPool', 'contract(contract add)']);
    steps.forEach((s, i) => {
      expect(s.end).toBeGreaterThan(s.start);
      if (i > 0) expect(s.start).toBeGreaterThanOrEqual(steps[i - 1]!.end);
    });
    expect(steps.reduce((n, s) => n + s.end - s.start, 0)).toBeLessThan(took);
  });

  test('ends with its process: closed or not, and after a lost device and all that was made on it are collected', async () => {
    const script = `import { load, openGpu } from ${JSON.stringify(new URL('../runtime/index.ts', import.meta.url).href)};
      const how = process.argv[1];
      const digits = ${JSON.stringify(join(folder, 'digits'))};
      const x = (s) => ({ [s.inputs[0].name]: new Float32Array(784) });
      const once = async () => {
        const s = await load(digits);
        await s.run(x(s));
        if (how !== 'leave') await s.close();
      };
      const lost = async () => {
        const gpu = await openGpu();
        const s = await load(digits, { gpu });
        gpu.device.destroy();
        await s.run(x(s)).catch(() => {});
        await s.close();
        gpu.close();
      };
      if (how === 'collect') {
        await lost();
        for (let i = 0; i < 5; i++) {
          gc();
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
      await once();
      console.log('done');`;
    for (const how of ['close', 'leave', 'collect']) {
      const child = spawn(process.execPath, ['--expose-gc', '--input-type=module', '-e', script, '--', how], { stdio: ['ignore', 'pipe', 'inherit'] });
      let out = '';
      child.stdout.on('data', (d: Buffer) => (out += d.toString()));
      const code = await new Promise((resolve) => child.on('exit', (status, signal) => resolve(signal ?? status)));
      expect({ how, code, out }).toEqual({ how, code: 0, out: 'done\n' });
    }
  });
});

describe.skipIf(!gpu)(onGpu('a fault'), { timeout: 60_000 }, () => {
  test('of the device closes the session with its reason', async () => {
    const own = await openGpu();
    const session = await load(await gathered(), { gpu: own });
    own.close();
    const error = await session.run({ x: [1, 2, 3, 4], at: [0, 1] }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(RunError);
    expect(String(error)).toMatch(/device was lost/);
    await session.close();
  });

  test('in a shader names the fused op, the nodes it came from and the file that its text is in', async () => {
    const artifact = await digits();
    const [file] = Object.keys(artifact.shaders!);
    const broken = { ...artifact, shaders: { ...artifact.shaders, [file!]: artifact.shaders![file!]!.replace('fn main', 'fn main(') } };
    const error = await load(broken, { gpu: gpu! }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ShaderError);
    expect(String(error)).toMatch(/000-conv-add-relu-Convolution28\.wgsl of contract\(conv add relu\), from Conv\(Convolution28\), Add\(Plus30\), Relu\(ReLU32\): line \d+/);
    const dump = /Its text is in (\S+)/.exec(String(error))![1]!;
    expect(readFileSync(dump, 'utf8')).toBe(broken.shaders[file!]);
    rmSync(join(dump, '..'), { recursive: true });
  });

  test('of an adapter that offers less than the artifact needs is told with both numbers', async () => {
    const artifact = await digits();
    const { gpu: program } = artifact.manifest;
    const larger = { ...artifact, manifest: { ...artifact.manifest, gpu: { ...program!, limits: { ...program!.limits, maxComputeWorkgroupStorageSize: 2 ** 30 } } } };
    const error = await load(larger).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(NoGpu);
    expect(String(error)).toMatch(/maxComputeWorkgroupStorageSize = \d+, but this artifact needs 1073741824/);
  });
});

describe.skipIf(!gpu)(onGpu('the command line'), { timeout: 120_000 }, () => {
  test('compiles for WebGPU and runs the folder', async () => {
    const out = join(folder, 'by-cli');
    const made = await tilewright(['compile', model.pathname, '--backend', 'wgsl', '-o', out, '--json'], 100_000);
    expect(made.code).toBe(0);
    expect(readFileSync(join(out, 'shaders', '000-conv-add-relu-Convolution28.wgsl'), 'utf8')).toContain('@compute');
    const profile = await tilewright(['profile', model.pathname, '--backend', 'wgsl', '--runs', '2', '--json'], 100_000);
    expect(profile.code).toBe(0);
    expect((JSON.parse(profile.stdout) as { features: string }).features).toBe('webgpu');
  });

  test('refuses options of WebAssembly', async () => {
    const { code, stderr } = await tilewright(['compile', model.pathname, '--backend', 'wgsl', '--features', 'simd'], 100_000);
    expect(code).toBe(2);
    expect(stderr).toContain('--features');
  });
});
