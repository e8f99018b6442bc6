/** The commands on a real model, as a user runs them. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { readNpy, writeNpy } from '../runtime/index.ts';
import { digit, example, tilewright } from './cli-harness.ts';
import { poison, tinyArtifact } from './tiny-artifact.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

async function ok(args: readonly string[]): Promise<string> {
  const result = await tilewright(args);
  expect(result, result.stderr).toMatchObject({ code: 0 });
  return result.stdout;
}

describe('compile', () => {
  test('writes five files, the same bytes each time, and replaces an artifact', async () => {
    const [a, b] = [join(folder, 'a'), join(folder, 'b')];
    expect(await ok(['compile', example, '-o', a, '--features', 'relaxed'])).toMatch(/model\.wasm .*KiB, weights .*memory: /s);
    await ok(['compile', example, '-o', b, '--features', 'relaxed']);
    await ok(['compile', example, '-o', b, '--features', 'relaxed']);
    const files = ['manifest.json', 'model.d.ts', 'model.js', 'model.wasm', 'weights.safetensors'];
    expect(readdirSync(a).sort()).toEqual(files);
    expect(readdirSync(b).sort()).toEqual(files);
    for (const f of files) expect(readFileSync(join(a, f)).equals(readFileSync(join(b, f)))).toBe(true);
    expect(readdirSync(folder).filter((f) => f.startsWith('.'))).toEqual([]);
  });

  test('the module imports a memory alone and exports one function', async () => {
    const out = join(folder, 'imports');
    await ok(['compile', example, '-o', out, '--features', 'relaxed,plain']);
    for (const file of ['model.wasm', 'model.plain.wasm']) {
      const module = new WebAssembly.Module(readFileSync(join(out, file)));
      expect(WebAssembly.Module.imports(module)).toMatchObject([{ module: 'env', name: 'memory', kind: 'memory' }]);
      expect(WebAssembly.Module.exports(module)).toMatchObject([{ name: 'run', kind: 'function' }]);
    }
  });

  test('prints and dumps the IR, and stops where it is told', async () => {
    const dump = join(folder, 'ir');
    const stopped = await ok(['compile', example, '--stop-after', 'simplify', '--dump-ir', dump, '--print-after', 'import', '--locations', '-o', join(folder, 'none')]);
    expect(stopped.match(/^graph @CNTKGraph/gm)).toHaveLength(2);
    expect(stopped).toMatch(/conv %Input3.*Conv\(Convolution28\)/);
    expect(readdirSync(dump)[0]).toBe('00-import.ir');
    expect(readdirSync(dump).length).toBeGreaterThan(1);
    expect(existsSync(join(folder, 'none'))).toBe(false);
  });
});

describe('run', () => {
  test('reads a picture of a seven', async () => {
    const out = await ok(['run', example, '--input', digit, '--scale', '255', '--top', '2', '--threads', '2']);
    expect(out).toMatch(/^Plus214_Output_0 f32\[1,10\]\n +class +probability +score\n +7 +100\.0 %/);
    expect(out).toMatch(/compiled in .* ms, loaded in .* ms, ran in .* ms on 2 threads/);
  });

  test('an artifact gives the same as the model, as text, JSON and .npy', async () => {
    const input = join(folder, 'x.npy');
    writeFileSync(input, writeNpy({ dtype: 'f32', shape: [1, 1, 28, 28], data: Float32Array.from({ length: 784 }, (_, i) => (i * 7) % 256) }));
    const artifact = join(folder, 'artifact');
    await ok(['compile', example, '-o', artifact]);
    const results = join(folder, 'results');
    interface Facts { outputs: { Plus214_Output_0: { dtype: string; shape: number[]; data: number[] } }; threads: number }
    const a = JSON.parse(await ok(['run', artifact, '--input', `Input3=${input}`, '--json', '--threads', '1', '--output', results])) as Facts;
    const b = JSON.parse(await ok(['run', example, '--input', input, '--json', '--threads', '2'])) as Facts;
    expect(a.outputs).toEqual(b.outputs);
    expect([a.threads, b.threads]).toEqual([1, 2]);
    expect([...readNpy(readFileSync(join(results, 'Plus214_Output_0.npy'))).data]).toEqual(a.outputs.Plus214_Output_0.data);
  });
});

describe('a failure that is not the user’s', () => {
  test('exits with 70, names the step, and leaves a report', async () => {
    const artifact = tinyArtifact();
    const trapping = join(folder, 'trapping');
    mkdirSync(trapping);
    writeFileSync(join(trapping, 'manifest.json'), JSON.stringify(artifact.manifest));
    writeFileSync(join(trapping, 'model.wasm'), artifact.modules['model.wasm']!);
    writeFileSync(join(trapping, 'weights.safetensors'), artifact.weights as Uint8Array);
    const input = join(folder, 'poison.npy');
    writeFileSync(input, writeNpy({ dtype: 'f32', shape: [2, 512], data: new Float32Array(1024).fill(poison) }));
    const result = await tilewright(['run', trapping, '--input', `x=${input}`]);
    expect(result.code).toBe(70);
    expect(result.stderr).toMatch(/^internal error: step 0 \(square, from Mul\(first\)\) failed/);
    const report = /report it with (\S+)/.exec(result.stderr)![1]!;
    expect(readFileSync(report, 'utf8')).toMatch(/tilewright .*, Node v\d+.*RunError: step 0/s);
    rmSync(report);
  });
});

describe('inspect', () => {
  test('counts what can be counted by hand', async () => {
    // Multiply-adds: 28·28·8·25 + 14·14·16·8·25 + 256·10. Parameters: 200 + 8 + 3200 + 16 + 2560 + 10.
    const facts = JSON.parse(await ok(['inspect', example, '--json'])) as { multiplyAdds: number; parameters: number; ops: Record<string, number>; inputs: { type: string }[] };
    expect(facts.multiplyAdds).toBe(28 * 28 * 8 * 25 + 14 * 14 * 16 * 8 * 25 + 2560);
    expect(facts.parameters).toBe(5994);
    expect(facts.ops).toEqual({ Add: 3, Conv: 2, MaxPool: 2, Relu: 2, Reshape: 2, MatMul: 1 });
    expect(facts.inputs.map((i) => i.type)).toEqual(['f32[1,1,28,28]']);
  });
  test('prints the IR', async () => {
    expect(await ok(['inspect', example, '--ir'])).toMatch(/^graph @CNTKGraph\(%Input3: f32\[1,1,28,28\]\)/);
  });
});

describe('bench and profile', () => {
  test('bench compares with ONNX Runtime on the same inputs', async () => {
    const { results } = JSON.parse(await ok(['bench', example, '--against', 'onnxruntime-web', '--runs', '3', '--json'])) as { results: { runtime: string; difference: number; ratio: number; median: number }[] };
    expect(results.map((r) => r.runtime)).toEqual(['tilewright', 'onnxruntime-web']);
    expect(results[0]).toMatchObject({ ratio: 1, difference: 0 });
    expect(results[1]!.difference).toBeLessThan(1e-4);
  });
  test('profile runs an artifact that was compiled for it, and refuses another', async () => {
    const noted = join(folder, 'noted');
    await ok(['compile', example, '-o', noted, '--profile', '--features', 'relaxed']);
    expect(await ok(['profile', noted, '--runs', '2'])).toMatch(/Conv\(Convolution28\)/);
    await ok(['compile', example, '-o', noted, '--features', 'relaxed']);
    expect(await tilewright(['profile', noted])).toMatchObject({ code: 2, stderr: 'error: this artifact does not note times; compile it with --profile\n' });
  });
  test('profile lists every step and writes a trace', async () => {
    const trace = join(folder, 'trace.json');
    const facts = JSON.parse(await ok(['profile', example, '--runs', '3', '--trace', trace, '--json'])) as { totalMs: number; steps: { source: string[]; ms: number; share: number }[] };
    expect(facts.steps.flatMap((s) => s.source).some((s) => s.startsWith('Conv('))).toBe(true);
    expect(facts.steps.reduce((n, s) => n + s.share, 0)).toBeCloseTo(1);
    const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as { traceEvents: { ph: string; dur: number }[] };
    expect(traceEvents.filter((e) => e.ph === 'X')).toHaveLength(facts.steps.length);
  });
});
