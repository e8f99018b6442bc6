import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { control } from '../runtime/control.ts';
import { InputError, load, type loadSession, type ArtifactObject, type Session } from '../runtime/index.ts';
import { poison, tinyArtifact, tinyInput, tinyResult } from './tiny-artifact.ts';

const open: Session[] = [];
const folder = mkdtempSync(join(tmpdir(), 'tilewright-'));
afterEach(async () => {
  await Promise.all(open.splice(0).map((s) => s.close()));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function session(...args: Parameters<typeof loadSession>): Promise<Session> {
  const s = await load(...args);
  open.push(s);
  return s;
}

function writeArtifact(artifact: ArtifactObject, to: string): void {
  for (const [file, bytes] of Object.entries(artifact.modules)) writeFileSync(join(to, file), bytes);
  writeFileSync(join(to, 'manifest.json'), JSON.stringify(artifact.manifest));
  writeFileSync(join(to, 'weights.safetensors'), artifact.weights as Uint8Array);
}

describe('a session', () => {
  test.each([1, 2, 3, 5])('computes the same on %i threads', async (threads) => {
    const s = await session(tinyArtifact(), { threads });
    expect(s.threads).toBe(threads);
    for (let seed = 0; seed < 20; seed++) {
      const x = tinyInput(seed);
      const { y } = await s.run({ x });
      expect(y).toEqual({ dtype: 'f32', shape: [1024], data: tinyResult(x) });
    }
  });

  test('runs calls made at once in order, each on the inputs it was given', async () => {
    const s = await session(tinyArtifact(), { threads: 2 });
    const x = new Float32Array(1024);
    const runs: Promise<unknown>[] = [];
    const wanted: Float32Array[] = [];
    const ended: number[] = [];
    for (let seed = 0; seed < 10; seed++) {
      x.set(tinyInput(seed));
      wanted.push(tinyResult(x));
      runs.push(s.run({ x }).then(({ y }) => (ended.push(seed), y!.data)));
    }
    expect(await Promise.all(runs)).toEqual(wanted);
    expect(ended).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('works beside other sessions, one of them synchronous', async () => {
    const sessions = await Promise.all([session(tinyArtifact(), { threads: 2 }), session(tinyArtifact(), { threads: 1 }), session(tinyArtifact(), { threads: 2, sync: true })]);
    const results = await Promise.all(sessions.map((s, i) => s.run({ x: tinyInput(i) })));
    for (const [i, r] of results.entries()) expect(r['y']!.data).toEqual(tinyResult(tinyInput(i)));
    expect(sessions[2].runSync({ x: tinyInput(9) })['y']!.data).toEqual(tinyResult(tinyInput(9)));
    expect(() => sessions[0].runSync({ x: tinyInput() })).toThrow('sync: true');
  });

  test('takes no more threads than the artifact allows', async () => {
    const limited = await session(tinyArtifact({ maxThreads: 2 }), { threads: 8 });
    expect({ threads: limited.threads, notices: limited.notices }).toEqual({ threads: 2, notices: [expect.stringMatching(/^threads: 8 were asked for, .* at most 2/)] });
    expect((await session(tinyArtifact({ maxThreads: 2 }))).notices).toEqual([]);
    await expect(load(tinyArtifact(), { threads: 0 })).rejects.toThrow('threads is 0');
  });

  test.each([{ threads: 1 }, { threads: 3 }, { threads: 3, sync: true }])('names the step of a trap and is closed after it (%o)', async (options) => {
    const s = await session(tinyArtifact(), options);
    const x = tinyInput();
    x[700] = poison;
    await expect(s.run({ x })).rejects.toThrow(/^step 0 \(square, from Mul\(first\)\) failed/);
    await expect(s.run({ x: tinyInput() })).rejects.toThrow('an earlier run failed');
  });

  test('finishes what was asked for before it closes, then refuses', async () => {
    const s = await session(tinyArtifact(), { threads: 2 });
    const first = s.run({ x: tinyInput(1) });
    const second = s.run({ x: tinyInput(2) });
    await s.close();
    expect((await first)['y']!.data).toEqual(tinyResult(tinyInput(1)));
    expect((await second)['y']!.data).toEqual(tinyResult(tinyInput(2)));
    await expect(s.run({ x: tinyInput() })).rejects.toThrow('the session is closed');
  });

  test('reports its memory', async () => {
    const s = await session(tinyArtifact(), { threads: 3 });
    expect(s.memory).toEqual({ weights: 4096, io: 8192, activations: 0, scratch: 192, total: control.size + 12 * 1024 + 192 });
  });

  test('loads from a folder, a file URL and over HTTP', async () => {
    const artifact = tinyArtifact();
    writeArtifact(artifact, folder);
    const asked: string[] = [];
    const server = createServer((request, response) => {
      const file = request.url!.slice('/model/'.length);
      if (request.method === 'GET' && request.headers.range === undefined) asked.push(file);
      const body = file === 'manifest.json' ? JSON.stringify(artifact.manifest) : file === 'model.wasm' ? artifact.modules['model.wasm'] : artifact.weights;
      response.end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const port = (server.address() as { port: number }).port;
    try {
      for (const source of [folder, `${folder}/`, new URL(`file://${folder}`), `http://127.0.0.1:${port}/model`]) {
        const s = await session(source, { threads: 2 });
        expect((await s.run({ x: tinyInput() }))['y']!.data).toEqual(tinyResult(tinyInput()));
      }
      expect(asked.filter((file) => file === 'manifest.json')).toHaveLength(1);
    } finally {
      server.close();
    }
  });

  test('without shared memory works on one thread and says so', async () => {
    const isolated = Object.getOwnPropertyDescriptor(globalThis, 'crossOriginIsolated');
    Object.defineProperty(globalThis, 'crossOriginIsolated', { value: false, configurable: true });
    const warn = console.warn;
    const warnings: string[] = [];
    console.warn = (text: string) => warnings.push(text);
    try {
      const s = await session(tinyArtifact(), { threads: 4 });
      expect(s.threads).toBe(1);
      expect(s.notices[0]).toMatch(/^one thread: this page is not cross-origin isolated/);
      expect(warnings).toHaveLength(1);
      expect((await s.run({ x: tinyInput(3) }))['y']!.data).toEqual(tinyResult(tinyInput(3)));
      expect((await s.run({ x: tinyInput(4) }))['y']!.data).toEqual(tinyResult(tinyInput(4)));
      const x = tinyInput();
      x[5] = poison;
      await expect(s.run({ x })).rejects.toThrow(/^step 0 \(square/);
    } finally {
      console.warn = warn;
      if (isolated) Object.defineProperty(globalThis, 'crossOriginIsolated', isolated);
      else delete (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
    }
  });

  test('takes a wide module only if its numbers agree with the ordinary one', async () => {
    const s = await session(tinyArtifact({ brokenWide: true }), { threads: 2, wide: true });
    expect(s.features).toBe('plain');
    expect(s.notices[0]).toMatch(/^wide vectors: results differ/);
    expect((await s.run({ x: tinyInput() }))['y']!.data).toEqual(tinyResult(tinyInput()));
    expect((await session(tinyArtifact({ brokenWide: true }))).notices).toEqual([]);
    expect((await session(tinyArtifact(), { wide: true })).notices[0]).toMatch(/not compiled into this artifact/);
  });

  test('leaves the event loop free while it runs', async () => {
    const s = await session(tinyArtifact(), { threads: 2 });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const end = performance.now() + 60;
    while (performance.now() < end) await s.run({ x: tinyInput() });
    clearInterval(timer);
    await sleep(1);
    expect(ticks).toBeGreaterThan(10);
  });
});

describe('inputs', () => {
  const shape = [2, 512];
  test.each<[string, Record<string, never> | Record<string, unknown>, string]>([
    ['missing', {}, 'missing input "x" (f32[2,512])'],
    ['unknown', { x: tinyInput(), z: [1] }, 'there is no input "z"; the inputs are "x" (f32[2,512])'],
    ['unknown, close to a known one', { X: tinyInput() }, 'did you mean "x"?'],
    ['of another typed array', { x: new Float64Array(1024) }, 'input "x" is a Float64Array, expected a Float32Array for f32[2,512]'],
    ['of another length', { x: new Float32Array(5) }, 'input "x" has 5 elements, expected 1024 for f32[2,512]'],
    ['of another dtype', { x: { dtype: 'i32', shape, data: new Int32Array(1024) } }, 'input "x" is i32, expected f32[2,512]'],
    ['of another shape', { x: { dtype: 'f32', shape: [3, 512], data: new Float32Array(1536) } }, 'input "x" has shape [3,512], expected f32[2,512]. This artifact was loaded without the compiler'],
    ['not numbers', { x: ['a'].concat(new Array<string>(1023).fill('b')) }, 'input "x" holds the text "a" at depth 1, index 0, expected f32[2,512]'],
    ['null', { x: null }, 'input "x" is null, expected f32[2,512]'],
    ['undefined', { x: undefined }, 'missing input "x" (f32[2,512])'],
    ['a text', { x: 'abc' }, 'input "x" is the text "abc", expected f32[2,512]'],
    ['a symbol', { x: Symbol('s') }, 'input "x" is Symbol(s), expected f32[2,512]'],
    ['an empty object', { x: {} }, 'input "x" is an object without properties, expected f32[2,512]'],
    ['a map', { x: new Map() }, 'input "x" is a Map, expected f32[2,512]'],
    ['a tensor without a shape that can be', { x: { dtype: 'f32', shape: [-2, 512], data: tinyInput() } }, 'input "x" is a tensor whose shape is [-2,512], expected f32[2,512]'],
    ['a tensor of a shape that is none', { x: { dtype: 'f32', shape: '2,512', data: tinyInput() } }, 'input "x" is a tensor whose shape is the text "2,512", expected f32[2,512]'],
    ['a tensor of an unknown dtype', { x: { dtype: 'toString', shape, data: tinyInput() } }, 'input "x" is a tensor of the dtype the text "toString", expected f32[2,512]'],
    ['a tensor with data of another kind', { x: { dtype: 'f32', shape, data: [1, 2] } }, 'input "x" is a tensor whose data is an array, not a typed array, expected f32[2,512]'],
    ['a tensor with data of another length', { x: { dtype: 'f32', shape, data: new Float32Array(5) } }, 'input "x" is a tensor whose shape [2,512] has 1024 elements and whose data has 5, expected f32[2,512]'],
    ['a view without elements', { x: new DataView(new ArrayBuffer(4096)) }, 'input "x" is a DataView, expected a Float32Array'],
    ['ragged', { x: [new Array(512).fill(1), new Array(511).fill(1)] }, 'input "x" is ragged: arrays at depth 2 have 512 and 511 elements'],
    ['nested in part', { x: [[1], 2] }, 'input "x" is ragged: at depth 1 some elements are arrays and some are not'],
    ['with a hole', { x: new Array(1024) }, 'input "x" holds undefined at depth 1, index 0'],
    ['a bound value of another kind', { x: tinyInput(), axis: null }, 'input "axis" is null, expected i64[1]'],
    ['no object', undefined as never, 'the inputs are undefined, expected an object with a value for each input: "x" (f32[2,512])'],
    ['a list', [tinyInput()] as never, 'the inputs are an array, expected an object with a value for each input'],
    ['bound to another value', { x: tinyInput(), axis: [0] }, 'input "axis" was bound to a value when the model was compiled, and another was given'],
  ])('%s are refused by name', async (_, inputs, message) => {
    const s = await session(tinyArtifact(), { threads: 1 });
    const refusal = s.run(inputs as never);
    await expect(refusal).rejects.toThrow(message);
    await expect(refusal).rejects.toBeInstanceOf(InputError);
    expect((await s.run({ x: tinyInput() }))['y']!.data).toEqual(tinyResult(tinyInput()));
  });

  test('may be tensors, typed arrays, flat or nested numbers, and repeat a bound value', async () => {
    const s = await session(tinyArtifact(), { threads: 1 });
    const data = tinyInput();
    const flat = [...data];
    for (const x of [{ dtype: 'f32' as const, shape, data }, data, flat, [flat.slice(0, 512), flat.slice(512)]]) {
      expect((await s.run({ x, axis: 1n }))['y']!.data).toEqual(tinyResult(data));
    }
  });

  test('of another shape or bound value are compiled once where a compiler is at hand', async () => {
    const asked: unknown[] = [];
    const s = await session(tinyArtifact(), {
      threads: 1,
      async recompile(wanted) {
        asked.push(wanted.shapes, Object.keys(wanted.bound));
        const artifact = tinyArtifact();
        const [input] = artifact.manifest.inputs;
        return { ...artifact, manifest: { ...artifact.manifest, inputs: [{ ...input!, shape: wanted.shapes['x']! }] } };
      },
    });
    const x = { dtype: 'f32' as const, shape: [4, 256], data: tinyInput() };
    for (let i = 0; i < 3; i++) expect((await s.run({ x }))['y']!.data).toEqual(tinyResult(x.data));
    expect(asked).toEqual([{ x: [4, 256] }, []]);
  });
});

describe('an artifact that does not fit together is refused', () => {
  const cases: [string, (a: ArtifactObject) => ArtifactObject, string][] = [
    ['another format', (a) => ({ ...a, manifest: { ...a.manifest, format: 'x' as 'tilewright' } }), 'does not say "format": "tilewright"'],
    ['another version', (a) => ({ ...a, manifest: { ...a.manifest, version: 2 as 1 } }), 'its version is 2'],
    ['an output outside memory', (a) => ({ ...a, manifest: { ...a.manifest, outputs: [{ name: 'y', dtype: 'f32', shape: [1 << 20], address: 4096 }] } }), '"y" lies outside the memory'],
    ['a weight over the control block', (a) => ({ ...a, manifest: { ...a.manifest, weights: [{ name: 'w', address: 0, bytes: 4096 }] } }), '"w" lies outside the memory'],
    ['weights of another model', (a) => ({ ...a, manifest: { ...a.manifest, weights: [{ name: 'v', address: control.size, bytes: 4 }] } }), 'lacks the tensor "v"'],
    ['weights of another size', (a) => ({ ...a, manifest: { ...a.manifest, weights: [{ name: 'w', address: control.size, bytes: 4 }] } }), 'tensor "w" has 4096 bytes, the manifest expects 4'],
    ['truncated weights', (a) => ({ ...a, weights: (a.weights as Uint8Array).subarray(0, 2000) }), 'weights.safetensors'],
    ['a broken module', (a) => ({ ...a, modules: { 'model.wasm': new Uint8Array(100) } }), 'is not a WebAssembly module'],
  ];
  test.each(cases)('%s', async (_, change, message) => {
    await expect(load(change(tinyArtifact()), { threads: 1 })).rejects.toThrow(message);
  });

  test('a folder that is missing or holds something else', async () => {
    await expect(load(join(folder, 'nowhere'))).rejects.toThrow(/cannot read .*nowhere\/manifest\.json: it does not exist/);
  });
});

describe('a process', () => {
  const script = (body: string): { status: number | null; stdout: string; stderr: string } => {
    const file = join(folder, 'script.ts');
    const root = join(import.meta.dirname, '..');
    writeFileSync(file, `import { load } from '${root}/runtime/index.ts';\nimport { tinyArtifact, tinyInput } from '${root}/test/tiny-artifact.ts';\n${body}`);
    return spawnSync(process.execPath, ['--no-warnings', file], { encoding: 'utf8', timeout: 20_000 });
  };
  test('ends by itself with sessions open and idle', () => {
    expect(script(`const s = await load(tinyArtifact(), { threads: 3 }); await s.run({ x: tinyInput() }); console.log('end');`)).toMatchObject({ status: 0, stdout: 'end\n' });
  });
  test('stays alive while a run is awaited, and leaves no thread behind after close', () => {
    const { stdout, status } = script(`
      import { readdirSync } from 'node:fs';
      const threads = () => process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0;
      await (await load(tinyArtifact(), { threads: 2 })).close();
      const before = threads();
      for (let i = 0; i < 5; i++) { const s = await load(tinyArtifact(), { threads: 4 }); await s.run({ x: tinyInput() }); await s.close(); }
      console.log(threads() - before);`);
    expect({ stdout, status }).toEqual({ stdout: '0\n', status: 0 });
  });
});
