/** Where nothing else fits, plans compute regions of a graph in parts: `plan`, `simulate` and `compile` on a golden that fits a tile in no other way. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { readNpy, readSafetensors, writeNpy } from '../runtime/index.ts';
import { tilewright as run } from './cli-harness.ts';

const tilewright = (args: readonly string[]): ReturnType<typeof run> => run(args, 100_000);
const golden = join(import.meta.dirname, '../../shared/goldens/convnet-gcc-sgd');
const folder = mkdtempSync(join(tmpdir(), 'tilewright-parts-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const model = join(golden, 'model.onnx');
/** 130 KiB hold the step of six samples in no level of recomputation. */
const machine = ['--target', 'mk2', '--tiles', '1', '--tile-memory', '130KiB', '--train', '--batch', '6', '--momentum', '0.9', '--dtype', 'f32'];
const number = (text: string | undefined): number => Number((text ?? '').replaceAll(',', ''));

interface Region { readonly from: object; readonly parts: number }
interface Simulated { readonly regions?: readonly Region[]; readonly used: number[]; readonly results: { readonly name: string; readonly relative: number }[] }

describe.skipIf(!existsSync(golden))(existsSync(golden) ? 'regions in parts' : 'regions in parts (skipped: ../shared/goldens is not there)', { timeout: 300_000 }, () => {
  test('are tried where no level of recomputation fits, listed as a lever, and run from the file', async () => {
    const done = await tilewright(['plan', model, ...machine, '--explain', '--json', at('plan.json')]);
    expect(done, done.stderr).toMatchObject({ code: 0 });
    const plan = JSON.parse(readFileSync(at('plan.json'), 'utf8')) as { readonly memory: { total: number; limit: number }; readonly inParts: { regions: readonly Region[] } };
    expect(plan.inParts.regions).toHaveLength(1);
    expect(plan.inParts.regions[0]).toMatchObject({ from: { input: 0 }, axis: 0 });
    expect(plan.memory.total).toBeLessThanOrEqual(plan.memory.limit);
    expect(done.stdout).toMatch(/^fits .*recompute none, 1 region in parts$/m);
    // What it saves and takes is what lies between the first trial, all at once, and the plan.
    const [, bytes, cycles] = /^ +6 +none +[\d.]+ +([\d,]+) +[\d,]+ over +([\d,]+)$/m.exec(done.stdout) ?? [];
    const [, own] = /^cycles +([\d,]+) a sample/m.exec(done.stdout) ?? [];
    const [, saved, taken] = /^\* 1 region in parts +none +([\d,]+) +\+([\d,]+) +fits$/m.exec(done.stdout) ?? [];
    expect(number(saved)).toBe(number(bytes) - plan.memory.total);
    expect(Math.abs(number(taken) - (number(own) - number(cycles)))).toBeLessThanOrEqual(1);

    const simulated = await tilewright(['simulate', model, '--train', '--batch', '6', '--momentum', '0.9', '--plan', at('plan.json'), '--json']);
    expect(simulated, simulated.stderr).toMatchObject({ code: 0 });
    const { regions, results } = JSON.parse(simulated.stdout) as Simulated;
    expect(regions).toEqual(plan.inParts.regions);
    expect(results.map((r) => r.name)).toContain('0.weight');
    for (const r of results) expect(r.relative, r.name).toBeLessThan(1e-5);
  });

  test('are left alone where a level is named', async () => {
    const done = await tilewright(['plan', model, ...machine, '--recompute', 'norms']);
    expect(done).toMatchObject({ code: 3, stdout: expect.stringMatching(/^DOES NOT FIT .*recompute norms$/m) as string });
  });

  test('compute gradients and new state as the interpreter does, within the tile', async () => {
    const simulated = await tilewright(['simulate', model, ...machine, '--json']);
    expect(simulated, simulated.stderr).toMatchObject({ code: 0 });
    const { regions, used, results } = JSON.parse(simulated.stdout) as Simulated;
    expect(regions).toHaveLength(1);
    expect(Math.max(...used)).toBeLessThanOrEqual(130 * 1024);
    expect(results.map((r) => r.name)).toEqual(expect.arrayContaining(['loss', '4.weight.grad', '4.weight.momentum']));
    for (const r of results) expect(r.relative, r.name).toBeLessThan(1e-5);
  });

  test('are compiled, and run to the recorded loss and logits', async () => {
    const made = await tilewright(['compile', model, ...machine, '-o', at('out'), '--json']);
    expect(made, made.stderr).toMatchObject({ code: 0 });
    expect((JSON.parse(made.stdout) as Simulated).regions).toHaveLength(1);
    const data = await readSafetensors(readFileSync(join(golden, 'data.safetensors')));
    const rate = { dtype: 'f32', shape: [], data: Float32Array.of(0.05) } as const;
    for (const [name, tensor] of [['x', data.get('x')!], ['y', data.get('y')!], ['lr', rate]] as const) writeFileSync(at(`${name}.npy`), writeNpy(tensor));
    const ran = await tilewright(['run', at('out'), ...['x', 'y', 'lr'].flatMap((name) => ['-i', `${name}=${at(`${name}.npy`)}`]), '--output', at('results')]);
    expect(ran, ran.stderr).toMatchObject({ code: 0 });
    for (const name of ['loss', 'logits']) {
      const found = readNpy(readFileSync(join(at('results'), `${name}.npy`)));
      const want = Array.from(data.get(`${name}/0`)!.data as Float32Array);
      expect(found.data).toHaveLength(want.length);
      want.forEach((x, i) => expect(Number(found.data[i]), name).toBeCloseTo(x, 5));
    }
  });

  test('by the axes of values where samples are not enough', async () => {
    // One sample, so that nothing but channels, rows and their like can be cut.
    const alone = ['--target', 'mk2', '--tiles', '1', '--train', '--batch', '1', '--dtype', 'f32', '--json'];
    const tight = await tilewright(['simulate', model, ...alone, '--tile-memory', '76KiB']);
    expect(tight, tight.stderr).toMatchObject({ code: 0 });
    const { regions, results } = JSON.parse(tight.stdout) as Simulated;
    expect(regions!.length).toBeGreaterThan(0);
    for (const r of results) expect(r.relative, r.name).toBeLessThan(1e-5);
    expect(await tilewright(['simulate', model, ...alone, '--tile-memory', '76KiB', '--recompute', 'all'])).toMatchObject({ code: 3 });
  });
});
