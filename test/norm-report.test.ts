/** What compile, train and check say of a rewrite, and that a compiled model is in inference form. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rewrittenOnnx } from '../cli/driver/export.ts';
import { compile } from '../index.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { load } from '../runtime/index.ts';
import { tilewright } from './cli-harness.ts';
import { batchNormModel, beta, c, close, gamma, h, mean, n, variance, x } from './norm-harness.ts';
import { node } from './onnx-encode.ts';
import { numbers } from './train-harness.ts';

/** A batch norm with an activation, and behind it what resembles one. */
const bytes = batchNormModel([
  node('Relu', ['u'], ['r']), node('ReduceMean', ['r'], ['rm'], { axes: [0, 2] }), node('Sub', ['r', 'rm'], ['d']), node('Mul', ['d', 'd'], ['sq']), node('ReduceMean', ['sq'], ['rv'], { axes: [0, 2] }),
  node('Sqrt', ['rv'], ['s']), node('Add', ['s', 'one'], ['w']), node('Div', ['d', 'w'], ['y'], {}, { name: 'odd' }),
], { training: true, opset: 17 });
const left = { node: 'Div(odd)', reason: 'its epsilon is added to the deviation, not to the variance' };
let folder: string;
let file: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tilewright-norm-'));
  file = join(folder, 'model.onnx');
  writeFileSync(file, bytes);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('a rewrite is reported', () => {
  it('by check', async () => {
    const { stdout } = await tilewright(['check', file, '--norm', 'layer+proxy']);
    expect(stdout).toContain('norms: 1 rewritten to layer+proxy, 1 with a proxy\n');
    expect(stdout).toContain(`norms: ${left.node} stays as it is: ${left.reason}\n`);
  });
  it('by compile --json', async () => {
    const { stdout } = await tilewright(['compile', file, '--norm', 'group:2', '-o', join(folder, 'out'), '--json']);
    expect((JSON.parse(stdout) as { norms: unknown }).norms).toEqual({ to: 'group:2', rewritten: [{ node: 'BatchNormalization(bn)', from: 'inference', channels: c, proxy: [] }], left: [left], weights: [] });
  });
  it('by a training artifact', async () => {
    const { norms } = await compile(batchNormModel([node('Relu', ['u'], ['y'])], { training: true }), { dims: { n }, features: ['simd'], norm: parseNorm('layer+proxy'), train: { loss: { kind: 'mse' }, optimizer: { kind: 'sgd' } } });
    expect(norms).toEqual({ rewritten: [{ node: 'BatchNormalization(bn)', from: 'training', channels: c, proxy: ['n.proxy_gamma', 'n.proxy_beta'] }], left: [], weights: [] });
  });
});

describe('a compiled model is in inference form, as its ONNX file is', () => {
  const model = batchNormModel([node('Relu', ['u'], ['y'])], { training: true });
  const byRunning = x.map((v, i) => {
    const k = Math.floor(i / h) % c;
    return Math.max((gamma[k]! * (v - mean[k]!)) / Math.sqrt(variance[k]! + 1e-5) + beta[k]!, 0);
  });
  const outputOf = async (source: Uint8Array, options: Parameters<typeof compile>[1]): Promise<number[]> => {
    await using session = await load(await compile(source, { dims: { n }, features: ['simd'], ...options }));
    return numbers((await session.run({ x: Float32Array.from(x) }))['y']!);
  };
  it.each(['renorm', 'ghost:3', 'batch', 'frozen'])('%s', async (norm) => {
    close(await outputOf(model, { norm: parseNorm(norm) }), byRunning);
    close(await outputOf(rewrittenOnnx(model, parseNorm(norm)), {}), byRunning);
  });
  it('with `inference`, without a rewrite', async () => {
    close(await outputOf(model, { inference: true }), byRunning);
    expect(Math.max(...(await outputOf(model, {})).map((v, i) => Math.abs(v - byRunning[i]!)))).toBeGreaterThan(0.05);
  });
});

it.each(['0', '-1', 'NaN', 'x'])('refuses --norm-eps %s', async (eps) => {
  const { code, stderr } = await tilewright(['check', file, '--norm', 'layer', `--norm-eps=${eps}`]);
  expect(code).toBe(2);
  expect(stderr).toContain('--norm-eps');
});
