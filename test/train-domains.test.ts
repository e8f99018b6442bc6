/** Training with statistics by domain: data sets joined into one, and tilewright train on them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { batchesOf, joinDomains, type Samples, type Wanted } from '../runtime/data/index.ts';
import { importModel } from '../frontend/index.ts';
import { writeNpy } from '../runtime/npy.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { tilewright } from './cli-harness.ts';

const f32 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from(data) });
const i32 = (data: readonly number[]): Tensor => ({ dtype: 'i32', shape: [data.length], data: Int32Array.from(data) });
const bytes: Samples = { name: 'bytes', x: { dtype: 'u8', shape: [3, 1], data: Uint8Array.of(255, 51, 0) }, y: { dtype: 'u8', shape: [3], data: Uint8Array.of(0, 1, 2) } };
const floats: Samples = { name: 'floats', x: f32([2, 1], [5, 7]), y: i32([3, 4]) };
const wanted: Wanted = { x: { name: 'x', dtype: 'f32', shape: [1, 1] }, y: { name: 'y', dtype: 'i64', shape: [1] }, classes: 5, domain: { name: 'domain', count: 2 } };

describe('joined domains', () => {
  it('keep the scale of each, and each sample its domain, in any order', () => {
    const joined = joinDomains([bytes, floats]);
    const epoch = batchesOf(joined, wanted, { seed: 3 })(1);
    const rows = Array.from({ length: epoch.batches }, (_, i) => epoch.at(i)).map(({ x, y, domain }) => [Number(y[0]), Number(x[0]), Number(domain![0])]);
    expect(rows.map(([label]) => label)).not.toEqual([0, 1, 2, 3, 4]);
    expect(rows.toSorted((p, q) => p[0]! - q[0]!)).toEqual([[0, 1, 0], [1, Math.fround(0.2), 0], [2, 0, 0], [3, 5, 1], [4, 7, 1]]);
  });
  it('of one type keep it', () => expect(joinDomains([bytes, bytes]).x).toEqual({ dtype: 'u8', shape: [6, 1], data: Uint8Array.of(255, 51, 0, 255, 51, 0) }));
  it('of other sizes are refused by name', () => expect(() => joinDomains([bytes, { ...floats, x: f32([2, 2], [1, 2, 3, 4]) }])).toThrow(/floats: a sample has 2 numbers, one of bytes 1/));
  it('whose numbers of samples and targets differ are refused', () => expect(() => joinDomains([bytes, { ...floats, y: i32([1]) }])).toThrow(/floats: there are 2 samples and 1 targets/));
  it('are not blended', () => expect(() => batchesOf(joinDomains([bytes, floats]), { ...wanted, x: { name: 'x', dtype: 'f32', shape: [1, 1, 1, 1] } }, { augmentation: { mixup: 0.2 } })).toThrow(/blend samples of different domains/));
  it('are asked for where the samples name none', () => expect(() => batchesOf(floats, wanted)).toThrow(/do not say which domain/));
});

describe('tilewright train --norm domains:2', () => {
  const folder = mkdtempSync(join(tmpdir(), 'train-domains-'));
  const at = (name: string): string => join(folder, name);
  const count = 32;
  const pixels = 16 * 16;
  afterAll(() => rmSync(folder, { recursive: true }));
  beforeAll(async () => {
    // Both domains hold two classes; the second is far brighter.
    for (const [name, base] of [['dark', 0], ['bright', 50]] as const) {
      writeFileSync(at(`${name}.npy`), writeNpy(f32([count, 1, 16, 16], Array.from({ length: count * pixels }, (_, i) => base + (Math.floor(i / pixels) % 2) * 2 + ((i * 7919) % 101) / 100))));
      writeFileSync(at(`${name}-y.npy`), writeNpy(i32(Array.from({ length: count }, (_, i) => i % 2))));
    }
    expect((await tilewright(['new', 'convnet', '--training', '--classes', '2', '--image', '1x16x16', '-o', at('net.onnx')])).code).toBe(0);
  });
  const both = (): string => `${at('dark.npy')},${at('dark-y.npy')}+${at('bright.npy')},${at('bright-y.npy')}`;

  it('keeps running statistics of each domain', async () => {
    const { code, stderr, stdout } = await tilewright(['train', at('net.onnx'), '--norm', 'domains:2', '--data', both(), '--eval', both(), '--batch', '16', '--epochs', '6', '--lr', '0.02', '--threads', '1', '-o', at('trained.onnx')], 60_000);
    expect(stderr).not.toMatch(/error/);
    expect(code).toBe(0);
    expect(stdout).toMatch(/epoch 6\/6 {2}step 24 .* accuracy/);
    const mean = importModel(at('trained.onnx'), { dims: { n: 1 } }).graph.state.find((s) => s.name === 'norm1.domain_mean')!;
    expect(mean.value.type.shape).toEqual([2, 32]);
    // The first convolution is linear: statistics of the bright domain lie far from those of the dark one.
    const data = Array.from(mean.init === 'zero' ? [] : mean.init.data, Number);
    const apart = data.slice(0, 32).map((v, c) => Math.abs(v - data[32 + c]!));
    expect(Math.max(...apart)).toBeGreaterThan(5);
  }, 90_000);

  it('asks for as many data sets as there are domains', async () => {
    const { code, stderr } = await tilewright(['train', at('net.onnx'), '--norm', 'domains:3', '--data', both(), '--batch', '16', '--threads', '1', '-o', at('no.onnx')], 60_000);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/statistics of 3 domains; give 3 data sets joined with \+.*found 2/)]);
  }, 90_000);
});
