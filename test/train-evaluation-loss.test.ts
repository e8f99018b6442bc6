/** The loss of an evaluation is that of all samples at once, whatever their batches; which initializers are trained. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../cli/train/evaluate.ts';
import { importModel } from '../frontend/index.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import type { LossSpec } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import type { Epoch } from '../runtime/data/index.ts';
import type { Trainer } from '../runtime/trainer.ts';
import { encodeModel, floats, node, value, type TestModel } from './onnx-encode.ts';
import { spread } from './trainer-harness.ts';

const samples = 10;
const classes = 3;
const logits = spread(samples * classes, 2);
const labels = Array.from({ length: samples }, (_, i) => (i * i) % classes);

/** Samples of `width` numbers with their targets in batches of 4; the last one is filled up with copies of the last sample. */
function epochOf(y: (i: number) => readonly number[], integers: boolean): Epoch {
  return {
    batches: 3,
    at(b) {
      const at = Array.from({ length: 4 }, (_, i) => Math.min(b * 4 + i, samples - 1));
      const targets = at.flatMap(y);
      return { x: Float32Array.from(at.flatMap((i) => logits.slice(i * classes, (i + 1) * classes))), y: integers ? BigInt64Array.from(targets, BigInt) : Float32Array.from(targets), count: Math.min(4, samples - b * 4) };
    },
  };
}

/** A model that gives its inputs back, or the mean of their sums as its loss. */
function trainer(output: 'logits' | 'loss'): Trainer {
  const entry = { inputs: [{ name: 'x', dtype: 'f32', shape: [4, classes] }], outputs: [{ name: output, dtype: 'f32', shape: output === 'loss' ? [] : [4, classes] }] };
  return {
    entries: { step: entry, eval: entry },
    evaluate: ({ x }: { x: Float32Array }) => Promise.resolve({ [output]: output === 'loss' ? { dtype: 'f32', shape: [], data: Float32Array.of(x.reduce((n, v) => n + v, 0) / 4) } : { dtype: 'f32', shape: [4, classes], data: x } }),
  } as unknown as Trainer;
}

const logp = (i: number, c: number): number => logits[i * classes + c]! - Math.log(Array.from({ length: classes }, (_, k) => Math.exp(logits[i * classes + k]!)).reduce((a, b) => a + b));
const all = Array.from({ length: samples }, (_, i) => i);
const sum = (of: (i: number) => number): number => all.reduce((n, i) => n + of(i), 0);
const weights = [1, 2, 5];
const names = { x: 'x', y: 'y' };

describe('the loss of an evaluation', () => {
  it.each<[string, LossSpec, number]>([
    ['the mean over samples', { kind: 'crossEntropy' }, -sum((i) => logp(i, labels[i]!)) / samples],
    ['weighted by class', { kind: 'crossEntropy', classWeights: weights }, -sum((i) => weights[labels[i]!]! * logp(i, labels[i]!)) / sum((i) => weights[labels[i]!]!)],
    ['without ignored targets', { kind: 'crossEntropy', ignoreIndex: 1 }, -sum((i) => (labels[i] === 1 ? 0 : logp(i, labels[i]!))) / all.filter((i) => labels[i] !== 1).length],
    ['smoothed', { kind: 'crossEntropy', labelSmoothing: 0.3 }, -sum((i) => 0.7 * logp(i, labels[i]!) + 0.1 * (logp(i, 0) + logp(i, 1) + logp(i, 2))) / samples],
  ])('of class indices is %s', async (_, loss, expected) => {
    const found = await evaluate(trainer('logits'), epochOf((i) => [labels[i]!], true), loss, names);
    expect(found.loss).toBeCloseTo(expected, 5);
    const counted = all.filter((i) => !('ignoreIndex' in loss) || labels[i] !== loss.ignoreIndex);
    const right = counted.filter((i) => [0, 1, 2].every((c) => logp(i, c) <= logp(i, labels[i]!)));
    expect(found.accuracy).toBe(right.length / counted.length);
  });

  it('of numbers is the mean over all of them', async () => {
    const y = (i: number): number[] => [i, -i, 0.5];
    const found = await evaluate(trainer('logits'), epochOf(y, false), { kind: 'mse' }, names);
    expect(found.loss).toBeCloseTo(sum((i) => y(i).reduce((n, v, c) => n + (logits[i * classes + c]! - v) ** 2, 0)) / (samples * classes), 5);
  });

  it('that the model computes leaves out the copies that fill the last batch', async () => {
    const found = await evaluate(trainer('loss'), epochOf((i) => [labels[i]!], true), { kind: 'output', name: 'loss' }, names);
    expect(found.loss).toBeCloseTo(sum((i) => logits.slice(i * classes, (i + 1) * classes).reduce((a, b) => a + b)) / samples, 5);
  });
});

/** A weight, a bias of one element, and two numbers of rank 0; dropout without a seed. */
const model: TestModel = {
  name: 'scalars',
  nodes: [
    node('MatMul', ['x', 'w'], ['m']), node('Add', ['m', 'b'], ['a']), node('Mul', ['a', 'half'], ['h']), node('Mul', ['h', 'learned.scale'], ['t']), node('Mul', ['t', 'temperature'], ['s']),
    node('Dropout', ['s', 'ratio', 'on'], ['logits'], {}, { name: 'drop' }),
  ],
  inputs: [value('x', 'f32', [4, 3])], outputs: [value('logits', 'f32', [4, 2])],
  initializers: [
    floats('w', [3, 2], spread(6)), floats('b', [1], [0.5]), floats('half', [], [0.5]), floats('learned.scale', [], [2]), floats('temperature', [], [3]), floats('ratio', [], [0.25]),
    { name: 'on', dataType: 9, dims: [], rawData: Uint8Array.of(1) },
  ],
};

describe('parameters', () => {
  const trained = (options: { only?: string[]; freeze?: string[] }): string[] => {
    const imported = importModel(encodeModel(model), { seeded: true });
    const { graph } = trainingStep(imported.graph, imported.statistics, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd' }, gradients: true, ...options }, wasmTarget);
    return graph.outputs.filter((o) => o.name.endsWith('.grad')).map((o) => o.name.slice(0, -'.grad'.length)).sort();
  };
  it.each<[string, Parameters<typeof trained>[0], string[]]>([
    ['are the float initializers of rank 1 and more, and numbers with a path for a name', {}, ['b', 'learned.scale', 'w']],
    ['without those that are frozen', { freeze: ['w', 'learned.*'] }, ['b']],
    ['are those that are named, single numbers too', { only: ['w', 'temp*'] }, ['temperature', 'w']],
    ['that are named may be frozen', { only: ['*'], freeze: ['half', 'b', 'ratio'] }, ['learned.scale', 'temperature', 'w']],
  ])('%s', (_, options, expected) => expect(trained(options)).toEqual(expected));

  it('that a pattern does not find are told', () => {
    expect(() => trained({ freeze: ['feature.*'] })).toThrow(/freeze are named by "feature\.\*", but the model has none of that name; it has "w", "b"/);
    expect(() => trained({ only: ['v'] })).toThrow(/train are named by "v"/);
  });
});

describe('dropout without a seed', () => {
  it('is warned of where a run repeats it, not where training seeds it', () => {
    expect(importModel(encodeModel(model)).warnings).toEqual([expect.stringMatching(/"drop".*every run gives the same random numbers/)]);
    expect(importModel(encodeModel(model), { seeded: true }).warnings).toEqual([]);
  });
});
