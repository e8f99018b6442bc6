/** The runtime alone: bundled for a browser it needs nothing from outside, and its workers survive minification. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build, type BuildOptions } from 'esbuild';
import { afterAll, expect, test } from 'vitest';
import { tinyArtifact, tinyInput, tinyResult } from './tiny-artifact.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-bundle-'));
const root = join(import.meta.dirname, '..');
afterAll(() => rmSync(folder, { recursive: true }));

test.each<[string, BuildOptions]>([['minified', { minify: true }], ['with names kept', { keepNames: true }]])('%s', async (_, options) => {
  const file = join(folder, 'runtime.mjs');
  const { metafile } = await build({ ...options, entryPoints: [join(root, 'runtime/index.ts')], outfile: file, bundle: true, format: 'esm', platform: 'browser', target: 'es2022', metafile: true });
  const inputs = Object.keys(metafile.inputs).map((f) => f.replace(/^.*runtime\//, 'runtime/'));
  // '<runtime>' is esbuild's own helper for names.
  expect(inputs.filter((f) => !f.startsWith('runtime/'))).toEqual([]);
  expect(Object.values(metafile.inputs).flatMap((i) => i.imports).filter((i) => i.external && i.path !== '<runtime>')).toEqual([]);

  const { manifest, modules, weights } = tinyArtifact();
  const data = { manifest, modules: Object.fromEntries(Object.entries(modules).map(([k, v]) => [k, [...v]])), weights: [...(weights as Uint8Array)], x: [...tinyInput()] };
  writeFileSync(join(folder, 'use.mjs'), `
    import { load } from './runtime.mjs';
    const { manifest, modules, weights, x } = ${JSON.stringify(data)};
    const bytes = (list) => Uint8Array.from(list);
    for (const isolated of [true, false]) {
      globalThis.crossOriginIsolated = isolated;
      const session = await load({ manifest, modules: { 'model.wasm': bytes(modules['model.wasm']) }, weights: bytes(weights) }, { threads: 2 });
      const { y } = await session.run({ x });
      console.log(JSON.stringify([session.threads, [...y.data]]));
      await session.close();
    }`);
  const run = spawnSync(process.execPath, [join(folder, 'use.mjs')], { encoding: 'utf8', timeout: 20_000 });
  expect(run.stderr).toMatch(/^tilewright: one thread: this page is not cross-origin isolated.*\n$/);
  const want = [...tinyResult(tinyInput())];
  expect(run.stdout.trim().split('\n').map((line) => JSON.parse(line) as unknown)).toEqual([[2, want], [1, want]]);
});
