/** Levers that tilewright plan measures: what a batch-independent rewrite of norms saves, where the proof fails. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { tilewright } from './cli-harness.ts';

const golden = join(import.meta.dirname, '../../shared/goldens/convnet-bn-sgd-momentum/model.onnx');
const folder = mkdtempSync(join(tmpdir(), 'tilewright-levers-'));
afterAll(() => rmSync(folder, { recursive: true }));
const machine = ['--target', 'mk2', '--tiles', '4', '--tile-memory', '400KiB', '--train', '--dtype', 'f32', '--recompute', 'none'];
const number = (text: string | undefined): number => Number((text ?? '').replaceAll(',', ''));
const plan = (...args: string[]): ReturnType<typeof tilewright> => tilewright(['plan', golden, ...machine, ...args], 100_000);
/** Bytes of a tile and cycles a sample that a plan reports; of gradients that add up, their share of the update included. */
const figures = async (...args: string[]): Promise<{ readonly total: number; readonly cycles: number }> => {
  const done = await plan('--batch', '6', '--json', join(folder, 'plan.json'), ...args);
  expect(done, done.stderr).toMatchObject({ code: 0 });
  const [, step] = /^a step +([\d,]+) cycles a sample/m.exec(done.stdout) ?? [];
  const [, run] = /^cycles +([\d,]+) a sample/m.exec(done.stdout) ?? [];
  return { total: (JSON.parse(readFileSync(join(folder, 'plan.json'), 'utf8')) as { memory: { total: number } }).memory.total, cycles: number(step ?? run) };
};

describe.skipIf(!existsSync(golden))(existsSync(golden) ? 'a rewrite of norms' : 'a rewrite of norms (skipped: ../shared/goldens is not there)', { timeout: 300_000 }, () => {
  test('is listed with what plans of the rewritten model differ by, over as many samples and over fewer', async () => {
    const done = await plan('--batch', '6', '--explain');
    expect(done, done.stderr).toMatchObject({ code: 0, stderr: expect.stringMatching(/BatchNormalization\(\/1\/BatchNormalization\): it joins the samples of a batch .*--norm group:32/) as string });
    const own = await figures();
    for (const [row, args] of [['--norm group:32 +the model’s norms', ['--norm', 'group:32']], ['--norm group:32, micro-batches of 3 and gradients of several added up +these, 6', ['--norm', 'group:32', '--micro-batch', '3']]] as const) {
      const [, bytes, cycles] = new RegExp(`^  ${row} +(-?[\\d,]+) +([+-]?[\\d,]+) +fits$`, 'm').exec(done.stdout) ?? [];
      const other = await figures(...args);
      expect(number(bytes), row).toBe(own.total - other.total);
      expect(Math.abs(number(cycles) - (other.cycles - own.cycles)), row).toBeLessThanOrEqual(1);
    }
    const listed = [...done.stdout.matchAll(/ ([+-][\d,]+|0) +(?:fits|does not fit)$/gm)].map(([, cycles]) => number(cycles));
    expect(listed.length).toBeGreaterThan(4);
    expect(listed).toEqual(listed.toSorted((a, b) => a - b));
  });

  test('is asked for where --fit would have to choose a micro-batch; a batch that is named stays whole', async () => {
    expect(await plan('--fit')).toMatchObject({ code: 2, stderr: expect.stringMatching(/BatchNormalization\(\/1\/BatchNormalization\): it joins.*with --fit name it by --batch/) as string });
    const whole = await plan('--fit', '--batch', '6');
    expect(whole).toMatchObject({ code: 0, stdout: expect.stringMatching(/^fits .* 6 samples a run/m) as string, stderr: expect.stringMatching(/--fit leaves the batch whole/) as string });
  });
});
