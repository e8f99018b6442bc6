/** tilewright plan --html: the page shows the plan in a real browser and asks the network for nothing. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Plan } from '../bench/check-plan/plan.ts';
import { chromiumPath, launch } from './browser-harness.ts';
import { example, tilewright } from './cli-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-plan-html-'));
const place = (name: string): string => join(folder, name);
const step = ['plan', example, '--tiles', '16', '--tile-memory', '1MiB', '--train', '--batch', '2'];
beforeAll(async () => {
  expect(await tilewright([...step, '--json', place('plan.json'), '--html', place('plan.html')])).toMatchObject({ code: 0 });
  expect(await tilewright([...step, '--recompute', 'all', '--json', place('all.json'), '--html', place('all.html'), '--against', place('plan.json'), '--difference', place('difference.json')])).toMatchObject({ code: 0 });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true }));

const planIn = (name: string): Plan => JSON.parse(readFileSync(place(name), 'utf8')) as Plan;
const whole = (n: number): string => n.toLocaleString('en-US');

test('the page holds nothing that is fetched', () => {
  const html = readFileSync(place('plan.html'), 'utf8');
  expect(html).not.toMatch(/https?:\/\/|<script[^>]+src=|<link[^>]+href="(?!data:)|@import|url\(/);
});

test('the comparison as JSON has the figures of both plans', () => {
  const rows = JSON.parse(readFileSync(place('difference.json'), 'utf8')) as { group: string; what: string; own: number; other: number }[];
  const [own, other] = [planIn('all.json'), planIn('plan.json')];
  const of = (what: string): object | undefined => rows.find((r) => r.group === 'plan' && r.what === what);
  expect(of('bytes a tile')).toMatchObject({ own: own.memory.total, other: other.memory.total });
  expect(of('steps')).toMatchObject({ own: own.steps.length, other: other.steps.length });
  expect(own.steps.length).toBeGreaterThan(other.steps.length);
});

describe.skipIf(!chromiumPath)(chromiumPath ? 'in Chromium' : 'in Chromium (skipped: no chromium found; install it or name it by CHROMIUM)', { timeout: 60_000 }, () => {
  let browser: Browser;
  let page: Page;
  const wrong: string[] = [];
  beforeAll(async () => {
    browser = await launch();
    page = await browser.newPage();
    page.on('pageerror', (e) => wrong.push(String(e)));
    page.on('console', (m) => m.type() === 'error' && wrong.push(m.text()));
    page.on('request', (r) => /^(file|data):/.test(r.url()) || wrong.push(`requested ${r.url()}`));
    await page.goto(pathToFileURL(place('all.html')).href);
  }, 60_000);
  afterAll(() => browser?.close());

  const cells = (table: string, column: number): Promise<string[]> => page.locator(`#${table} tbody tr td:nth-child(${column})`).allTextContents();
  const choose = (at: number): Promise<void> => page.locator('#step').evaluate((slider, n) => {
    (slider as HTMLInputElement).value = String(n);
    slider.dispatchEvent(new Event('input'));
  }, at);
  const aliveAt = (p: Plan, at: number): string[] => p.buffers.filter((b) => b.viewOf === undefined && b.birth <= at && at <= b.death).map((b) => b.value).sort();

  test('everything is drawn without an error', async () => {
    const p = planIn('all.json');
    expect(await page.locator('h1').textContent()).toBe(`${p.model} on mk2`);
    expect(await page.locator('#lead').textContent()).toContain(`${whole(p.memory.total)} of ${whole(p.memory.limit)} bytes a tile`);
    expect(await page.locator('#tiles path').count()).toBe(2);
    expect(await page.locator('#steps path').count()).toBe(2);
    expect(await page.locator('#map-text').textContent()).toMatch(/most [\d,]+ bytes on tile \d+/);
    expect(wrong).toEqual([]);
  });

  test('the tensors are those alive at the chosen step, the peak first', async () => {
    const p = planIn('all.json');
    const seen: string[] = [];
    for (const at of [p.memory.peakStep, 0, p.steps.length - 1]) {
      if (at !== p.memory.peakStep) await choose(at);
      const names = (await cells('alive', 3)).sort();
      expect(names).toEqual(aliveAt(p, at));
      seen.push(names.join());
      const bytes = (await cells('alive', 1)).map((x) => Number(x.replaceAll(',', '')));
      const categories = Object.fromEntries((await cells('categories', 1)).map((k, i) => [k, i]));
      const byCategory = (await cells('categories', 2)).map((x) => Number(x.replaceAll(',', '')));
      expect(byCategory.reduce((n, x) => n + x, 0)).toBe(bytes.reduce((n, x) => n + x, 0) + p.memory.code);
      expect(byCategory[categories['code']!]).toBe(p.memory.code);
    }
    expect(new Set(seen).size).toBe(3);
  });

  test('a click on the liveness chart chooses a step', async () => {
    const box = (await page.locator('#steps').boundingBox())!;
    await page.locator('#steps').click({ position: { x: box.width / 2, y: 50 } });
    expect(await page.locator('#chosen').textContent()).toContain(`step ${Math.floor(planIn('all.json').steps.length / 2)}`);
  });

  test('cycles by op add up to those of all steps', async () => {
    const sum = (await Promise.all([5, 6, 7].map((column) => cells('ops', column)))).flat().reduce((n, x) => n + Number(x.replaceAll(',', '')), 0);
    const all = (planIn('all.json').steps as unknown as { cycles: Record<string, number> }[]).reduce((n, s) => n + s.cycles['compute']! + s.cycles['exchange']! + s.cycles['sync']!, 0);
    expect(Math.abs(sum - all)).toBeLessThan(planIn('all.json').steps.length);
  });

  test('the page compares two plans', async () => {
    const row = page.locator('#comparison tbody tr', { hasText: 'bytes a tile' }).first();
    expect(await row.locator('td').allTextContents()).toEqual(['plan', 'bytes a tile', whole(planIn('all.json').memory.total), whole(planIn('plan.json').memory.total), expect.anything()]);
    await page.goto(pathToFileURL(place('plan.html')).href);
    expect(await page.locator('#comparison-section').count()).toBe(0);
    expect(wrong).toEqual([]);
  });
});
