/** tilewright new, as a user runs it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { initialValues, zooModel } from '../frontend/zoo/index.ts';
import { writeSafetensors } from '../runtime/safetensors.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { tilewright } from './cli-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-new-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string): string => join(folder, name);

describe('new', () => {
  test('writes an architecture; inspect counts its parameters without running statistics', async () => {
    const path = file('r20.onnx');
    const made = await tilewright(['new', 'resnet-20', '--classes', '7', '--image', '3x16x24', '--seed', '5', '-o', path, '--json']);
    expect(made.code, made.stderr).toBe(0);
    expect(JSON.parse(made.stdout)).toMatchObject({ architecture: 'resnet-20', input: ['n', 3, 16, 24], output: ['n', 7] });
    const { stdout } = await tilewright(['inspect', path, '--json']);
    // Convolutions 3·16·9, 6·16²·9, (16·32 + 5·32²)·9, (32·64 + 5·64²)·9; norms of 7·16, 6·32, 6·64 channels; a linear layer of 64 to 7.
    const parameters = 432 + 13824 + 50688 + 202752 + 2 * (112 + 192 + 384) + 455;
    expect(JSON.parse(stdout)).toMatchObject({ parameters, statistics: 2 * (112 + 192 + 384) });
  });

  test('the same seed gives the same bytes, another one others', async () => {
    for (const [name, seed] of [['a', '1'], ['b', '1'], ['c', '2']] as const) await tilewright(['new', 'convnet', '--seed', seed, '-o', file(`${name}.onnx`)]);
    const [a, b, c] = ['a', 'b', 'c'].map((n) => readFileSync(file(`${n}.onnx`)));
    expect(a!.equals(b!)).toBe(true);
    expect(a!.equals(c!)).toBe(false);
  });

  test('weights start with the deviation that their source says', () => {
    const { weights } = zooModel('resnet-50');
    const w = weights.find((v) => v.name === 'layer3.2.conv2.weight')!;
    const values = initialValues(w, 3);
    const mean = values.reduce((n, v) => n + v, 0) / values.length;
    const deviation = Math.sqrt(values.reduce((n, v) => n + (v - mean) ** 2, 0) / values.length);
    // He normal by the fan-out; 589 824 numbers.
    expect(deviation / Math.sqrt(2 / (256 * 9))).toBeCloseTo(1, 2);
    expect(Math.abs(mean) / deviation).toBeLessThan(0.01);
  });

  test('layers of equal shape start with different weights', () => {
    const { weights } = zooModel('resnet-20');
    const [a, b] = ['layer1.0.conv1.weight', 'layer1.0.conv2.weight'].map((name) => initialValues(weights.find((w) => w.name === name)!, 0));
    expect(a!.filter((v, i) => v === b![i]).length).toBe(0);
  });

  test('--weights puts tensors where their names say', async () => {
    const model = zooModel('convnet');
    const tensors = model.weights.map((w): Tensor & { readonly name: string } => ({ name: w.name, dtype: 'f32', shape: w.shape, data: initialValues({ ...w, init: { normal: 1 } }, 9) }));
    const batches: Tensor & { readonly name: string } = { name: 'norm1.num_batches_tracked', dtype: 'i64', shape: [], data: BigInt64Array.of(3n) };
    writeFileSync(file('w.safetensors'), writeSafetensors([...tensors, batches]));
    const { code, stderr } = await tilewright(['new', 'convnet', '--weights', file('w.safetensors'), '-o', file('w.onnx')]);
    expect(code, stderr).toBe(0);
    const state = new Map(importModel(file('w.onnx')).graph.state.map((s) => [s.name, s.init as Tensor]));
    for (const t of tensors) expect([...state.get(t.name)!.data.slice(0, 8)], t.name).toEqual([...t.data.slice(0, 8)]);

    writeFileSync(file('short.safetensors'), writeSafetensors(tensors.slice(1)));
    expect(await tilewright(['new', 'convnet', '--weights', file('short.safetensors'), '-o', file('x.onnx')])).toMatchObject({ code: 2, stderr: expect.stringMatching(/lacks weights of convnet: conv1.weight/) as string });
    expect(await tilewright(['new', 'convnet', '--classes', '9', '--weights', file('w.safetensors'), '-o', file('x.onnx')])).toMatchObject({ code: 2, stderr: expect.stringMatching(/fc.weight has shape \[10,3136\], the model wants \[9,3136\]/) as string });
  });

  test.each([
    [['resnet-51', '-o', file('x.onnx')], /no architecture "resnet-51"/],
    [['resnet-50', '--image', '224', '-o', file('x.onnx')], /expected CHANNELSxHEIGHTxWIDTH/],
    [['nfnet-f0', '--norm', 'layer', '-o', file('x.onnx')], /nfnet-f0 has no normalization/],
    [['convnet', '-o', file('none/x.onnx')], /cannot write/],
  ] as const)('refuses %j', async (args, message) => {
    expect(await tilewright(['new', ...args])).toMatchObject({ code: 2, stderr: expect.stringMatching(message) as string });
  });
});
