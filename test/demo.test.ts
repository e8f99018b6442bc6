/** The demo page in a real browser: a digit that is drawn and read, a network that learns, on WebGPU and WebAssembly, isolated and not. */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { PNG } from 'pngjs';
import type { PreviewServer } from 'vite';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { buildDemo } from '../examples/demo/build.ts';
import { addressOf, serveDemo } from '../examples/demo/serve.ts';
import { chromiumPath, launch } from './browser-harness.ts';
import type { GpuAdapter, GpuDevice } from '../runtime/webgpu/types.ts';

/** What a page has of WebGPU's classes. */
interface GpuClasses { readonly GPUDevice: { readonly prototype: GpuDevice }; readonly GPUAdapter: { readonly prototype: GpuAdapter } }

/** Longest that the page may take for one thing, in milliseconds: shaders are compiled on the CPU here. */
const patience = 90_000;

test('the digits that the page brings are a small file that its licence stands beside', () => {
  const data = join(import.meta.dirname, '../examples/demo/data');
  expect(statSync(join(data, 'images.idx3-ubyte.gz')).size).toBeLessThan(200_000);
  expect(readFileSync(join(data, 'LICENSE'), 'utf8')).toMatch(/^MIT License/);
});

describe.skipIf(!chromiumPath)(chromiumPath ? 'the demo page' : 'the demo page (skipped: no chromium found; install it or name it by CHROMIUM)', { timeout: 2 * patience }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-demo-'));
  const servers: PreviewServer[] = [];
  const browsers: Browser[] = [];
  const pages: Page[] = [];
  let withGpu: Browser;
  let withoutGpu: Browser;
  let isolated: string;
  let plain: string;

  beforeAll(async () => {
    const site = await buildDemo(join(folder, 'demo'));
    for (const isolate of [true, false]) servers.push(await serveDemo(site, { port: 0, isolated: isolate }));
    [isolated, plain] = servers.map(addressOf) as [string, string];
    browsers.push(withGpu = await launch({ webgpu: 'software' }));
    browsers.push(withoutGpu = await launch());
  }, 2 * patience);
  afterEach(async () => {
    await Promise.all(pages.splice(0).map((p) => p.close()));
  });
  afterAll(async () => {
    await Promise.all(browsers.map((b) => b.close()));
    await Promise.all(servers.map((s) => s.close()));
    rmSync(folder, { recursive: true });
  });

  /** Opens the page, after `prepare` ran in it, and waits until it has classified its first digit. */
  async function open(browser: Browser, url: string, prepare?: () => void): Promise<Page> {
    const page = await browser.newPage({ viewport: { width: 1100, height: 1000 } });
    pages.push(page);
    if (prepare) await page.addInitScript(prepare);
    page.setDefaultTimeout(patience);
    page.on('pageerror', (e) => console.log(`page: ${e.message}`));
    await page.goto(url);
    await ready(page);
    return page;
  }

  /** Waits for the page; what it shows as an error is thrown. */
  async function ready(page: Page): Promise<void> {
    await page.waitForFunction(() => document.body.dataset['ready'] === 'true' || document.getElementById('error')!.textContent !== '');
    expect(await page.textContent('#error')).toBe('');
  }

  const notices = (page: Page): Promise<string[]> => page.locator('#notices li').allTextContents();

  /** Draws strokes, given as points of a field of 100 by 100. */
  async function draw(page: Page, strokes: readonly (readonly (readonly [number, number])[])[]): Promise<void> {
    const field = (await page.locator('#pad').boundingBox())!;
    for (const stroke of strokes) {
      for (const [i, [x, y]] of stroke.entries()) {
        await page.mouse.move(field.x + (x / 100) * field.width, field.y + (y / 100) * field.height, { steps: 4 });
        if (i === 0) await page.mouse.down();
      }
      await page.mouse.up();
    }
  }

  /** Clears the field, draws, and returns what the page reads. */
  async function read(page: Page, strokes: Parameters<typeof draw>[1]): Promise<string> {
    await page.click('#clear');
    expect(await page.textContent('#answer')).toBe('');
    await draw(page, strokes);
    await page.waitForFunction(() => /This is/.test(document.getElementById('answer')!.textContent) || document.getElementById('error')!.textContent !== '');
    return `${await page.textContent('#answer')}${await page.textContent('#error')}`;
  }

  const one = [[[50, 15], [50, 85]]] as const;
  const seven = [[[25, 20], [75, 20], [45, 85]]] as const;
  const zero = [Array.from({ length: 25 }, (_, i): [number, number] => [50 + 22 * Math.sin((i * Math.PI) / 12), 50 - 34 * Math.cos((i * Math.PI) / 12)])];

  /** Takes ten steps; the losses that the page shows after each. */
  async function tenSteps(page: Page): Promise<number[]> {
    await page.evaluate(() => {
      const seen: string[] = [];
      Object.assign(globalThis, { seen });
      new MutationObserver(() => seen.push(document.getElementById('progress')!.textContent)).observe(document.getElementById('progress')!, { childList: true, characterData: true, subtree: true });
    });
    await page.click('#ten');
    await page.waitForFunction(() => (/held out/.test(document.getElementById('progress')!.textContent) && document.getElementById('train')!.textContent === 'Train') || document.getElementById('error')!.textContent !== '');
    expect(await page.textContent('#error')).toBe('');
    const texts = await page.evaluate(() => (globalThis as unknown as { seen: string[] }).seen);
    const losses = new Map(texts.flatMap((t) => {
      const found = /^Step (\d+): loss ([^,]+),/.exec(t);
      return found ? [[Number(found[1]), Number(found[2])] as const] : [];
    }));
    return [...losses.values()];
  }

  /** Colours on a canvas: more than one where something is drawn. */
  const colours = (page: Page, id: string): Promise<number> => page.evaluate((canvas) => {
    const c = document.getElementById(canvas) as HTMLCanvasElement;
    return new Set(new Uint32Array(c.getContext('2d')!.getImageData(0, 0, c.width, c.height).data.buffer)).size;
  }, id);

  describe.each([['WebGPU', true], ['WebAssembly', false]] as const)('on %s', (name, webgpu) => {
    test.each([['isolated', true], ['not isolated', false]] as const)('%s: reads digits, learns in ten steps, and can be looked at', async (_, isolate) => {
      const page = await open(webgpu ? withGpu : withoutGpu, isolate ? isolated : plain);
      expect(await page.evaluate(() => crossOriginIsolated)).toBe(isolate);
      expect(await page.isChecked(`input[value=${webgpu ? 'webgpu' : 'wasm'}]`)).toBe(true);
      const said = await notices(page);
      if (webgpu) expect(said).toEqual([expect.stringMatching(/^GPU: .*swiftshader/i)]);
      else {
        expect(said[0]).toMatch(/^WebAssembly in place of WebGPU: (there is no GPU adapter here|this browser has no WebGPU)$/);
        expect(said.slice(1)).toEqual(isolate ? [] : [expect.stringMatching(/^one thread: this page is not cross-origin isolated/)]);
        expect(await page.textContent('#place')).toMatch(isolate ? /^\d+ threads?, module relaxed$/ : /^1 thread, module relaxed$/);
        expect(await page.isDisabled('input[value=webgpu]')).toBe(true);
      }
      expect(await page.textContent('#answer')).toMatch(/^This is a 7\./);
      expect(await read(page, one)).toMatch(/^This is a 1\./);
      expect(await read(page, seven)).toMatch(/^This is a 7\./);
      expect(await read(page, zero)).toMatch(/^This is a 0\./);
      const bars = await page.locator('#scores div').evaluateAll((all) => all.map((bar) => ({ digit: bar.textContent, share: Number((bar as HTMLElement).style.getPropertyValue('--share')), best: bar.classList.contains('best') })));
      expect(bars.map((b) => b.digit)).toEqual([...'0123456789']);
      expect(bars.reduce((n, b) => n + b.share, 0)).toBeCloseTo(1, 5);
      expect(bars.filter((b) => b.best).map((b) => b.digit)).toEqual(['0']);
      expect(bars[0]!.share).toBe(Math.max(...bars.map((b) => b.share)));

      const losses = await tenSteps(page);
      console.log(`${name}, ${isolate ? 'isolated' : 'not isolated'}: losses ${losses.join(' ')}; ${await page.textContent('#progress')}`);
      expect(losses).toHaveLength(10);
      expect(losses.every(Number.isFinite)).toBe(true);
      // Ten classes: a network that knows nothing has a loss near ln 10.
      expect(losses[0]).toBeGreaterThan(1.5);
      expect(Math.min(...losses.slice(-3))).toBeLessThan(0.8 * losses[0]!);
      expect(await page.textContent('#learnt')).toMatch(/^The network trained here reads \d\.$/);

      expect(await colours(page, 'tiles')).toBeGreaterThan(10);
      expect(await colours(page, 'course')).toBeGreaterThan(2);
      expect(await colours(page, 'curve')).toBeGreaterThan(10);
      expect(await page.textContent('#step-name')).toMatch(/^Step \d+ of \d+, (compute|exchange): .*cycles, fullest tile [\d,]+ bytes$/);
      const picture = PNG.sync.read(await page.screenshot({ path: join(folder, 'page.png'), fullPage: true, timeout: patience }));
      expect(picture.width).toBe(1100);
    });
  });

  test('a click switches from WebGPU to WebAssembly and back, and the answers stay', async () => {
    const page = await open(withGpu, isolated);
    for (const [value, notice] of [['wasm', []], ['webgpu', [expect.stringMatching(/^GPU: /)]]] as const) {
      await page.evaluate(() => void (document.getElementById('answer')!.textContent = ''));
      await page.click(`input[value=${value}]`);
      await page.waitForFunction(() => document.getElementById('answer')!.textContent !== '' || document.getElementById('error')!.textContent !== '');
      expect(await page.textContent('#answer')).toMatch(/^This is a 7\./);
      expect(await notices(page)).toEqual(notice);
    }
  });

  test('both learn the same: the same losses from the same seed', async () => {
    const page = await open(withGpu, plain);
    const gpu = await tenSteps(page);
    await page.click('input[value=wasm]');
    await page.waitForFunction(() => /^1 thread/.test(document.getElementById('place')!.textContent));
    const wasm = await tenSteps(page);
    expect(gpu).toHaveLength(10);
    wasm.forEach((loss, i) => expect(Math.abs(loss - gpu[i]!)).toBeLessThan(2e-3));
  });

  test('WebAssembly answers first where the driver of a GPU compiles shaders for long, and then WebGPU does', async () => {
    const page = await withGpu.newPage();
    pages.push(page);
    page.setDefaultTimeout(patience);
    await page.addInitScript(() => {
      const { prototype } = (globalThis as unknown as GpuClasses).GPUDevice;
      const { createComputePipelineAsync } = prototype;
      const compiled = new Promise<void>((resolve) => Object.assign(globalThis, { release: resolve }));
      prototype.createComputePipelineAsync = async function (...given) {
        await compiled;
        return createComputePipelineAsync.apply(this, given);
      };
    });
    await page.goto(isolated);
    await page.waitForFunction(() => document.getElementById('answer')!.textContent !== '');
    expect(await page.textContent('#answer')).toBe('This is a 7. (WebAssembly, before WebGPU was ready)');
    const first = await page.textContent('#first');
    expect(first).toMatch(/^First classification \d+ ms/);
    await page.evaluate(() => (globalThis as unknown as { release: () => void }).release());
    await ready(page);
    expect(await page.textContent('#answer')).toMatch(/^This is a 7\. \([\d.]+ ms\)$/);
    expect([await page.textContent('#first'), await page.isChecked('input[value=webgpu]')]).toEqual([first, true]);
  });

  test('a lost GPU takes nothing from the page: it reads on, trains on from its checkpoint to the same losses, and can be switched', async () => {
    const page = await open(withGpu, plain, () => {
      const { prototype } = (globalThis as unknown as GpuClasses).GPUAdapter;
      const { requestDevice } = prototype;
      const devices: GpuDevice[] = [];
      Object.assign(globalThis, { devices });
      prototype.requestDevice = async function (...given) {
        const device = await requestDevice.apply(this, given);
        devices.push(device);
        return device;
      };
    });
    /** Ends all devices of the page; how many it had asked for. */
    const lose = (): Promise<number> => page.evaluate(async () => {
      const { devices } = globalThis as unknown as { devices: GpuDevice[] };
      devices.forEach((d) => d.destroy());
      await Promise.all(devices.map((d) => d.lost));
      return devices.length;
    });
    const undisturbed = await tenSteps(page);
    await page.click('#restart');
    // Lost after eight steps: three are not in the checkpoint.
    const losing = page.evaluate(() => new Promise<void>((resolve) => {
      const progress = document.getElementById('progress')!;
      const watch = new MutationObserver(() => {
        if (!progress.textContent.startsWith('Step 8:')) return;
        watch.disconnect();
        (globalThis as unknown as { devices: GpuDevice[] }).devices.forEach((d) => d.destroy());
        resolve();
      });
      watch.observe(progress, { childList: true, characterData: true, subtree: true });
    }));
    const resumed = await tenSteps(page);
    await losing;
    expect(resumed).toEqual(undisturbed);
    expect(await notices(page)).toEqual([expect.stringMatching(/^GPU: /), expect.stringMatching(/^network loaded again: the GPU device was lost/), expect.stringMatching(/^training loaded again, from step 5: the GPU device was lost/)]);

    const before = await lose();
    expect(await read(page, one)).toMatch(/^This is a 1\./);
    await page.waitForFunction(() => document.getElementById('learnt')!.textContent !== '' || document.getElementById('error')!.textContent !== '');
    expect(await page.textContent('#learnt')).toMatch(/^The network trained here reads \d\.$/);
    expect(await page.isChecked('input[value=webgpu]')).toBe(true);
    expect(await lose()).toBe(before + 2);
    // What is chosen already begins anew, too.
    for (const [value, place] of [['webgpu', /^$/], ['wasm', /^1 thread/]] as const) {
      await page.evaluate(() => void (document.getElementById('answer')!.textContent = ''));
      await page.click(`input[value=${value}]`);
      await page.waitForFunction(() => document.getElementById('answer')!.textContent !== '' || document.getElementById('error')!.textContent !== '');
      expect(await page.textContent('#answer')).toMatch(/^This is a 1\./);
      expect(await page.textContent('#place')).toMatch(place);
      expect(await page.textContent('#progress')).toBe('');
    }
  });

  test('a file that holds no digits is refused by its name, and the page goes on', async () => {
    const page = await open(withoutGpu, plain);
    await page.setInputFiles('#files', [{ name: 'cat.txt', mimeType: 'text/plain', buffer: Buffer.from('meow') }]);
    await page.waitForFunction(() => document.getElementById('error')!.textContent !== '');
    expect(await page.textContent('#error')).toContain('cat.txt is not an idx file');
    expect(await read(page, one)).toMatch(/^This is a 1\./);
  });

  test.each([['WebGPU', true], ['WebAssembly', false]] as const)('tells how long the first classification took, on %s, from the cache', async (name, webgpu) => {
    const context = await (webgpu ? withGpu : withoutGpu).newContext();
    try {
      const page = await context.newPage();
      page.setDefaultTimeout(patience);
      for (let visit = 0; visit < 3; visit++) {
        await page.goto(isolated);
        await ready(page);
        const text = await page.textContent('#first');
        expect(text).toMatch(/^First classification \d+ ms after the page was opened/);
        console.log(`${name}, visit ${visit + 1}: ${text}`);
      }
    } finally {
      await context.close();
    }
  });
});
