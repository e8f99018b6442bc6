/** What an artifact is: modules that need a memory and nothing else, the same bytes from every compilation, the same bits on any number of threads. */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';
import { afterAll, describe, expect, it } from 'vitest';
import { weightsOf } from '../cli/driver/manifest.ts';
import { compile } from '../index.ts';
import { control } from '../runtime/control.ts';
import { load, type Tensor } from '../runtime/index.ts';
import { sampleTensors } from '../runtime/selfcheck.ts';

const root = join(import.meta.dirname, '..');
const mnist = join(root, 'examples/mnist_cntk.onnx');
const shared = join(root, '../shared/models');
const folder = mkdtempSync(join(tmpdir(), 'tilewright-artifact-'));
afterAll(() => rmSync(folder, { recursive: true }));

const bytesIn = (data: Tensor['data']): Uint8Array => new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('the modules of an artifact', () => {
  it('import a memory and nothing else, and one exported call is a whole run', async () => {
    const artifact = await compile(mnist);
    const { manifest, modules } = artifact;
    expect(manifest.modules.map((m) => m.features)).toEqual(['relaxed', 'simd', 'plain']);
    const inputs = sampleTensors(manifest.inputs);
    await using session = await load(artifact, { threads: 1 });
    const want = (await session.run(inputs))[manifest.outputs[0]!.name]!.data as Float32Array;
    for (const binary of Object.values(modules)) {
      const module = new WebAssembly.Module(binary as Uint8Array<ArrayBuffer>);
      expect(WebAssembly.Module.imports(module)).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }]);
      expect(WebAssembly.Module.exports(module)).toEqual([{ name: 'run', kind: 'function' }]);

      // No runtime: the memory is filled by hand, run is called once.
      const pages = Math.ceil((manifest.memory.scratch + manifest.memory.scratchPerThread) / 65536);
      const memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
      const instance = new WebAssembly.Instance(module, { env: { memory } });
      const bytes = new Uint8Array(memory.buffer);
      for (const { data, address } of weightsOf(artifact.program)) bytes.set(bytesIn(data), address);
      for (const i of manifest.inputs) bytes.set(bytesIn(inputs[i.name]!.data), i.address);
      new Int32Array(memory.buffer)[control.threads / 4] = 1;
      (instance.exports['run'] as (thread: number) => void)(0);
      const got = new Float32Array(bytes.slice(manifest.outputs[0]!.address, manifest.outputs[0]!.address + want.byteLength).buffer);
      const largest = want.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
      got.forEach((x, i) => expect(Math.abs(x - want[i]!)).toBeLessThanOrEqual(1e-5 * largest));
    }
  });

  it('import a clock too in a profiling build alone', async () => {
    const { modules } = await compile(mnist, { profile: true, features: ['simd'] });
    const module = new WebAssembly.Module(Object.values(modules)[0] as Uint8Array<ArrayBuffer>);
    expect(WebAssembly.Module.imports(module).map((i) => `${i.kind} ${i.name}`).sort()).toEqual(['function clock', 'memory memory']);
  });
});

it('two compilations, in processes of their own, write the same bytes', () => {
  const hashes = ['a', 'b'].map((name) => {
    const out = join(folder, name);
    execFileSync(process.execPath, [join(root, 'cli/tilewright.js'), 'compile', mnist, '-o', out], { stdio: 'ignore' });
    return Object.fromEntries(readdirSync(out).sort().map((f) => [f, sha(readFileSync(join(out, f)))]));
  });
  expect(Object.keys(hashes[0]!)).toEqual(['manifest.json', 'model.d.ts', 'model.js', 'model.plain.wasm', 'model.simd.wasm', 'model.wasm', 'weights.safetensors']);
  expect(hashes[1]).toEqual(hashes[0]);
});

describe('the number of threads changes no bit', () => {
  const models = ['mnist_cntk', 'squeezenet1_1', 'gtcrn_stream', 'micro_kws_m_qdq', 'yunet_n_320'].map((name) => (name === 'mnist_cntk' ? mnist : join(shared, `${name}.onnx`)));
  for (const model of models) {
    const absent = !existsSync(model);
    it.skipIf(absent)(`${model.slice(model.lastIndexOf('/') + 1)}${absent ? ' (skipped: ../shared/models is not there)' : ''}`, { timeout: 60_000 }, async () => {
      const artifact = await compile(model);
      const inputs = sampleTensors(artifact.manifest.inputs);
      for (const features of ['relaxed', 'plain'] as const) {
        let first: string | undefined;
        for (const threads of [1, 2, 3]) {
          await using session = await load(artifact, { threads, features });
          // Chunks go to whichever thread asks first, so a second run shares the work out in another way.
          for (let i = 0; i < 2; i++) {
            const bits = hashOf(await session.run(inputs));
            first ??= bits;
            expect(bits, `${features}, ${threads} threads`).toBe(first);
          }
        }
      }
    });
  }
});

function hashOf(outputs: Readonly<Record<string, Tensor>>): string {
  return Object.entries(outputs).map(([name, { data }]) => `${name} ${sha(bytesIn(data))}`).join('\n');
}
