/**
 * From the opening of the demo page to its first classification: npm run bench:page -- [--visits 5] [--backend wasm|software|machine] [--json]
 *
 * Builds the page, serves it cross-origin isolated on this machine, and opens it in headless Chromium. The first visit of a profile is cold; those behind it find page, runtime, model and shaders
 * in the browser's caches. Each is what the page itself shows: `performance.now()` after the first answer. `software` and `machine`: on WebGPU by an adapter that computes on the CPU, or by this machine's GPU.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BrowserContext } from 'playwright-core';
import { ms, note, say, sayJson } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { buildDemo } from '../examples/demo/build.ts';
import { addressOf, serveDemo } from '../examples/demo/serve.ts';
import { chromiumPath, launch } from '../test/browser-harness.ts';
import { commandLine, oneOf, stop } from './options.ts';

/** Longest that one visit may take, in milliseconds. */
const patience = 90_000;

const { options: { visits, backend, json } } = commandLine('npm run bench:page', '', { visits: 5, backend: oneOf('wasm', 'software', 'machine'), json: false });
if (chromiumPath === undefined) stop('there is no Chromium here: install Debian\'s package chromium, or name one in CHROMIUM');

interface Visit { readonly ms: number; readonly cached: boolean; readonly place: string }

const folder = mkdtempSync(join(tmpdir(), 'tilewright-page-'));
try {
  note('compiling the models and building the page …');
  const server = await serveDemo(await buildDemo(join(folder, 'demo')), { port: 0, isolated: true });
  const browser = await launch({ webgpu: backend === 'wasm' ? 'none' : backend });
  try {
    const context = await browser.newContext();
    const [cold, ...cached] = await inTurn(visits + 1, () => visit(context, addressOf(server)));
    const unexpected = [cold!, ...cached].find((v, i) => v.cached !== i > 0);
    if (unexpected) stop(`a visit was ${unexpected.cached ? 'answered from a cache that should be empty' : 'not answered from the cache'}`);
    const times = cached.map((v) => v.ms);
    const facts = { place: cold!.place, cold: cold!.ms, cached: { median: median(times), fastest: Math.min(...times), slowest: Math.max(...times), visits }, cores: availableParallelism(), load: loadavg()[0]! };
    if (json) sayJson(facts);
    else say(`${facts.place}: first classification ${ms(facts.cold)} after the page was opened; from the cache ${ms(facts.cached.median)} (${ms(facts.cached.fastest)} to ${ms(facts.cached.slowest)}, ${visits} visits); ${facts.cores} cores, load ${facts.load.toFixed(1)}`);
  } finally {
    await browser.close();
    await server.close();
  }
} finally {
  rmSync(folder, { recursive: true });
}

/** Opens the page in a tab of its own, and reads what it says of the time. */
async function visit(context: BrowserContext, url: string): Promise<Visit> {
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  await page.goto(url);
  await page.waitForFunction(() => document.body.dataset['ready'] === 'true' || document.getElementById('error')!.textContent !== '');
  const [error, first, place, notices] = await Promise.all([page.textContent('#error'), page.textContent('#first'), page.textContent('#place'), page.locator('#notices li').allTextContents()]);
  await page.close();
  const found = /^First classification (\d+) ms/.exec(first ?? '');
  if (error !== '' || !found) stop(`the page classified nothing: ${error === '' ? first : error}`);
  return { ms: Number(found[1]), cached: first!.endsWith('(cached)'), place: place === '' ? (notices.find((n) => n.startsWith('GPU: ')) ?? 'WebGPU') : `WebAssembly, ${place}` };
}

async function inTurn<T>(count: number, work: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let i = 0; i < count; i++) results.push(await work());
  return results;
}
