/** The power decomposition, against naive sums and what its authors say of a random network. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { wasmTarget } from '../cli/driver/target.ts';
import { importModel } from '../frontend/index.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, randomModel } from '../frontend/zoo/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { definitions, type Value } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { PowerSums } from '../passes/norm/channel-statistics.ts';
import { measureNorms } from '../passes/norm/measure-norms.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { writeNpy } from '../runtime/npy.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-health-'));
afterAll(() => rmSync(folder, { recursive: true }));

const [samples, channels, side, depth] = [8, 4, 3, 5];

/** The random network, and samples for it. */
function network(norm: string): { readonly model: ReturnType<typeof rewriteNorms>; readonly x: Tensor } {
  const zoo = randomModel(depth, [channels, side, side]);
  const imported = importModel(onnxBytes(zoo, (w) => initialValues(w, 0)), { dims: { n: samples } });
  const shape = [samples, channels, side, side];
  return { model: rewriteNorms(imported, parseNorm(norm), wasmTarget), x: { dtype: 'f32', shape, data: initialValues({ name: 'x', shape, init: { normal: 1 }, statistic: false }, 1) } };
}

function parts(norm: string): ReturnType<PowerSums['parts']>[] {
  const { model, x } = network(norm);
  const { graph, norms } = measureNorms(model, wasmTarget);
  const { outputs } = evaluate(graph, { x });
  return norms.map((n) => {
    const sums = new PowerSums(n);
    sums.add({ mean: outputs.get(n.outputs.mean)!.data as Float32Array, m2: outputs.get(n.outputs.m2)!.data as Float32Array });
    return sums.parts();
  });
}

/** Every (x - mean) / deviation of the graph, found as what multiplies a difference by a reciprocal root of each sample, [samples, channels, positions]. */
function normalized(norm: string): number[][] {
  const { model: { graph }, x } = network(norm);
  const defs = definitions(graph);
  const is = (v: Value, name: string): boolean => {
    const op = defs.get(v);
    return op?.name === name || (op?.name === 'reshape' && is(op.operands[0]!, name));
  };
  const wanted = new Map(graph.ops.filter((op) => op.name === 'mul' && is(op.operands[0]!, 'sub') && is(op.operands[1]!, 'rsqrt') && op.operands[1]!.type.shape[0] === samples).map((op) => [op.results[0]!, op]));
  const found: number[][] = [];
  evaluate(graph, { x }, { watch: (v, t) => void (wanted.has(v) && found.push(Array.from(t.data as Float64Array))) });
  return found;
}

describe('the four parts of the power', () => {
  test.each(['layer', 'group:2', 'instance', 'layer+proxy', 'group:2+proxy'])('%s: equal to naive sums over y, and sum to the mean of its square', (norm) => {
    const found = parts(norm);
    const tensors = normalized(norm);
    expect([found.length, tensors.length]).toEqual([depth, depth]);
    const positions = side * side;
    for (const [i, y] of tensors.entries()) {
      const mean = (list: readonly number[]): number => list.reduce((n, v) => n + v, 0) / list.length;
      const variance = (list: readonly number[]): number => mean(list.map((v) => (v - mean(list)) ** 2));
      const row = (n: number, c: number): number[] => y.slice((n * channels + c) * positions, (n * channels + c + 1) * positions);
      const byChannel = (of: (list: readonly number[]) => number): number[][] => Array.from({ length: channels }, (_, c) => Array.from({ length: samples }, (__, n) => of(row(n, c))));
      const [means, deviations] = [byChannel(mean), byChannel((list) => Math.sqrt(variance(list)))];
      const naive = { p1: mean(means.map((m) => mean(m) ** 2)), p2: mean(means.map(variance)), p3: mean(deviations.map((d) => mean(d) ** 2)), p4: mean(deviations.map(variance)) };
      for (const part of ['p1', 'p2', 'p3', 'p4'] as const) expect(found[i]![part], `${part} of norm ${i}`).toBeCloseTo(naive[part], 5);
      const { p1, p2, p3, p4 } = found[i]!;
      expect(Math.abs(p1 + p2 + p3 + p4 - mean(y.map((v) => v * v)))).toBeLessThan(1e-5);
    }
  });

  test('batch norm: channels have mean 0 and power 1', () => {
    for (const { p1, p2, p3, p4 } of parts('batch')) {
      expect(p1).toBeLessThan(1e-10);
      expect(p1 + p2 + p3 + p4).toBeCloseTo(1, 3);
    }
  });

  test('instance norm: nothing but the mean of deviations', () => {
    for (const { p1, p2, p3, p4 } of parts('instance')) {
      expect(p1 + p2).toBeLessThan(1e-10);
      expect(p3 + p4).toBeGreaterThan(0.98);
    }
  });

  test('a norm by running statistics: those of methods alone', () => {
    const { model, x } = network('frozen');
    const { graph, norms } = measureNorms(model, wasmTarget);
    expect(norms[0]!.form).toEqual({ kind: 'running' });
    const { outputs } = evaluate(graph, { x });
    const sums = new PowerSums({ ...norms[0]!, running: { mean: [1, 1, 1, 1], variance: [4, 4, 4, 4] }, epsilon: 0 });
    const moments = { mean: outputs.get('norm.0.mean')!.data as Float32Array, m2: outputs.get('norm.0.m2')!.data as Float32Array };
    sums.add(moments);
    const { p1, p2, p3, p4 } = sums.parts();
    const power = Array.from(moments.mean).reduce((n, m, i) => n + ((m - 1) ** 2 + moments.m2[i]! / (side * side)) / 4, 0) / moments.mean.length;
    expect(p1 + p2 + p3 + p4).toBeCloseTo(power, 6);
  });
});

describe('norms measured by what they give', () => {
  // One batch norm of x [4, 2, 3] that keeps running statistics; y by the formulas of docs/norms.md.
  const [n, c, area, epsilon] = [4, 2, 3, 0.01];
  const running = { mean: [0.5, -1], variance: [2, 0.3] };
  const x = Array.from({ length: n * c * area }, (_, i) => Math.sin(i * i) + (i % 5) / 3);
  const reference = Array.from({ length: 2 * c * area }, (_, i) => Math.cos(3 * i) - 0.4);
  const bytes = encodeModel({
    nodes: [node('BatchNormalization', ['x', 'scale', 'bias', 'm', 'v'], ['y', 'm2', 'v2'], { training_mode: 1, epsilon: { float: epsilon } })], inputs: [value('x', 'f32', [n, c, area])], outputs: [value('y', 'f32')],
    initializers: [floats('scale', [c], [3, 0.2]), floats('bias', [c], [1, 7]), floats('m', [c], running.mean), floats('v', [c], running.variance)],
  });
  const mean = (list: readonly number[]): number => list.reduce((s, v) => s + v, 0) / list.length;
  const variance = (list: readonly number[]): number => mean(list.map((v) => (v - mean(list)) ** 2));
  const row = (data: readonly number[], sample: number, channel: number): number[] => data.slice((sample * c + channel) * area, (sample * c + channel + 1) * area);
  const pool = (samples: readonly number[], channel: number): number[] => samples.flatMap((s) => row(x, s, channel));
  const by = (v: number, list: readonly number[]): number => (v - mean(list)) / Math.sqrt(variance(list) + epsilon);
  const within = (v: number, bound: number): number => Math.min(Math.max(v, -bound), bound);
  const cases: Readonly<Record<string, (v: number, sample: number, channel: number) => number>> = {
    none: (v) => v,
    'ghost:2': (v, s, ch) => by(v, pool(s < 2 ? [0, 1] : [2, 3], ch)),
    'domains:2': (v, s, ch) => by(v, pool(s % 2 === 0 ? [0, 2] : [1, 3], ch)),
    'renorm:1.5,0.25': (v, _, ch) => {
      const all = pool([0, 1, 2, 3], ch);
      const sigma = Math.sqrt(running.variance[ch]! + epsilon);
      const r = Math.min(Math.max(Math.sqrt(variance(all) + epsilon) / sigma, 1 / 1.5), 1.5);
      return by(v, all) * r + within((mean(all) - running.mean[ch]!) / sigma, 0.25);
    },
    virtual: (v, s, ch) => by(v, [...row(reference, 0, ch), ...row(reference, 1, ch), ...row(x, s, ch)]),
  };
  test.each(Object.keys(cases))('%s: the parts of y', (name) => {
    const model = importModel(bytes);
    const spec = parseNorm(name);
    const { normalized, ...rest } = rewriteNorms(model, spec.kind === 'virtual' ? { ...spec, reference: { dtype: 'f32', shape: [2, c, area], data: Float32Array.from(reference) } } : spec, wasmTarget);
    const { graph, norms } = measureNorms(rest, wasmTarget, { normalized, before: model.graph });
    const given = { x: { dtype: 'f32', shape: [n, c, area], data: Float32Array.from(x) }, domain: { dtype: 'i64', shape: [n], data: BigInt64Array.from([0n, 1n, 0n, 1n]) } } as const;
    const { outputs } = evaluate(graph, spec.kind === 'domains' ? given : { x: given.x });
    expect(norms).toMatchObject([{ channels: c, positions: area, form: { kind: 'given' } }]);
    const sums = new PowerSums(norms[0]!);
    sums.add({ mean: outputs.get(norms[0]!.outputs.mean)!.data as Float32Array, m2: outputs.get(norms[0]!.outputs.m2)!.data as Float32Array });
    const y = (s: number, ch: number): number[] => row(x, s, ch).map((v) => cases[name]!(v, s, ch));
    const over = (of: (ch: number) => number): number => mean([0, 1].map(of));
    const [means, deviations] = [(ch: number) => [0, 1, 2, 3].map((s) => mean(y(s, ch))), (ch: number) => [0, 1, 2, 3].map((s) => Math.sqrt(variance(y(s, ch))))];
    const naive = { p1: over((ch) => mean(means(ch)) ** 2), p2: over((ch) => variance(means(ch))), p3: over((ch) => mean(deviations(ch)) ** 2), p4: over((ch) => variance(deviations(ch))) };
    for (const part of ['p1', 'p2', 'p3', 'p4'] as const) expect(sums.parts()[part], part).toBeCloseTo(naive[part], 5);
  });
});

test('many norms at once: one that cannot be measured is named, the others are shown', async () => {
  const file = join(folder, 'reference.npy');
  const shape = [3, 4, 3, 3];
  writeFileSync(file, writeNpy({ dtype: 'f32', shape, data: initialValues({ name: 'r', shape, init: { normal: 1 }, statistic: false }, 2) }));
  const small = ['health', '--random', '--layers', '3', '--channels', '4', '--size', '3', '--batch', '8', '--json'];
  const names = ['layer', 'renorm:3,5', 'none', 'ghost:4', 'domains:2', 'frozen', 'virtual', 'none+proxy'];
  const { code, stdout, stderr } = await tilewright([...small, '--norms', [...names, 'ghost:3'].join(','), '--norm-reference', file], 60_000);
  expect(code, stderr).toBe(0);
  const { variants, notMeasured } = JSON.parse(stdout) as { variants: { norm: string; layers: { p1: number; p2: number; p3: number; p4: number }[] }[]; notMeasured: { norm: string; reason: string }[] };
  expect(variants.map((v) => [v.norm, v.layers.length])).toEqual(names.map((name) => [name, 3]));
  expect(notMeasured).toEqual([{ norm: 'ghost:3', reason: expect.stringMatching(/does not divide into parts of 3/) as string }]);
  // Each part of ghost:4 and each domain has mean 0 and power 1 in every channel, so all of them together do.
  for (const norm of ['ghost:4', 'domains:2']) {
    for (const { p1, p2, p3, p4 } of variants.find((v) => v.norm === norm)!.layers) expect([p1 < 1e-10, Math.abs(p1 + p2 + p3 + p4 - 1) < 1e-2]).toEqual([true, true]);
  }
  expect(await tilewright([...small, '--norms', 'ghost:3'])).toMatchObject({ code: 2, stderr: expect.stringMatching(/does not divide into parts of 3/) as string });
  expect(await tilewright([...small, '--norms', 'layer', '--norm-reference', file])).toMatchObject({ code: 2, stderr: expect.stringMatching(/--norm-reference needs virtual among --norms/) as string });
}, 90_000);

test('a random network of 40 layers: layer norm collapses, Proxy Norm keeps it from it', async () => {
  const page = join(folder, 'health.html');
  const { code, stdout, stderr } = await tilewright(['health', '--random', '--norms', 'batch,layer,layer+proxy', '-o', page, '--json'], 120_000);
  expect(code, stderr).toBe(0);
  const { variants } = JSON.parse(stdout) as { variants: { norm: string; layers: { p1: number; p2: number }[] }[] };
  const [batch, layer, proxy] = variants.map((v) => v.layers.at(-1)!);
  expect(variants.map((v) => v.layers.length)).toEqual([40, 40, 40]);
  expect(batch!.p1).toBeLessThan(1e-6);
  expect(layer!.p1).toBeGreaterThan(0.9);
  expect(proxy!.p1).toBeLessThan(0.01);
  expect(proxy!.p2).toBeGreaterThan(10 * layer!.p2);
  const html = readFileSync(page, 'utf8');
  expect(html.match(/<svg /g)).toHaveLength(4);
  expect(html.match(/<polyline /g)).toHaveLength(12);
  expect(html).not.toMatch(/(?:src|href)=/);
}, 120_000);

test.each([
  [['health'], /needs a model, or --random/],
  [['health', join(import.meta.dirname, '../examples/mnist_cntk.onnx')], /needs samples/],
  [['health', join(import.meta.dirname, '../examples/mnist_cntk.onnx'), '--random'], /no normalization over channels/],
  [['health', '--random', '--norms', 'layers'], /unknown normalization "layers"/],
] as const)('refuses %j', async (args, message) => {
  expect(await tilewright(args)).toMatchObject({ code: 2, stderr: expect.stringMatching(message) as string });
});
