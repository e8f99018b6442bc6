/** tilewright simulate: a model on tiles, what does not fit, plans from files. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { example as model, tilewright } from './cli-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-tiles-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Facts { readonly tiles: number; readonly bytesPerTile: number; readonly madeUp: string[]; readonly used: number[]; readonly results: { readonly name: string; readonly kind: string; readonly shape: number[]; readonly relative: number }[] }

it('runs a model and a step of its training on the tiles that are asked for', async () => {
  for (const train of [[], ['--train', '--batch', '2']]) {
    const { code, stdout } = await tilewright(['simulate', model, '--tiles', '16', '--tile-memory', '256KiB', '--json', ...train]);
    expect(code).toBe(0);
    const facts = JSON.parse(stdout) as Facts;
    expect(facts).toMatchObject({ tiles: 16, bytesPerTile: 262144, madeUp: train.length > 0 ? ['Input3', 'y', 'lr'] : ['Input3'] });
    expect(facts.used).toHaveLength(16);
    expect(Math.max(...facts.used)).toBeLessThanOrEqual(262144);
    expect(facts.results.find((r) => r.name === 'Plus214_Output_0')!.shape).toEqual([train.length > 0 ? 2 : 1, 10]);
    expect(facts.results.some((r) => r.kind === 'state')).toBe(train.length > 0);
    for (const r of facts.results) expect(r.relative, r.name).toBeLessThan(1e-5);
  }
});

it('leaves with 3 where the program does not fit', async () => {
  const { code, stderr } = await tilewright(['simulate', model, '--tiles', '4', '--tile-memory', '8KiB']);
  expect(code).toBe(3);
  expect(stderr).toMatch(/does not fit 4 tiles of 8192 bytes .* bytes, \d+ over/);
});

it('runs a plan from a file, and refuses one of another graph', async () => {
  const file = join(folder, 'plan.json');
  await tilewright(['plan', model, '--tiles', '8', '--dtype', 'f32', '--json', file]);
  const { code, stdout } = await tilewright(['simulate', model, '--plan', file, '--json']);
  expect(code).toBe(0);
  expect((JSON.parse(stdout) as Facts).tiles).toBe(8);
  const other = await tilewright(['simulate', model, '--plan', file, '--dtype', 'f16']);
  expect(other.code).toBe(2);
  expect(other.stderr).toContain('made for another graph');
  const batch = await tilewright(['simulate', model, '--batch', '3']);
  expect(batch.code).toBe(2);
  expect(batch.stderr).toContain('whose batch is fixed');
  const both = await tilewright(['simulate', model, '--plan', file, '--tiles', '4']);
  expect(both.code).toBe(2);
  expect(both.stderr).toContain('--tiles does not go with --plan');
});
