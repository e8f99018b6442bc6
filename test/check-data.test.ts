/** What check says about batches and running statistics, on data whose statistics are known. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { writeNpy } from '../runtime/npy.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-check-data-'));
afterAll(() => rmSync(folder, { recursive: true }));

const channels = 2;
const norm = (name: string, from: string, to: string): ReturnType<typeof node> =>
  node('BatchNormalization', [from, 'one', 'zero', 'mean', 'var'], [to, `${name}.mean`, `${name}.var`], { training_mode: 1, epsilon: { float: 0 } }, { name });

function model(name: string, given: Partial<TestModel>): string {
  const file = join(folder, `${name}.onnx`);
  writeFileSync(file, encodeModel({
    nodes: [], outputs: [value('y', 'f32')], inputs: [value('x', 'f32', ['n', channels, 2])],
    initializers: [floats('one', [2], [1, 1]), floats('zero', [2], [0, 0]), floats('mean', [2], [1, 0]), floats('var', [2], [4, 1])], ...given,
  }));
  return file;
}

/** Samples [count, 2 channels, 2 positions] at centre(sample) + sample offset ± 1: the variance over positions is 1. Offsets repeat every 8 samples: -2 … 2, mean 0, variance 2.5. */
function samples(name: string, count: number, centre: (i: number) => number): string {
  const offsets = [-2, 2, -1, 1, -2, 2, -1, 1];
  const data = Float32Array.from({ length: count * channels * 2 }, (_, k) => {
    const i = Math.floor(k / (channels * 2));
    return centre(i) + offsets[i % 8]! + (k % 2 === 0 ? 1 : -1);
  });
  const file = join(folder, `${name}.npy`);
  writeFileSync(file, writeNpy({ dtype: 'f32', shape: [count, channels, 2], data }));
  return file;
}

interface Norm { readonly node: string; readonly spread: number; readonly omitted: number; readonly offsets: number[]; readonly scales: number[] }
interface Report { readonly findings: readonly { readonly rule: string; readonly nodes: string[]; readonly figures?: Record<string, number> }[]; readonly data: { readonly samples: number; readonly norms: readonly Norm[] } }

async function check(file: string, ...args: readonly string[]): Promise<Report> {
  const { stdout, stderr } = await tilewright(['check', file, '--json', ...args]);
  expect(stdout, stderr).not.toBe('');
  return JSON.parse(stdout) as Report;
}

describe('check --data', () => {
  const one = model('one', { nodes: [norm('bn', 'x', 'y')] });

  test('offset and scale of each channel, against running statistics', async () => {
    // Every batch has mean 5 and variance 1 + 2.5; running statistics are (1, 4) and (0, 1).
    const { data, findings } = await check(one, '--data', samples('same', 64, () => 5), '--batch', '16');
    expect(data.samples).toBe(64);
    const [bn] = data.norms;
    [4 / 2, 5].forEach((v, c) => expect(bn!.offsets[c]).toBeCloseTo(v, 5));
    [Math.sqrt(3.5 / 4), Math.sqrt(3.5)].forEach((v, c) => expect(bn!.scales[c]).toBeCloseTo(v, 5));
    expect(bn!.omitted).toBeCloseTo(0, 10);
    const found = findings.find((f) => f.rule === 'running-statistics')!;
    expect(found.figures!['offset']).toBeCloseTo(Math.sqrt((4 + 25) / 2), 5);
    expect(findings.some((f) => f.rule === 'unlike-batches')).toBe(false);
  });

  test('running statistics that fit give no finding', async () => {
    const file = model('fits', { nodes: [norm('bn', 'x', 'y')], initializers: [floats('one', [2], [1, 1]), floats('zero', [2], [0, 0]), floats('mean', [2], [5, 5]), floats('var', [2], [3.5, 3.5])] });
    expect((await check(file, '--data', samples('same', 64, () => 5), '--batch', '16')).findings.map((f) => f.rule)).not.toContain('running-statistics');
  });

  test('batches of one domain each: what lies between them is as large as it is', async () => {
    // Means 0 and 6 for half of the batches each: variance of the means 9, within a batch 3.5.
    const sorted = await check(one, '--data', samples('sorted', 256, (i) => (i < 128 ? 0 : 6)), '--batch', '16');
    const found = sorted.findings.find((f) => f.rule === 'unlike-batches')!;
    expect(found.figures!['omittedVariance']).toBeCloseTo(9 / 12.5, 5);
    // Sample means have variance 9 + 2.5; batches of 16 out of 256 would spread by 11.5 / 16 · 240 / 255.
    expect(found.figures!['spread']).toBeCloseTo(9 / ((11.5 / 16) * (240 / 255)), 3);
    const mixed = await check(one, '--data', samples('mixed', 256, (i) => (i % 16 < 8 ? 0 : 6)), '--batch', '16');
    expect(mixed.findings.map((f) => f.rule)).not.toContain('unlike-batches');
    expect(mixed.data.norms[0]!.omitted).toBeCloseTo(0, 10);
  });

  test('what two towers make of the statistics that they share', async () => {
    const towers = model('towers', {
      inputs: [value('x', 'f32', ['n', channels, 2]), value('z', 'f32', ['n', channels, 2])], nodes: [norm('a', 'x', 'p'), norm('b', 'z', 'q'), node('Add', ['p', 'q'], ['y'])],
    });
    const { findings } = await check(towers, '--data', `x=${samples('a', 64, () => 0)}`, '--data', `z=${samples('b', 64, () => 6)}`, '--batch', '16');
    const found = findings.find((f) => f.rule === 'shared-statistics')!;
    expect(found.nodes).toEqual(['BatchNormalization(a)', 'BatchNormalization(b)']);
    // Means 0 and 6, variance 3.5 each: the mixture is (3, 3.5), each is off by 3 / sqrt(3.5), and 9 of 12.5 is missing.
    expect(found.figures!['offset']).toBeCloseTo(3 / Math.sqrt(3.5), 5);
    expect(found.figures!['omittedVariance']).toBeCloseTo(9 / 12.5, 5);
  });

  test.each([
    [['--batch', '16'], /--batch goes with --data/],
    [['--data', 'none.npy'], /cannot read none.npy/],
    [['--data', 'q=none.npy'], /the model has no input "q"/],
  ] as const)('refuses %j', async (args, message) => {
    expect(await tilewright(['check', one, ...args])).toMatchObject({ code: 2, stderr: expect.stringMatching(message) as string });
  });
});
