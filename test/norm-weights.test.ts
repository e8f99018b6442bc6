/** Normalized weights against plain loops and against values that the methods give. */
import { describe, expect, it } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { verify } from '../ir/verify.ts';
import { normalizeWeights, type WeightNorm } from '../passes/norm/normalize-weights.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

const [n, channels, size, outputs] = [2, 4, 5, 6];
const w1 = spread(outputs * 2 * 9, 1, 3);
const w2 = spread(3 * outputs, 1, 7);
/** A convolution of two groups with padding and bias, and a linear layer. */
const model = encodeModel({
  nodes: [node('Conv', ['x', 'c.weight', 'c.bias'], ['a'], { group: 2, pads: [1, 1, 1, 1] }), node('GlobalAveragePool', ['a'], ['g']), node('Flatten', ['g'], ['h']), node('Gemm', ['h', 'l.weight', 'l.bias'], ['y'], { transB: 1 })],
  initializers: [floats('c.weight', [outputs, 2, 3, 3], w1), floats('c.bias', [outputs], spread(outputs)), floats('l.weight', [3, outputs], w2), floats('l.bias', [3], [0.1, 0.2, 0.3])],
  inputs: [value('x', 'f32', [n, channels, size, size])],
  outputs: [value('y', 'f32'), value('a', 'f32'), value('h', 'f32')],
});
const x = spread(n * channels * size * size, 1.5, 2);

function run(kind: WeightNorm): { readonly y: number[]; readonly a: number[]; readonly h: number[]; readonly state: string[]; readonly graph: ReturnType<typeof normalizeWeights>['graph'] } {
  const { graph } = normalizeWeights(importModel(model).graph, kind);
  verify(graph);
  const { outputs: got } = evaluate(graph, { x: f32([n, channels, size, size], x) });
  return { y: numbers(got.get('y')!), a: numbers(got.get('a')!), h: numbers(got.get('h')!), state: graph.state.map((s) => s.name), graph };
}

const mean = (xs: readonly number[]): number => xs.reduce((p, q) => p + q, 0) / xs.length;
const squares = (xs: readonly number[]): number => xs.reduce((p, q) => p + q * q, 0);
const rows = (w: readonly number[], each: number): number[][] => Array.from({ length: w.length / each }, (_, i) => w.slice(i * each, (i + 1) * each));
const bias = spread(outputs);

/** The convolution by plain loops; `scale` multiplies a sum by what it reads. */
function convolved(units: readonly (readonly number[])[], scale: (patch: readonly number[]) => number = () => 1): number[] {
  const out: number[] = [];
  for (let i = 0; i < n; i++) for (let o = 0; o < outputs; o++) for (let p = 0; p < size; p++) for (let q = 0; q < size; q++) {
    const first = Math.floor(o / (outputs / 2)) * 2;
    const patch: number[] = [];
    for (let k = 0; k < 2; k++) for (let r = -1; r < 2; r++) for (let s = -1; s < 2; s++) {
      const inside = p + r >= 0 && p + r < size && q + s >= 0 && q + s < size;
      patch.push(inside ? x[((i * channels + first + k) * size + p + r) * size + q + s]! : 0);
    }
    out.push(patch.reduce((sum, v, j) => sum + v * units[o]![j]!, 0) * scale(patch) + bias[o]!);
  }
  return out;
}
const linear = (h: readonly number[], units: readonly (readonly number[])[], scale: (row: readonly number[]) => number = () => 1): number[] =>
  rows(h, outputs).flatMap((row) => units.map((u, i) => u.reduce((sum, v, j) => sum + v * row[j]!, 0) * scale(row) + [0.1, 0.2, 0.3][i]!));
const close = (got: readonly number[], want: readonly number[]): void => {
  expect(got).toHaveLength(want.length);
  want.forEach((v, i) => expect(got[i]).toBeCloseTo(v, 4));
};

it('standardized weights have mean 0 and variance 1 in each unit of a convolution', () => {
  const units = rows(w1, 18).map((u) => u.map((v) => (v - mean(u)) / Math.sqrt(squares(u.map((z) => z - mean(u))) / 18 + 1e-5)));
  const got = run('standardize');
  close(got.a, convolved(units));
  close(got.y, linear(got.h, rows(w2, outputs)));
});

it('scaled weights are divided by the root of the fan-in too, times a gain of 1', () => {
  const units = rows(w1, 18).map((u) => u.map((v) => (v - mean(u)) / Math.sqrt(squares(u.map((z) => z - mean(u))))));
  const got = run('scaled');
  close(got.a, convolved(units));
  expect(got.state).toEqual(['c.weight', 'c.bias', 'l.weight', 'l.bias', 'c.gain']);
});

describe('scaled weights of methods for NFNets', () => {
  const scaled = (w: readonly number[]): number[] => {
    const tiny = encodeModel({ nodes: [node('Conv', ['x', 'w'], ['y'])], initializers: [floats('w', [1, 4, 1, 1], w)], inputs: [value('x', 'f32', [4, 4, 1, 1])], outputs: [value('y', 'f32')] });
    const { graph } = normalizeWeights(importModel(tiny).graph, 'scaled');
    return numbers(evaluate(graph, { x: f32([4, 4, 1, 1], [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]) }).outputs.get('y')!);
  };
  it('of 1, 2, 3, 6', () => scaled([1, 2, 3, 6]).forEach((v, i) => expect(v).toBeCloseTo([-0.53452248, -0.26726124, 0, 0.80178373][i]!, 6)));
  it('bound the variance from below, they do not add to it', () => scaled([0.001, 0.002, 0.003, 0.006]).forEach((v, i) => expect(v).toBeCloseTo([-0.2, -0.1, 0, 0.3][i]!, 5)));
});

it('weight norm starts as the function that the model had, and keeps directions of length 1', () => {
  const plain = evaluate(importModel(model).graph, { x: f32([n, channels, size, size], x) }).outputs;
  const got = run('weight');
  close(got.a, numbers(plain.get('a')!));
  close(got.y, numbers(plain.get('y')!));
  const gain = (name: string): number[] => numbers(got.graph.state.find((s) => s.name === name)!.init as never);
  close(gain('c.gain'), rows(w1, 18).map((u) => Math.sqrt(squares(u))));
  close(gain('l.gain'), rows(w2, outputs).map((u) => Math.sqrt(squares(u))));
  const state = new Map(got.graph.state.filter((s) => s.name.endsWith('weight')).map((s) => [s.value, { ...(s.init as ReturnType<typeof f32>), data: Float32Array.from(numbers(s.init as ReturnType<typeof f32>), (v) => v * 5) }]));
  close(numbers(evaluate(got.graph, { x: f32([n, channels, size, size], x) }, { state }).outputs.get('y')!), numbers(plain.get('y')!));
});

it('cosine norm gives cosines of weights and inputs, by groups and in padding', () => {
  const unit = (u: readonly number[]): number[] => u.map((v) => v / Math.sqrt(squares(u)));
  const got = run('cosine');
  close(got.a, convolved(rows(w1, 18).map(unit), (patch) => 1 / Math.sqrt(squares(patch))));
  close(got.y, linear(got.h, rows(w2, outputs).map(unit), (row) => 1 / Math.sqrt(squares(row))));
});

describe('refuses', () => {
  it('a model without convolutions', () => {
    const only = encodeModel({ nodes: [node('Gemm', ['x', 'w'], ['y'])], initializers: [floats('w', [2, 2], [1, 2, 3, 4])], inputs: [value('x', 'f32', [1, 2])], outputs: [value('y', 'f32')] });
    expect(() => normalizeWeights(importModel(only).graph, 'scaled')).toThrow(/no weights of convolutions to normalize \(scaled\)/);
    expect(normalizeWeights(importModel(only).graph, 'weight').weights).toEqual([{ name: 'w', gain: 'w.gain' }]);
  });
  it('a gain whose name is taken', () => {
    const taken = encodeModel({
      nodes: [node('Conv', ['x', 'c.weight'], ['a']), node('Add', ['a', 'c.gain'], ['y'])],
      initializers: [floats('c.weight', [2, 1, 1, 1], [1, 2]), floats('c.gain', [2, 1, 1], [1, 2])], inputs: [value('x', 'f32', [1, 1, 2, 2])], outputs: [value('y', 'f32')],
    });
    expect(() => rewriteNorms(importModel(taken), { kind: 'keep', weights: 'scaled' }, testTarget)).toThrow(/needs a parameter "c.gain", but the model has a weight of that name/);
  });
});
