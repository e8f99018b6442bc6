/** compile and load in code: results against plain arithmetic, other specialisations, typed bindings. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Project } from 'ts-morph';
import { afterAll, describe, expect, test } from 'vitest';
import { compile } from '../index.ts';
import { InputError, load } from '../runtime/index.ts';
import { bindings } from '../cli/driver/bindings.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-api-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** y = relu(x + w), x of n rows; z = x summed over the axes that an input names. */
const model = encodeModel({
  nodes: [node('Add', ['x', 'w'], ['s']), node('Relu', ['s'], ['y']), node('ReduceSum', ['x', 'axes'], ['z'], { keepdims: 0 })],
  inputs: [value('x', 'f32', ['n', 3]), value('axes', 'i64', [1])],
  outputs: [value('y', 'f32', ['n', 3]), value('z', 'f32')],
  initializers: [floats('w', [3], [0.5, -2, 1])],
});
const axes = (axis: number): { dtype: 'i64'; shape: number[]; data: BigInt64Array } => ({ dtype: 'i64', shape: [1], data: BigInt64Array.of(BigInt(axis)) });
const x = Float32Array.of(1, 2, -3, -1, 4, 5);
const y = Float32Array.of(1.5, 0, 0, 0, 2, 6);

describe('another specialisation', () => {
  test('computes on the inputs as they were when run() was called', async () => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    await using session = await load(artifact, { threads: 1 });
    const data = x.slice();
    const running = session.run({ x: { dtype: 'f32', shape: [2, 3], data } });
    data.fill(0);
    expect((await running)['y']!.data).toEqual(y);
  });

  test('is compiled by another thread: the event loop turns meanwhile', async () => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    let turns = 0;
    let compiling = true;
    const turn = (): void => {
      turns++;
      if (compiling) setImmediate(turn);
    };
    setImmediate(turn);
    const other = await artifact.recompile!({ shapes: { x: [2, 3] }, bound: {} });
    compiling = false;
    expect(other.manifest.inputs[0]!.shape).toEqual([2, 3]);
    // Compiled by this thread it turns a few times, between stages.
    expect(turns).toBeGreaterThan(100);
  });

  test.each([['one after the other', false], ['at once', true]])('has what the compiler makes for its shape: specialisations that are asked for %s', async (_, atOnce) => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    await using session = await load(artifact, { threads: 1 });
    const ask = async (rows: number): Promise<void> => {
      const data = Float32Array.from({ length: 3 * rows }, (_, i) => Math.sin(i));
      const { y: got, z } = await session.run({ x: { dtype: 'f32', shape: [rows, 3], data }, axes: axes(0) });
      const sums = Float64Array.of(0, 0, 0);
      data.forEach((v, i) => {
        const s = Math.fround(v + [0.5, -2, 1][i % 3]!);
        expect(got!.data[i]).toBe(Math.max(0, s));
        sums[i % 3]! += v;
      });
      expect(z!.shape).toEqual([3]);
      sums.forEach((s, i) => expect(Math.abs(Number(z!.data[i]) - s)).toBeLessThan(1e-5));
    };
    if (atOnce) await Promise.all([2, 5, 3].map(ask));
    else for (const rows of [2, 5, 3]) await ask(rows);
  });

  test('that the compiler refuses is an InputError with its words, and the next one is compiled', async () => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    await using session = await load(artifact, { threads: 1 });
    await expect(session.run({ x: { dtype: 'f32', shape: [2, 4], data: new Float32Array(8) } })).rejects.toBeInstanceOf(InputError);
    await expect(session.run({ x: { dtype: 'f32', shape: [2, 4], data: new Float32Array(8) } })).rejects.toThrow(/cannot be compiled for these inputs: .*x/);
    expect((await session.run({ x: { dtype: 'f32', shape: [2, 3], data: x } }))['y']!.data).toEqual(y);
  });

  test('is refused by runSync without being started', async () => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    let compiled = 0;
    const counting = { ...artifact, recompile: (wanted: Parameters<NonNullable<typeof artifact.recompile>>[0]) => (compiled++, artifact.recompile!(wanted)) };
    await using session = await load(counting, { threads: 1, sync: true });
    expect(() => session.runSync({ x: { dtype: 'f32', shape: [2, 3], data: x } })).toThrow(/runSync cannot compile/);
    expect(compiled).toBe(0);
  });

  test('has no hook of its own: one that does not fit what was asked for is refused, not compiled again', async () => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    let compiled = 0;
    await using session = await load({ ...artifact, recompile: undefined as never }, { threads: 1, recompile: async () => (compiled++, artifact) });
    await expect(session.run({ x: { dtype: 'f32', shape: [2, 3], data: x } })).rejects.toThrow(/has shape \[2,3\], expected f32\[1,3\].*loaded without the compiler/);
    expect(compiled).toBe(1);
  });

  test('is refused where the file of the model has been written again', async () => {
    const file = join(folder, 'watched.onnx');
    writeFileSync(file, model);
    await using session = await load(await compile(file, { dims: { n: 1 }, values: { axes: axes(1) } }), { threads: 1 });
    const ask = (rows: number): Promise<unknown> => session.run({ x: { dtype: 'f32', shape: [rows, 3], data: new Float32Array(3 * rows) } });
    await ask(2);
    writeFileSync(file, model);
    await expect(ask(3)).rejects.toThrow(/watched\.onnx has changed since it was compiled/);
    await expect(ask(3)).rejects.toBeInstanceOf(InputError);
    rmSync(file);
    await expect(ask(3)).rejects.toThrow(/watched\.onnx is no longer there/);
    await ask(2);
  });

  test('is closed with its session, also by the second of two calls', async () => {
    const artifact = await compile(model, { dims: { n: 1 }, values: { axes: axes(1) } });
    const session = await load(artifact, { threads: 1 });
    await session.run({ x: { dtype: 'f32', shape: [2, 3], data: x } });
    const first = session.close();
    let done = false;
    void first.then(() => (done = true));
    await session.close();
    expect(done).toBe(true);
  });
});

describe('compile', () => {
  test('binds dimensions and values, and says which inputs have to be bound', async () => {
    await expect(compile(model, { dims: { n: 2 } })).rejects.toThrow(/axes/);
    const artifact = await compile(model, { dims: { n: 2 }, values: { axes: axes(1) } });
    expect(artifact.manifest).toMatchObject({ dims: { n: 2 }, bound: [{ name: 'axes', dtype: 'i64', shape: [1], value: ['1'] }] });
    await using session = await load(artifact, { threads: 2 });
    expect(session.inputs).toEqual([{ name: 'x', dtype: 'f32', shape: [2, 3] }]);
    const result = await session.run({ x });
    expect(result['y']).toEqual({ dtype: 'f32', shape: [2, 3], data: y });
    expect(result['z']).toEqual({ dtype: 'f32', shape: [2], data: Float32Array.of(0, 8) });
  });

  test('a session from memory compiles another shape or value once, one from a folder says that it cannot', async () => {
    const artifact = await compile(model, { dims: { n: 2 }, values: { axes: axes(1) } });
    await using session = await load(artifact, { threads: 1 });
    const one = { dtype: 'f32' as const, shape: [1, 3], data: Float32Array.of(1, 1, 1) };
    for (let i = 0; i < 2; i++) expect((await session.run({ x: one }))['z']).toEqual({ dtype: 'f32', shape: [1], data: Float32Array.of(3) });
    expect((await session.run({ x, axes: [0] }))['z']).toEqual({ dtype: 'f32', shape: [3], data: Float32Array.of(0, 6, 2) });
    expect((await session.run({ x, axes: [1] }))['z']!.data).toEqual(Float32Array.of(0, 8));
    const wide = { dtype: 'f32' as const, shape: [1, 4], data: new Float32Array(4) };
    await expect(session.run({ x: wide })).rejects.toThrow(InputError);

    await artifact.save(join(folder, 'out'));
    await using saved = await load(join(folder, 'out'), { threads: 1 });
    expect((await saved.run({ x }))['y']!.data).toEqual(y);
    await expect(saved.run({ x: one })).rejects.toThrow(/shape \[1,3\], expected f32\[2,3\].*loaded without the compiler.*--dim n=/);
    await expect(saved.run({ x, axes: [0] })).rejects.toThrow(/"axes" was bound.*loaded without the compiler.*--value/);
  });

  test.each(['relaxed', 'simd', 'plain'] as const)('every feature set computes it: %s', async (features) => {
    await using session = await load(await compile(model, { dims: { n: 2 }, values: { axes: axes(1) }, features: [features] }), { threads: 2 });
    expect(session.features).toBe(features);
    expect((await session.run({ x }))['y']!.data).toEqual(y);
  });
});

describe('bindings', () => {
  test('are typed by the model: a wrong name or dtype is a type error', async () => {
    const { manifest } = await compile(model, { dims: { n: 2 }, values: { axes: axes(1) } });
    const { declarations } = await bindings({ ...manifest, outputs: [{ ...manifest.outputs[0]!, name: 'y/1:*/0' }] });
    const root = join(import.meta.dirname, '..');
    const project = new Project({ tsConfigFilePath: join(root, 'tsconfig.json'), skipAddingFilesFromTsConfig: true, compilerOptions: { paths: { 'tilewright/runtime': [join(root, 'runtime/index.ts')] } } });
    project.createSourceFile(join(root, 'model.d.ts'), declarations);
    const problems = (body: string): string[] => {
      const file = project.createSourceFile(join(root, 'use-bindings.ts'), `import { load } from './model.js';\nconst session = await load({ threads: 1 });\n${body}`, { overwrite: true });
      return file.getPreEmitDiagnostics().map((d) => d.getMessageText()).map((m) => (typeof m === 'string' ? m : m.getMessageText()));
    };
    expect(problems(`const r = await session.run({ x: new Float32Array(6) }); const f: Float32Array = r['y/1:*/0'].data; void f; await session.close();`)).toEqual([]);
    expect(problems(`await session.run({ x: [1, 2, 3, 4, 5, 6], axes: [1n] });`)).toEqual([]);
    expect(problems(`await session.run({ w: [1] });`)[0]).toMatch(/'w' does not exist in type 'Inputs'/);
    expect(problems(`await session.run({ x: new Float64Array(6) });`)[0]).toMatch(/Float64Array/);
    expect(problems(`(await session.run({ x: [1] })).y;`)[0]).toMatch(/Property 'y' does not exist on type 'Outputs'/);
    expect(declarations).toContain('/** f32[2,3] */');
  });
});
