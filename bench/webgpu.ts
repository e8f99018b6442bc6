/**
 * This runtime and onnxruntime-web's WebGPU provider in one page of headless Chromium: npm run bench:webgpu -- [--models resnet-50,mobilenet-v2,mnist] [--runs 3] [--adapter machine|software] [--json]
 *
 * Models of the zoo have weights from seed 0, as `tilewright new NAME --seed 0` gives them. Both run on the adapter that the browser finds: this machine's GPU, or, where it has none, one that
 * computes on the CPU. Times are medians of whole calls after one that compiles, from inputs on the host until the outputs are back there, so nothing is counted that the GPU has not done yet.
 * The last row is a training step of mnist, which the other runtime does not have.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { note, say, sayJson, table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, zooModel } from '../frontend/zoo/index.ts';
import { compile } from '../index.ts';
import { bundleRuntime, chromiumPath, launch, serve, writePage } from '../test/browser-harness.ts';
import { isSoftware } from './gpu-report/table.ts';
import { commandLine, oneOf, stop } from './options.ts';

/** What the page uses of onnxruntime-web. */
interface Ort {
  readonly env: { readonly wasm: { numThreads: number; wasmPaths: unknown } };
  readonly Tensor: new (type: 'float32', data: Float32Array, dims: readonly number[]) => object;
  readonly InferenceSession: { create(model: string, options: object): Promise<{ run(feeds: object): Promise<Record<string, { readonly data: Float32Array }>>; release(): Promise<void> }> };
}

/** A model in a folder of the page, and how it is called. */
interface Call { readonly folder: string; readonly input: string; readonly shape: readonly number[]; readonly runs: number }
interface Timed { readonly times: readonly number[]; readonly output: readonly number[] }
interface Row { readonly what: string; readonly ours: number; readonly theirs: number | undefined; readonly difference: number | undefined }

const { options: { models, runs, adapter, json } } = commandLine('npm run bench:webgpu', '', { models: 'resnet-50,mobilenet-v2,mnist', runs: 3, adapter: oneOf('machine', 'software'), json: false });
if (chromiumPath === undefined) stop('there is no Chromium here: install Debian\'s package chromium, or name one in CHROMIUM');
const digits = readFileSync(new URL('../examples/mnist_cntk.onnx', import.meta.url));
const names = models.split(',');
const bytes = names.map((name) => (name === 'mnist' ? digits : onnxBytes(zooModel(name), (w) => initialValues(w, 0))));

const folder = mkdtempSync(join(tmpdir(), 'tilewright-webgpu-'));
const pages = await servePages();
const { browser, page, name: gpu } = await openPage();
try {
  const rows: Row[] = [];
  for (const [i, name] of names.entries()) {
    if (process.stderr.isTTY) note(`${gpu}: ${name} …`);
    rows.push(await inference(name, bytes[i]!));
  }
  rows.push(await training(32));
  if (json) sayJson({ adapter: gpu, browser: browser.version(), runs, rows });
  else {
    say(`Chromium ${browser.version()}, ${gpu}; median of ${runs} ${runs === 1 ? 'run' : 'runs'}, ms`);
    for (const line of table(['what', 'tilewright', 'onnxruntime-web', 'largest difference'], rows.map((r) => [r.what, r.ours.toFixed(1), r.theirs?.toFixed(1) ?? '', r.difference?.toExponential(1) ?? '']), [1, 2, 3])) say(line);
    if (isSoftware(gpu)) say('This adapter is a CPU that plays a GPU: these times rank nothing.');
  }
} finally {
  await browser.close();
  await pages.close();
  rmSync(folder, { recursive: true });
}

/** The page's files: this runtime and the other. */
async function servePages(): Promise<Awaited<ReturnType<typeof serve>>> {
  await bundleRuntime(join(folder, 'runtime.js'));
  writePage(folder, 'page', '/runtime.js');
  const peer = join(import.meta.dirname, '../node_modules/onnxruntime-web/dist');
  copyFileSync(join(peer, 'ort.webgpu.bundle.min.mjs'), join(folder, 'ort.js'));
  copyFileSync(join(peer, 'ort-wasm-simd-threaded.asyncify.wasm'), join(folder, 'ort.wasm'));
  return serve({ '/': folder }, {});
}

/** A page whose browser has an adapter, and the adapter's name. */
async function openPage(): Promise<{ readonly browser: Browser; readonly page: Page; readonly name: string }> {
  for (const webgpu of adapter === 'machine' ? ['machine', 'software'] as const : ['software'] as const) {
    const opened = await launch({ webgpu });
    const on = await opened.newPage();
    await on.goto(`${pages.url}/page.html`);
    await on.waitForFunction(() => 'tilewright' in globalThis);
    const found = await on.evaluate(async () => tilewright.openGpu().then((g) => { g.close(); return g.adapter; }, () => undefined));
    if (found !== undefined) return { browser: opened, page: on, name: found };
    await opened.close();
  }
  await pages.close();
  rmSync(folder, { recursive: true });
  stop('this Chromium finds no GPU adapter, not even the one that computes on the CPU');
}

/** A model on both runtimes, on one input. */
async function inference(name: string, model: Uint8Array): Promise<Row> {
  mkdirSync(join(folder, name));
  writeFileSync(join(folder, name, 'model.onnx'), model);
  const artifact = await compile(model, { backend: 'wgsl' });
  await artifact.save(join(folder, name, 'wgsl'));
  const { name: input, shape } = artifact.manifest.inputs[0]!;
  const call: Call = { folder: name, input, shape, runs };
  const ours = await page.evaluate(runOurs, call);
  const theirs = await page.evaluate(runTheirs, call);
  const scale = Math.max(...theirs.output.map(Math.abs));
  return { what: `${name}, ${shape.join('x')}`, ours: median(ours.times), theirs: median(theirs.times), difference: Math.max(...theirs.output.map((y, i) => Math.abs(y - ours.output[i]!))) / scale };
}

/** A step of training on the digits, its loss and logits read back. */
async function training(batch: number): Promise<Row> {
  const artifact = await compile(digits, { backend: 'wgsl', train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' }, batch } });
  await artifact.save(join(folder, 'trained'));
  const [x, y] = artifact.manifest.inputs;
  const times = await page.evaluate(async ([pixels, labels, count, samples, times]) => {
    const trainer = await tilewright.loadTrainer('trained/', { backend: 'webgpu' });
    const inputs = { [pixels]: Float32Array.from({ length: count }, (_, i) => Math.sin(i)), [labels]: BigInt64Array.from({ length: samples }, (_, i) => BigInt(i % 10)) };
    const took: number[] = [];
    for (let i = 0; i <= times; i++) {
      const start = performance.now();
      await trainer.trainStep(inputs);
      took.push(performance.now() - start);
    }
    await trainer.close();
    return took.slice(1);
  }, [x!.name, y!.name, x!.shape.reduce((n, d) => n * d, 1), batch, runs] as const);
  return { what: `training step of mnist, batch ${batch}`, ours: median(times), theirs: undefined, difference: undefined };
}

/** In the page: this runtime. */
async function runOurs({ folder: from, input, shape, runs: count }: Call): Promise<Timed> {
  const session = await tilewright.load(`${from}/wgsl/`, { backend: 'webgpu' });
  const data = Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(i));
  const times: number[] = [];
  let output: Float32Array = new Float32Array();
  for (let i = 0; i <= count; i++) {
    const start = performance.now();
    output = Object.values(await session.run({ [input]: data }))[0]!.data as Float32Array;
    times.push(performance.now() - start);
  }
  await session.close();
  return { times: times.slice(1), output: [...output] };
}

/** In the page: onnxruntime-web. */
async function runTheirs({ folder: from, input, shape, runs: count }: Call): Promise<Timed> {
  const module = '/ort.js';
  const ort = (await import(module)) as Ort;
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: '/ort.wasm' };
  const session = await ort.InferenceSession.create(`${from}/model.onnx`, { executionProviders: ['webgpu'] });
  const data = Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, (_, i) => Math.sin(i));
  const times: number[] = [];
  let output = new Float32Array();
  for (let i = 0; i <= count; i++) {
    const start = performance.now();
    output = Float32Array.from(Object.values(await session.run({ [input]: new ort.Tensor('float32', data, shape) }))[0]!.data);
    times.push(performance.now() - start);
  }
  await session.release();
  return { times: times.slice(1), output: [...output] };
}
