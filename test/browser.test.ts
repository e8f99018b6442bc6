/** The runtime in a real browser, with threads and without: the same bits as in Node, a page that stays responsive, clear errors. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Browser, Page } from 'playwright-core';
import { PNG } from 'pngjs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { isolation } from '../examples/browser/serve.ts';
import { compile } from '../index.ts';
import { load, type ArtifactObject } from '../runtime/index.ts';
import { bundleRuntime, chromiumPath, emitRuntime, launch, serve, writePage } from './browser-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { poison, tinyArtifact, tinyInput } from './tiny-artifact.ts';

const root = join(import.meta.dirname, '..');
const png = PNG.sync.read(readFileSync(join(root, 'examples/digit.png')));
const digit = Array.from({ length: 784 }, (_, i) => png.data[4 * i]!);

/** Convolutions enough for a run of some hundred milliseconds. */
const channels = 64;
const side = 192;
const layers = 3;
const last = `x${layers}`;
const longModel = encodeModel({
  nodes: Array.from({ length: layers }, (_, i) => node('Conv', [`x${i}`, 'w'], [`x${i + 1}`], { pads: [2, 2, 2, 2], kernel_shape: [5, 5] })),
  inputs: [value('x0', 'f32', [1, channels, side, side])],
  outputs: [value(last, 'f32', [1, channels, side, side])],
  initializers: [floats('w', [channels, channels, 5, 5], Array.from({ length: channels * channels * 25 }, (_, i) => Math.sin(i) / 40))],
});

const bits = (data: ArrayLike<number>): number[] => [...new Uint32Array(Float32Array.from(data).buffer)];

function writeTiny(folder: string): void {
  const { manifest, modules, weights } = tinyArtifact();
  mkdirSync(folder);
  writeFileSync(join(folder, 'model.wasm'), modules['model.wasm']!);
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest));
  writeFileSync(join(folder, 'weights.safetensors'), weights as Uint8Array);
}

/** What a promise in Node rejects with. */
const messageOf = (work: Promise<unknown>): Promise<string> => work.then(() => 'nothing was wrong', (e: unknown) => String(e));

describe.skipIf(!chromiumPath)(chromiumPath ? 'in Chromium' : 'in Chromium (skipped: no chromium found; install it or name it by CHROMIUM)', { timeout: 60_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-browser-'));
  const place = (name: string): string => join(folder, name);
  const folders = { '/': folder, '/example/': join(root, 'examples/browser'), '/example/digit.png': join(root, 'examples/digit.png'), '/example/runtime/': place('emitted/runtime'), '/example/model/': place('digits') };
  const pages: Page[] = [];
  let browser: Browser;
  const servers: Record<string, Awaited<ReturnType<typeof serve>>> = {};
  let extra: Awaited<ReturnType<typeof serve>> | undefined;

  beforeAll(async () => {
    await (await compile(join(root, 'examples/mnist_cntk.onnx'))).save(place('digits'));
    await (await compile(longModel, { features: ['relaxed', 'simd'] })).save(place('long'));
    writeTiny(place('tiny'));
    await (await compile(join(root, 'examples/mnist_cntk.onnx'))).save(place('no-weights'));
    rmSync(place('no-weights/weights.safetensors'));
    await bundleRuntime(place('bundle/runtime.js'));
    emitRuntime(place('emitted'));
    writePage(folder, 'bundled', './bundle/runtime.js');
    writePage(folder, 'modules', './emitted/runtime/index.js');
    servers['isolated'] = await serve(folders, isolation);
    servers['not isolated'] = await serve(folders, {});
    browser = await launch();
  }, 120_000);
  afterEach(async () => {
    await Promise.all(pages.splice(0).map((p) => p.close()));
    await extra?.close();
    extra = undefined;
  });
  afterAll(async () => {
    await browser?.close();
    await Promise.all(Object.values(servers).map((s) => s.close()));
    rmSync(folder, { recursive: true });
  });

  /** Opens a page that holds the runtime; `before` runs in it first. */
  async function open(url: string, before?: () => void): Promise<Page> {
    const page = await browser.newPage();
    pages.push(page);
    if (before) await page.addInitScript(before);
    await page.goto(url);
    await page.waitForFunction(() => 'tilewright' in globalThis);
    return page;
  }

  /** Whether all workers of a page have ended, within a time that the browser needs to report it. */
  async function workersGone(page: Page): Promise<boolean> {
    for (let i = 0; i < 100 && page.workers().length > 0; i++) await page.waitForTimeout(20);
    return page.workers().length === 0;
  }

  test('the runtime is small, WebGPU and training included', () => {
    const file = readFileSync(place('bundle/runtime.js'));
    const packed = gzipSync(file, { level: 9 }).length;
    console.log(`runtime: ${file.length} bytes minified, ${packed} bytes gzipped`);
    for (const part of ['requestAdapter', 'trainStep']) expect(file.includes(part)).toBe(true);
    expect(packed).toBeLessThan(60_000);
  });

  describe.each([['isolated', 2], ['not isolated', 1]] as const)('a page that is %s', (kind, threads) => {
    const url = (page = 'bundled'): string => `${servers[kind]!.url}/${page}.html`;

    test.each(['bundled', 'modules'])('classifies with the runtime %s', async (form) => {
      const warnings: string[] = [];
      const page = await open(url(form));
      page.on('console', (m) => warnings.push(m.text()));
      const got = await page.evaluate(async (picture) => {
        const session = await tilewright.load('digits/', { threads: 2 });
        const { Plus214_Output_0: scores } = await session.run({ Input3: Float32Array.from(picture) });
        return { isolated: crossOriginIsolated, threads: session.threads, notices: session.notices, dtype: scores!.dtype, shape: scores!.shape, scores: Array.from(scores!.data as Float32Array) };
      }, digit);
      expect(page.workers()).toHaveLength(threads);
      expect(got.isolated).toBe(kind === 'isolated');
      expect(got.threads).toBe(threads);
      expect(got).toMatchObject({ dtype: 'f32', shape: [1, 10] });
      expect(got.scores.indexOf(Math.max(...got.scores))).toBe(7);
      if (kind === 'isolated') expect(got.notices).toEqual([]);
      else expect(got.notices).toEqual([expect.stringMatching(/one thread.*Cross-Origin-Opener-Policy: same-origin.*Cross-Origin-Embedder-Policy: require-corp/)]);
      expect(warnings).toEqual(got.notices.map((n) => `tilewright: ${n}`));
    });

    test.each(['relaxed', 'simd', 'plain'] as const)("computes Node's bits with the module %s", async (features) => {
      const page = await open(url());
      const got = await page.evaluate(async ([picture, wanted]) => {
        const session = await tilewright.load('digits/', { threads: 2, features: wanted });
        const runs = await Promise.all([1, 2, 3].map((scale) => session.run({ Input3: picture.map((p) => p / scale) })));
        return { features: session.features, scores: runs.map((r) => Array.from(r['Plus214_Output_0']!.data as Float32Array)) };
      }, [digit, features] as const);
      await using session = await load(place('digits'), { threads: 1, features });
      const want: number[][] = [];
      for (const scale of [1, 2, 3]) want.push(bits((await session.run({ Input3: digit.map((p) => p / scale) }))['Plus214_Output_0']!.data as Float32Array));
      expect(got.features).toBe(features);
      expect(got.scores.map(bits)).toEqual(want);
    });

    test('stays responsive while a model runs', async () => {
      const page = await open(url());
      const got = await page.evaluate(async ([count, output]) => {
        const session = await tilewright.load('long/', { threads: 2 });
        const x0 = Float32Array.from({ length: count }, (_, i) => ((i * 37) % 101) / 101 - 0.5);
        const at = [performance.now()];
        const timer = setInterval(() => at.push(performance.now()), 5);
        const y = (await session.run({ x0 }))[output]!.data as Float32Array;
        clearInterval(timer);
        at.push(performance.now());
        const pauses = at.slice(1).map((t, i) => t - at[i]!);
        return { elapsed: at.at(-1)! - at[0]!, ticks: at.length - 2, longest: Math.max(...pauses), some: Array.from(y.filter((_, i) => i % 997 === 0)) };
      }, [channels * side * side, last] as const);
      console.log(`${kind}: a run of ${got.elapsed.toFixed()} ms, ${got.ticks} ticks of 5 ms, longest pause ${got.longest.toFixed()} ms`);
      expect(got.elapsed).toBeGreaterThan(100);
      expect(got.ticks).toBeGreaterThan(10);
      expect(got.longest).toBeLessThan(got.elapsed / 2);
      await using session = await load(place('long'), { threads: 2 });
      const y = await session.run({ x0: Float32Array.from({ length: channels * side * side }, (_, i) => ((i * 37) % 101) / 101 - 0.5) });
      expect(bits(got.some)).toEqual(bits((y[last]!.data as Float32Array).filter((_, i) => i % 997 === 0)));
    });

    test('close ends the workers, of every session', async () => {
      const page = await open(url());
      await page.evaluate(async () => {
        const sessions = await Promise.all([1, 2].map(() => tilewright.load('digits/', { threads: 2 })));
        Object.assign(globalThis, { sessions });
      });
      expect(page.workers()).toHaveLength(2 * threads);
      const after = await page.evaluate(async () => {
        const { sessions } = globalThis as unknown as { sessions: Awaited<ReturnType<typeof tilewright.loadSession>>[] };
        await Promise.all(sessions.map((s) => s.close()));
        return sessions[0]!.run({ Input3: [] }).then(() => 'it ran', (e: unknown) => String(e));
      });
      expect(after).toMatch(/InputError: run\(\) cannot start: the session is closed/);
      expect(await workersGone(page)).toBe(true);
    });

    test('a wrong name, length or shape is refused as in Node, and the session goes on', async () => {
      const page = await open(url());
      const wrong = [{ Input4: [1] }, { Input3: [1, 2, 3] }, { Input3: [[1, 2]] }, {}];
      const got = await page.evaluate(async ([inputs, picture]) => {
        const session = await tilewright.load('digits/', { threads: 2 });
        const messages: string[] = [];
        for (const i of inputs) messages.push(await session.run(i).then(() => 'it ran', (e: unknown) => String(e)));
        const { Plus214_Output_0: scores } = await session.run({ Input3: picture });
        return { messages, best: Array.from(scores!.data as Float32Array).reduce((best, s, i, all) => (s > all[best]! ? i : best), 0) };
      }, [wrong as Record<string, number[]>[], digit] as const);
      await using session = await load(place('digits'), { threads: 1 });
      expect(got.messages).toEqual(await Promise.all(wrong.map((i) => messageOf(session.run(i as Record<string, number[]>)))));
      expect(got.messages[0]).toMatch(/there is no input "Input4" \(did you mean "Input3"\?\)/);
      expect(got.best).toBe(7);
    });

    test('a run that fails names its step as in Node, and leaves no worker behind', async () => {
      const page = await open(url());
      const x = [...tinyInput()];
      x[700] = poison;
      const got = await page.evaluate(async (values) => {
        const session = await tilewright.load('tiny', { threads: 2 });
        const failed = await session.run({ x: values }).then(() => 'it ran', (e: unknown) => String(e));
        return [failed, await session.run({ x: values }).then(() => 'it ran', (e: unknown) => String(e))];
      }, x);
      await using session = await load(place('tiny'), { threads: 2 });
      expect(got).toEqual([await messageOf(session.run({ x })), await messageOf(session.run({ x }))]);
      expect(got[0]).toMatch(/RunError: step 0 \(square, from Mul\(first\)\) failed/);
      expect(await workersGone(page)).toBe(true);
    });

    test('files that are missing or end early are named by their URL, and leave no worker behind', async () => {
      const page = await open(url());
      const messages = await page.evaluate(() => Promise.all(['no-weights/', 'nowhere/'].map((from) => tilewright.load(from, { threads: 2 }).then(() => 'it loaded', (e: unknown) => String(e)))));
      const { url: origin } = servers[kind]!;
      expect(messages).toEqual([`InputError: cannot fetch ${origin}/no-weights/weights.safetensors: HTTP status 404`, `InputError: cannot fetch ${origin}/nowhere/manifest.json: HTTP status 404`]);
      expect(await workersGone(page)).toBe(true);
    });

    test('sync is refused: a page must not block', async () => {
      const page = await open(url());
      const message = await page.evaluate(() => tilewright.load('digits/', { sync: true }).then(() => 'it loaded', (e: unknown) => String(e)));
      expect(message).toMatch(/InputError: sync: this thread may not wait/);
    });

    test('the example reads the digit', async () => {
      const page = await browser.newPage();
      pages.push(page);
      await page.goto(`${servers[kind]!.url}/example/`);
      await page.waitForFunction(() => document.querySelector('pre')!.textContent !== 'loading…');
      const text = await page.textContent('pre');
      expect(text).toMatch(/^This is a 7\.\nthreads: \d+, module: relaxed/);
      expect(text?.includes('not cross-origin isolated')).toBe(kind === 'not isolated');
    });
  });

  describe('an engine that lacks', () => {
    /** Loads with each choice of features: the module and threads that were taken, or the error. */
    const choices = (page: Page): Promise<string[]> => page.evaluate(() => Promise.all(([undefined, 'relaxed', 'simd', 'plain'] as const).map((features) =>
      tilewright.load('digits/', { threads: 2, ...(features && { features }) }).then((s) => [s.features, s.threads, ...s.notices].join(' '), (e: unknown) => String(e)))));

    test('relaxed SIMD takes the module simd', async () => {
      const page = await open(`${servers['isolated']!.url}/bundled.html`, () => {
        const validate = WebAssembly.validate;
        // 0xfd 0x85 0x02 is f32x4.relaxed_madd.
        WebAssembly.validate = (bytes) => validate(bytes) && !String(bytes).includes('253,133,2');
      });
      expect(await choices(page)).toEqual(['simd 2', 'InputError: this engine does not run the module relaxed, it runs simd, plain; leave features out', 'simd 2', 'plain 2']);
    });

    test('SIMD takes the module plain', async () => {
      const page = await open(`${servers['isolated']!.url}/bundled.html`, () => {
        const validate = WebAssembly.validate;
        WebAssembly.validate = (bytes) => validate(bytes) && !String(bytes).includes('253,12');
      });
      const refused = (what: string): string => `InputError: this engine does not run the module ${what}, it runs plain; leave features out`;
      expect(await choices(page)).toEqual(['plain 2', refused('relaxed'), refused('simd'), 'plain 2']);
    });

    // As WebKitGTK does on isolated pages.
    test('SharedArrayBuffer runs one thread and says why', async () => {
      const page = await open(`${servers['isolated']!.url}/bundled.html`, () => Reflect.deleteProperty(globalThis, 'SharedArrayBuffer'));
      expect((await choices(page))[0]).toBe('relaxed 1 one thread: this browser does not let workers share memory');
    });
  });

  describe.each([['isolated', isolation], ['not isolated', {}]] as const)('under a content security policy, %s', (_, headers) => {
    const base = "default-src 'none'; connect-src 'self'; img-src data:; script-src 'self'";

    test.each([
      ['what the docs name is enough', `${base} 'wasm-unsafe-eval'; worker-src blob:`, /^7$/],
      ['a missing worker-src is named', `${base} 'wasm-unsafe-eval'`, /RunError: .*content security policy.*worker-src blob:/],
      ["a missing 'wasm-unsafe-eval' is named", `${base}; worker-src blob:`, /InputError: model\.wasm .*Content Security Policy/],
    ])('%s', async (_what, policy, expected) => {
      extra = await serve(folders, { ...headers, 'Content-Security-Policy': policy });
      const page = await open(`${extra.url}/bundled.html`);
      const got = await page.evaluate(async (picture) => {
        try {
          const session = await tilewright.load('digits/', { threads: 2 });
          const { data } = (await session.run({ Input3: picture }))['Plus214_Output_0']!;
          return String(data.indexOf(Math.max(...(data as Float32Array)) as never));
        } catch (e) {
          return String(e);
        }
      }, digit);
      expect(got).toMatch(expected);
    });
  });
});

test('a connection that breaks while weights are read is reported with the URL', async () => {
  const { manifest, modules, weights } = tinyArtifact() as ArtifactObject & { weights: Uint8Array };
  const server = createServer(({ url }, response) => {
    if (url === '/manifest.json') return response.end(JSON.stringify(manifest));
    if (url === '/model.wasm') return response.end(modules['model.wasm']);
    response.writeHead(200, { 'Content-Length': weights.length });
    return response.write(weights.subarray(0, 1000), () => setTimeout(() => response.destroy(), 50));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  expect(await messageOf(load(origin, { threads: 2 }))).toMatch(`InputError: cannot fetch ${origin}/weights.safetensors: the connection failed after 1000 bytes`);
  server.closeAllConnections();
  server.close();
});
