/** Trainers over compiled steps: the same numbers as the interpreter's, the same bits on any number of threads, folders without the compiler. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile, type Artifact } from '../cli/driver/compile.ts';
import { openPeer } from '../cli/peers.ts';
import { load, loadTrainer, type Trainer } from '../runtime/index.ts';
import { trainerOver } from '../runtime/trainer.ts';
import { tilewright } from './cli-harness.ts';
import { encodeModel } from './onnx-encode.ts';
import { batch, bits, referenceEngine, tinyBatch, tinyModel } from './trainer-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'trainer-wasm-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));
let artifact: Artifact;
beforeAll(async () => {
  writeFileSync(at('tiny.onnx'), encodeModel(tinyModel));
  artifact = await compile(at('tiny.onnx'), { train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' } }, features: ['simd'] });
});

async function train(t: Trainer, steps: number): Promise<number[]> {
  const losses: number[] = [];
  for (let k = 0; k < steps; k++) losses.push((await t.trainStep({ ...tinyBatch(k), lr: 0.05 })).loss);
  return losses;
}

describe('a compiled training step', () => {
  it('trains as the interpreter does', async () => {
    await using compiled = await loadTrainer(artifact, { threads: 2 });
    const reference = await trainerOver(referenceEngine());
    const [ours, expected] = [await train(compiled, 10), await train(reference, 10)];
    for (const [i, loss] of ours.entries()) expect(loss).toBeCloseTo(expected[i]!, 5);
    const { x } = tinyBatch(50);
    const [a, b] = [(await compiled.evaluate({ x }))['logits']!, (await reference.evaluate({ x }))['logits']!];
    for (let i = 0; i < batch * 2; i++) expect(a.data[i] as number).toBeCloseTo(b.data[i] as number, 4);
    expect(compiled.step).toBe(10);
  });

  it('is told from inference by load, which gives a trainer for the one and a session for the other', async () => {
    await using trainer = await load<Trainer>(artifact, { threads: 1, lr: 0.1 });
    expect((await trainer.trainStep(tinyBatch(0))).loss).toBeGreaterThan(0);
    expect(trainer.step).toBe(1);
    await using session = await load(await compile(at('tiny.onnx'), { features: ['simd'] }), { threads: 1 });
    expect(Object.keys(await session.run({ x: tinyBatch(0).x }))).toEqual(['logits']);
  });

  it('has the same bits on any number of threads', async () => {
    const run = async (threads: number): Promise<unknown> => {
      await using t = await loadTrainer(artifact, { threads });
      await train(t, 20);
      return bits((await t.checkpoint()).state);
    };
    const one = await run(1);
    expect(await run(2)).toEqual(one);
    expect(await run(3)).toEqual(one);
  });

  it('goes back to the state before a step whose loss is not finite', async () => {
    await using t = await loadTrainer(artifact, { threads: 1 });
    await train(t, 3);
    const before = bits((await t.checkpoint()).state);
    await t.setParameters({ b2: Float32Array.of(Infinity, 0) });
    await expect(t.trainStep({ ...tinyBatch(3), lr: 0.05 })).rejects.toThrow(/"b2" holds a number that is not finite/);
    await t.setParameters({ b2: new Float32Array(Uint8Array.from(before['b2']!).buffer) });
    expect(bits((await t.checkpoint()).state)).toEqual(before);
  });

  it('says what is wrong with inputs, and stays usable', async () => {
    await using t = await loadTrainer(artifact, { threads: 1 });
    const { x, y } = tinyBatch(0);
    await expect(t.trainStep({ x })).rejects.toThrow(/missing input "y" \(i64\[4\]\)/);
    await expect(t.trainStep({ x: new Float32Array(5), y })).rejects.toThrow(/input "x" has 5 elements, expected 12/);
    expect((await t.trainStep({ x, y })).loss).toBeGreaterThan(0);
  });
});

describe('a training artifact in a folder', () => {
  it('is made by compile --train, trains without the compiler, and exports', async () => {
    const made = await tilewright(['compile', at('tiny.onnx'), '--train', '--optimizer', 'adam', '-o', at('out')], 60_000);
    expect(made.code, made.stderr).toBe(0);
    expect(readFileSync(at('out/model.d.ts'), 'utf8')).toMatch(/interface ModelTrainer/);
    await using t = await loadTrainer(at('out'), { threads: 1, lr: 0.05 });
    const losses: number[] = [];
    for (let k = 0; k < 10; k++) losses.push((await t.trainStep(tinyBatch(k))).loss);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    await t.save(at('ck'));
    await using again = await loadTrainer(at('out'), { threads: 1 });
    await again.restore(at('ck'));
    expect(bits((await again.checkpoint()).state)).toEqual(bits((await t.checkpoint()).state));
    await t.exportOnnx(at('tiny.onnx'), at('trained.onnx'));
    const { x } = tinyBatch(60);
    const { logits } = await again.evaluate({ x });
    const peer = await openPeer('onnxruntime-node', at('trained.onnx'), 1);
    const theirs = await peer.run({ x: { dtype: 'f32', shape: [batch, 3], data: x } });
    await peer.close();
    for (let i = 0; i < batch * 2; i++) expect(logits!.data[i] as number).toBeCloseTo(theirs['logits']!.data[i] as number, 5);
  }, 90_000);

  it('is told from one for inference', async () => {
    const inference = await compile(at('tiny.onnx'), { features: ['simd'] });
    await expect(loadTrainer(inference)).rejects.toThrow(/cannot be trained: it was compiled for inference; compile the model with --train/);
  });
});

describe('inspect --train', () => {
  it('prints units, and the step with gradients named after their parameters', async () => {
    const { code, stdout } = await tilewright(['inspect', at('tiny.onnx'), '--train', '--json'], 60_000);
    expect(code).toBe(0);
    const facts = JSON.parse(stdout) as { parameters: { name: string; unit?: { axes: number[]; of: string } }[]; lastLinear: string[] };
    expect(facts.parameters.map((p) => [p.name, p.unit?.axes])).toEqual([['w1', [1]], ['b1', undefined], ['w2', [1]], ['b2', undefined]]);
    expect(facts.lastLinear).toEqual(['w2']);
    const ir = await tilewright(['inspect', at('tiny.onnx'), '--train', '--ir'], 60_000);
    for (const name of ['w1', 'b1', 'w2', 'b2']) expect(ir.stdout).toContain(`%${name}.grad`);
  }, 90_000);
  it('its options need it', async () => {
    const { code, stderr } = await tilewright(['inspect', at('tiny.onnx'), '--optimizer', 'adam']);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/--optimizer goes with --train/)]);
  });
});
