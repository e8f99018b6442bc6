/**
 * This runtime and onnxruntime-web's WebGPU provider in one Chromium: npm run bench:webgpu -- [--models mobilenet-v2,mnist] [--runs 3] [--json]
 *
 * Models of the zoo have weights from seed 0. One page runs both on the adapter that the browser finds, one after the other, each `--runs` times after a first run that compiles; the table has medians
 * of whole calls, from inputs of the host to outputs on the host. The last row is a training step of mnist, which the other runtime does not have.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { say, sayJson, table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { onnxChunks } from '../frontend/onnx/write.ts';
import { initialValues, zooModel } from '../frontend/zoo/index.ts';
import { compile } from '../index.ts';
import { bundleRuntime, chromiumPath, launch, serve, writePage } from '../test/browser-harness.ts';

/** What the page uses of onnxruntime-web. */
interface Ort {
  readonly env: { readonly wasm: { numThreads: number; wasmPaths: unknown } };
  readonly Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => object;
  readonly InferenceSession: { create(model: string, options: object): Promise<{ run(feeds: object): Promise<Record<string, { readonly data: Float32Array }>>; release(): Promise<void> }> };
}

interface Timed { readonly times: readonly number[]; readonly output: readonly number[]; readonly notice: string }

const { values } = parseArgs({ options: { models: { type: 'string', default: 'mobilenet-v2,mnist' }, runs: { type: 'string', default: '3' }, json: { type: 'boolean', default: false } } });
const runs = Number(values.runs);
if (!Number.isInteger(runs) || runs < 1) {
  console.error('usage: npm run bench:webgpu -- [--models mobilenet-v2,mnist] [--runs 3] [--json]');
  process.exit(2);
}
if (chromiumPath === undefined) {
  console.error('there is no Chromium here: install Debian\'s package chromium, or name one in CHROMIUM');
  process.exit(2);
}
const digits = readFileSync(new URL('../examples/mnist_cntk.onnx', import.meta.url));
const bytesOf = (name: string): Uint8Array => {
  if (name === 'mnist') return digits;
  const model = zooModel(name);
  return Buffer.concat([...onnxChunks(model, (w) => initialValues(w, 0))]);
};

const folder = mkdtempSync(join(tmpdir(), 'tilewright-webgpu-'));
const browser = await launch({ webgpu: true });
let server: Awaited<ReturnType<typeof serve>> | undefined;
try {
  await bundleRuntime(join(folder, 'runtime.js'));
  writePage(folder, 'page', '/runtime.js');
  const peer = join(import.meta.dirname, '../node_modules/onnxruntime-web/dist');
  copyFileSync(join(peer, 'ort.webgpu.bundle.min.mjs'), join(folder, 'ort.js'));
  copyFileSync(join(peer, 'ort-wasm-simd-threaded.asyncify.wasm'), join(folder, 'ort.wasm'));
  server = await serve({ '/': folder }, {});
  const page = await browser.newPage();
  await page.goto(`${server.url}/page.html`);
  await page.waitForFunction(() => 'tilewright' in globalThis);
  const rows = [];
  let adapter = '';
  for (const name of values.models.split(',')) {
    const model = bytesOf(name);
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, 'model.onnx'), model);
    const artifact = await compile(model, { backend: 'wgsl' });
    await artifact.save(join(folder, name, 'wgsl'));
    const [input] = artifact.manifest.inputs;
    const { name: x, shape } = input!;
    const ours = await page.evaluate(async ([from, input, count, times]): Promise<Timed> => {
      const session = await tilewright.load(`${from}/wgsl/`, { backend: 'webgpu' });
      const data = Float32Array.from({ length: count }, (_, i) => Math.sin(i));
      const took: number[] = [];
      let output: Float32Array = new Float32Array();
      for (let i = 0; i <= times; i++) {
        const start = performance.now();
        output = Object.values(await session.run({ [input]: data }))[0]!.data as Float32Array;
        took.push(performance.now() - start);
      }
      const notice = session.notices.join();
      await session.close();
      return { times: took.slice(1), output: [...output], notice };
    }, [name, x, shape.reduce((n, d) => n * d, 1), runs] as const);
    adapter = ours.notice;
    const theirs = await page.evaluate(async ([from, input, dims, times]): Promise<Timed> => {
      const module = '/ort.js';
      const ort = (await import(module)) as Ort;
      ort.env.wasm.numThreads = 1;
      ort.env.wasm.wasmPaths = { wasm: '/ort.wasm' };
      const session = await ort.InferenceSession.create(`${from}/model.onnx`, { executionProviders: ['webgpu'] });
      const data = Float32Array.from({ length: dims.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(i));
      const took: number[] = [];
      let output = new Float32Array();
      for (let i = 0; i <= times; i++) {
        const start = performance.now();
        output = Float32Array.from(Object.values(await session.run({ [input]: new ort.Tensor('float32', data, dims) }))[0]!.data);
        took.push(performance.now() - start);
      }
      await session.release();
      return { times: took.slice(1), output: [...output], notice: '' };
    }, [name, x, shape, runs] as const);
    const scale = Math.max(...theirs.output.map(Math.abs));
    const difference = Math.max(...theirs.output.map((y, i) => Math.abs(y - ours.output[i]!))) / scale;
    rows.push({ what: `${name} ${shape.join('x')}`, ours: median(ours.times), theirs: median(theirs.times), difference });
  }
  const artifact = await compile(digits, { backend: 'wgsl', train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' }, batch: 32 } });
  await artifact.save(join(folder, 'trained'));
  const [x, y] = artifact.manifest.inputs;
  const step = await page.evaluate(async ([x, y, count, batch, times]) => {
    const trainer = await tilewright.loadTrainer('trained/', { backend: 'webgpu' });
    const inputs = { [x]: Float32Array.from({ length: count }, (_, i) => Math.sin(i)), [y]: BigInt64Array.from({ length: batch }, (_, i) => BigInt(i % 10)) };
    const took: number[] = [];
    for (let i = 0; i <= times; i++) {
      const start = performance.now();
      await trainer.trainStep(inputs);
      took.push(performance.now() - start);
    }
    await trainer.close();
    return took.slice(1);
  }, [x!.name, y!.name, x!.shape.reduce((n, d) => n * d, 1), 32, runs] as const);
  rows.push({ what: 'training step of mnist, batch 32', ours: median(step), theirs: undefined, difference: undefined });
  if (values.json) sayJson({ adapter, browser: browser.version(), rows });
  else {
    say(`Chromium ${browser.version()}, ${adapter}; medians of ${runs} runs, ms`);
    for (const line of table(['what', 'tilewright', 'onnxruntime-web', 'largest difference'], rows.map((r) => [r.what, r.ours.toFixed(1), r.theirs?.toFixed(1) ?? '', r.difference?.toExponential(1) ?? '']), [1, 2, 3])) say(line);
    if (/swiftshader|llvmpipe|lavapipe/i.test(adapter)) say('This adapter is a CPU that plays a GPU: these times rank nothing.');
  }
} finally {
  await browser.close();
  await server?.close();
  rmSync(folder, { recursive: true });
}
