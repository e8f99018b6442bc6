/** Training of rewritten models, and the ONNX that comes out. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compile } from '../cli/driver/compile.ts';
import { openPeer } from '../cli/peers.ts';
import { importModel } from '../frontend/index.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { loadTrainer } from '../runtime/index.ts';
import { writeNpy } from '../runtime/npy.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'norm-train-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

const [n, c, size] = [6, 4, 5];
/** A convolution, a batch norm in training form, SiLU, and two classes. */
const model = encodeModel({
  nodes: [
    node('Conv', ['x', 'w1'], ['a'], { pads: [1, 1, 1, 1] }),
    node('BatchNormalization', ['a', 'n.weight', 'n.bias', 'n.mean', 'n.var'], ['b', 'm', 'v'], { training_mode: 1 }, { name: 'bn' }),
    node('Sigmoid', ['b'], ['s']), node('Mul', ['b', 's'], ['u']), node('GlobalAveragePool', ['u'], ['g']), node('Flatten', ['g'], ['h']), node('Gemm', ['h', 'w2', 'b2'], ['logits'], { transB: 1 }),
  ],
  initializers: [floats('w1', [c, 1, 3, 3], spread(9 * c)), floats('n.weight', [c], [1, 0.5, 2, 1]), floats('n.bias', [c], spread(c, 0.5)), floats('n.mean', [c], spread(c, 0.1)), floats('n.var', [c], [1, 1, 2, 0.5]), floats('w2', [2, c], spread(2 * c)), floats('b2', [2], [0, 0])],
  inputs: [value('x', 'f32', ['batch', 1, size, size])],
  outputs: [value('logits', 'f32', ['batch', 2])],
});
const x = (k: number): Float32Array => Float32Array.from(spread(n * size * size, 1, k));
const y = BigInt64Array.from({ length: n }, (_, i) => BigInt(i % 2));

async function inOnnxruntime(file: string, samples: number, data: Float32Array): Promise<number[]> {
  const peer = await openPeer('onnxruntime-node', file, 1);
  const { logits } = await peer.run({ x: { dtype: 'f32', shape: [samples, 1, size, size], data: data.slice(0, samples * size * size) } });
  await peer.close();
  return numbers(logits as never);
}

describe('a rewritten model', () => {
  it.each(['group:2+proxy', 'layer', 'batch', 'ghost:3', 'renorm'])('with %s trains, and onnxruntime computes what its evaluation does', async (norm) => {
    const artifact = await compile(model, { dims: { batch: n }, features: ['simd'], norm: parseNorm(norm), train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam', weightDecay: 0.01 } } });
    await using t = await loadTrainer(artifact, { threads: 1 });
    const losses: number[] = [];
    for (let k = 0; k < 12; k++) losses.push((await t.trainStep({ x: x(k % 2), y, lr: 0.05 })).loss);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    await t.exportOnnx(artifact.rewritten!, at('trained.onnx'));
    const ours = numbers((await t.evaluate({ x: x(7) }))['logits'] as never);
    for (const samples of [n, 1]) (await inOnnxruntime(at('trained.onnx'), samples, x(7))).forEach((v, i) => expect(v).toBeCloseTo(ours[i]!, 4));
    const proxies = importModel(at('trained.onnx')).graph.state.filter((s) => s.name.includes('proxy')).map((s) => [s.name, numbers(s.init as never).some((v) => v !== 0)]);
    expect(proxies).toEqual(norm.endsWith('proxy') ? [['n.proxy_gamma', true], ['n.proxy_beta', true]] : []);
  });

  it('from a folder that compile --train made trains without the compiler', async () => {
    writeFileSync(at('model.onnx'), model);
    const made = await tilewright(['compile', at('model.onnx'), '--train', '--norm', 'layer+proxy', '--batch', String(n), '-o', at('out')], 60_000);
    expect(made.code, made.stderr).toBe(0);
    await using t = await loadTrainer(at('out'), { threads: 1, lr: 0.05 });
    await t.trainStep({ x: x(0), y });
    await t.exportOnnx(at('out/rewritten.onnx'), at('from-folder.onnx'));
    const ours = numbers((await t.evaluate({ x: x(3) }))['logits'] as never);
    (await inOnnxruntime(at('from-folder.onnx'), n, x(3))).forEach((v, i) => expect(v).toBeCloseTo(ours[i]!, 4));
  }, 90_000);

  it('is trained by tilewright train and written back', async () => {
    writeFileSync(at('model.onnx'), model);
    writeFileSync(at('x.npy'), writeNpy({ dtype: 'f32', shape: [12, 1, size, size], data: Float32Array.from([...x(0), ...x(1)]) }));
    writeFileSync(at('y.npy'), writeNpy({ dtype: 'i64', shape: [12], data: BigInt64Array.from([...y, ...y]) }));
    const train = (...more: string[]): ReturnType<typeof tilewright> => tilewright(['train', at('model.onnx'), '--data', `${at('x.npy')},${at('y.npy')}`, '--batch', '6', '--epochs', '2', '--lr', '0.1', '-o', at('cli.onnx'), ...more], 60_000);
    const done = await train('--norm', 'layer+proxy', '--micro-batch', '2', '--weight-norm', 'scaled');
    expect(done.code, done.stderr).toBe(0);
    const { graph } = importModel(at('cli.onnx'));
    const moved = graph.state.filter((s) => numbers(s.init as never).some((v) => v !== (s.name === 'w1.gain' ? 1 : 0))).map((s) => s.name);
    expect(moved).toEqual(expect.arrayContaining(['n.proxy_gamma', 'n.proxy_beta', 'w1.gain', 'w1', 'n.weight']));
    expect(await inOnnxruntime(at('cli.onnx'), 1, x(0))).toHaveLength(2);

    const refused = await train('--micro-batch', '2');
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/BatchNormalization\(bn\) \(op moments\) joins the samples of a batch.*--norm group:4\+proxy.*--allow-batch-dependence/) as string });
    const allowed = await train('--micro-batch', '2', '--allow-batch-dependence');
    expect(allowed).toMatchObject({ code: 0, stderr: expect.stringMatching(/warning: BatchNormalization\(bn\) \(op moments\) joins the samples of a micro-batch alone/) as string });
    expect(allowed.stderr).not.toMatch(/the batch is one sample/);
    expect(await train('--micro-batch', '1', '--allow-batch-dependence')).toMatchObject({ code: 0, stderr: expect.stringMatching(/warning: BatchNormalization\(bn\): the batch is one sample/) as string });
    expect(await train('--allow-batch-dependence')).toMatchObject({ code: 2, stderr: expect.stringMatching(/goes with --micro-batch/) as string });
  }, 120_000);

  it('is written by compile --onnx', async () => {
    writeFileSync(at('model.onnx'), model);
    const made = await tilewright(['compile', at('model.onnx'), '--norm', 'layer', '--onnx', at('rewritten.onnx'), '-o', at('inference')], 60_000);
    expect(made.code, made.stderr).toBe(0);
    expect(importModel(at('rewritten.onnx')).graph.state.map((s) => s.name)).not.toContain('n.mean');
    const refused = await tilewright(['compile', at('model.onnx'), '--onnx', at('no.onnx'), '-o', at('inference')]);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/--onnx writes a model whose normalizations are rewritten: it needs --norm or --weight-norm/) as string });
  }, 90_000);
});
