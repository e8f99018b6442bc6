/** The target `host`: what is read and measured of this machine, and that every number says so. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { readTarget } from '../cli/driver/target-file.ts';
import { hostTarget, secondLevel, withFindings } from '../cli/plan/host.ts';
import type { TilePlan } from '../ir/tiles.ts';
import { constantUnits, type ConstantName } from '../passes/tile/target.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-host-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A tree as Linux keeps it. */
function caches(name: string, list: readonly (readonly [level: string, size: string, shared: string])[]): string {
  list.forEach(([level, size, shared], i) => {
    const index = join(folder, name, `index${i}`);
    mkdirSync(index, { recursive: true });
    for (const [file, text] of [['level', level], ['size', size], ['shared_cpu_list', shared]] as const) writeFileSync(join(index, file), `${text}\n`);
  });
  return join(folder, name);
}

it.each([
  ['one', [['1', '48K', '0'], ['2', '1280K', '0,4']], { bytes: 1280 * 1024, threads: 2 }],
  ['two', [['2', '2M', '0-3,8-11'], ['3', '32M', '0-15']], { bytes: 2 * 2 ** 20, threads: 8 }],
  ['none', [['1', '32K', '0'], ['3', '8M', '0-7']], undefined],
] as const)('reads the level-2 cache of %s', (name, list, want) => expect(secondLevel(caches(name, list))).toEqual(want));

it('knows no cache where there is no such tree', () => expect(secondLevel(join(folder, 'absent'))).toBeUndefined());

it('measures this machine, says where each number comes from, and keeps the rest of the target cpu', async () => {
  const cpu = readTarget('cpu');
  const host = await hostTarget(cpu);
  const cache = secondLevel();
  expect(host.constants.tiles).toBe(availableParallelism());
  expect(host.constants.bytesPerTile).toBe(cache ? Math.floor(cache.bytes / cache.threads / 2) : cpu.constants.bytesPerTile);
  for (const key of ['macs.f32', 'copy', 'exchange'] as const) {
    // Between a tenth and a thousand billions a second: any machine that runs this.
    expect(host.constants[key] * host.constants.clock).toBeGreaterThan(1e8);
    expect(host.constants[key] * host.constants.clock).toBeLessThan(1e12);
    expect(host.sources[key]).toMatch(/^measured: /);
  }
  const kept = (Object.keys(constantUnits) as ConstantName[]).filter((key) => !/^(read|measured|as f32)/.test(host.sources[key]));
  expect(kept.length).toBeGreaterThan(30);
  for (const key of kept) expect([key, host.constants[key], host.sources[key]]).toEqual([key, cpu.constants[key], cpu.sources[key]]);
  const plan = { notes: ['one'] } as unknown as TilePlan;
  expect(withFindings(plan, host).notes).toEqual(['one', host.description]);
  expect(withFindings(plan, cpu).notes).toEqual(['one']);
});
