/** Whole models and a step of training whose shaders store f16, on an adapter with shader-f16, against the interpreter on the same graphs. */
import { existsSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { compileGraph } from '../cli/driver/compile.ts';
import { compile } from '../index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { load, loadTrainer } from '../runtime/index.ts';
import { sampleTensors } from '../runtime/selfcheck.ts';
import { gpu, halfGpu, onHalfGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());
const mnist = new URL('../examples/mnist_cntk.onnx', import.meta.url).pathname;
const shared = new URL('../../shared/models/micro_kws_m_fp32.onnx', import.meta.url).pathname;

/** The largest difference, of the largest magnitude that is expected. */
function worst(got: Tensor, want: Tensor): number {
  expect([got.dtype, got.shape]).toEqual([want.dtype, want.shape]);
  const [a, b] = [Array.from(got.data, Number), Array.from(want.data, Number)];
  return Math.max(...a.map((x, i) => Math.abs(x - b[i]!))) / Math.max(...b.map(Math.abs));
}

/** Roundings to f16 of a network of so many layers, each half a unit in the last place of 11 bits, if all went one way. */
const rounding = (layers: number): number => layers * 2 ** -11;

describe.skipIf(!halfGpu)(onHalfGpu('a model in f16'), { timeout: 240_000 }, () => {
  const models = [['mnist_cntk', mnist], ['micro_kws_m_fp32', shared]] as const;
  test.each(models.map(([name, path]) => [existsSync(path) ? name : `${name} (skipped: ../shared is absent)`, path] as const))('%s gives what the interpreter gives, and what f32 gives but for f16’s roundings', async (_, path) => {
    if (!existsSync(path)) return;
    const artifact = await compile(path, { backend: 'wgsl', f16: true });
    const inputs = sampleTensors(artifact.manifest.inputs);
    await using session = await load(artifact, { gpu: gpu! });
    const got = await session.run(inputs);
    const { graph } = compileGraph(path, { backend: 'wgsl', f16: true });
    const layers = graph.ops.length;
    for (const [name, want] of evaluate(graph, inputs).outputs) expect(worst(got[name]!, want), name).toBeLessThan(rounding(layers));
    for (const [name, want] of evaluate(compileGraph(path, { backend: 'wgsl' }).graph, inputs).outputs) expect(worst(got[name]!, want), name).toBeLessThan(rounding(2 * layers));
  });
});

describe.skipIf(!halfGpu)(onHalfGpu('a step of training in f16'), { timeout: 240_000 }, () => {
  test('changes the parameters as the interpreter does', async () => {
    const rate = 0.01;
    const train = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd' }, batch: 4, precision: 'mixed', lossScale: { kind: 'static', factor: 128 } } as const;
    const artifact = await compile(readFileSync(mnist), { backend: 'wgsl', f16: true, train });
    const graph = artifact.program.entries[0]!.graph!;
    expect(Object.values(artifact.shaders!).some((s) => s.includes('vec4<f16>'))).toBe(true);
    const inputs = Object.fromEntries(graph.inputs.map(({ name, type }): [string, Tensor] => {
      if (name === 'lr') return [name, { ...type, data: Float32Array.of(rate) }];
      const count = sizeOf(type.shape);
      return [name!, type.dtype === 'i64' ? { ...type, data: BigInt64Array.from({ length: count }, (_, i) => BigInt((3 * i) % 10)) } : { ...type, data: Float32Array.from({ length: count }, (_, i) => Math.sin(i)) }];
    }));
    await using trainer = await loadTrainer(artifact, { gpu: gpu! });
    const before = await trainer.parameters();
    const got = await trainer.trainStep(inputs);
    const want = evaluate(graph, inputs);
    const loss = Number(want.outputs.get('loss')!.data[0]);
    expect(Math.abs(got.loss - loss) / loss).toBeLessThan(rounding(2));
    const after = await trainer.parameters();
    const names = new Map(graph.state.map((s) => [s.name, s.value]));
    expect(after.size).toBeGreaterThan(3);
    for (const [name, now] of after) {
      const was = before.get(name)!;
      const gradient = (t: Tensor): Tensor => ({ ...was, data: Float32Array.from(was.data as Float32Array, (x, i) => (Number(t.data[i]) - x) / rate) });
      expect(worst(gradient(now), gradient(want.state.get(names.get(name)!)!)), name).toBeLessThan(rounding(32));
    }
  });
});
