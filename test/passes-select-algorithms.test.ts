import { describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { packedFloats, convGeometry } from '../ir/ops/packing/geometry.ts';
import { evaluateOp } from '../ir/evaluate.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, sizeOf, tensorType, type Tensor } from '../ir/type.ts';
import { selectAlgorithms } from '../passes/select-algorithms.ts';
import { strassenError } from '../passes/strassen-error.ts';
import { winogradError } from '../passes/winograd-error.ts';
import { randomNumbers } from './contract-harness.ts';

const target = (more: Partial<Target> = {}): Target => ({ name: 'test', lanes: 4, panel: 8, packBudget: 4, winograd: true, ...more });

function tensor(shape: readonly number[], seed = 1): Tensor {
  const next = randomNumbers(seed);
  return { dtype: 'f32', shape, data: Float32Array.from({ length: sizeOf(shape) }, next) };
}

/** A graph of one op over an input and a constant weight. */
function graphOf(build: (b: Builder, weight: (shape: readonly number[]) => Value) => Value): Graph {
  const b = new Builder('g');
  const y = build(b, (shape) => b.state(`w${b.ops.length}`, tensorType('f32', shape), tensor(shape)));
  return b.finish([{ name: 'y', value: y }]);
}
const conv = (b: Builder, x: Value, w: Value, stride = 1, groups = 1): Value => {
  const pad = (w.type.shape[2]! - 1) / 2;
  return b.one('conv', [x, w], { strides: [stride, stride], pads: [pad, pad, pad, pad], dilations: [1, 1], groups });
};
const algorithms = (g: Graph): unknown[] => g.ops.filter((op) => op.name === 'convPacked').map((op) => op.attrs['algorithm']);

/** Runs a graph of plain ops on the interpreter, op by op. */
function run(g: Graph, x: Tensor): Tensor {
  const values = new Map<Value, Tensor>(g.state.map((s) => [s.value, s.init as Tensor]));
  values.set(g.inputs[0]!, x);
  for (const op of g.ops) evaluateOp(op, op.operands.map((v) => values.get(v)!)).forEach((t, i) => values.set(op.results[i]!, t));
  return values.get(g.outputs[0]!.value)!;
}

describe('select-algorithms', () => {
  test('takes Winograd where it saves time, by the shape', () => {
    const chosen = (c: number, o: number, size: number, k = 3, stride = 1, groups = 1): unknown =>
      algorithms(selectAlgorithms(graphOf((b, w) => conv(b, b.input(tensorType('f32', [1, c, size, size])), w([o, c / groups, k, k]), stride, groups)), target({ packBudget: 8 })))[0];
    expect(chosen(64, 64, 56)).toBe('winograd4');
    expect(chosen(3, 64, 56)).toBe('direct');
    expect(chosen(64, 64, 56, 3, 2)).toBe('direct');
    expect(chosen(64, 64, 56, 5)).toBe('direct');
    expect(chosen(64, 64, 56, 3, 1, 2)).toBe('direct');
    expect(chosen(64, 64, 56, 3, 1, 64)).toBe('depthwise');
    expect(chosen(256, 256, 3)).toBe('direct');
  });

  test('no more packed bytes than the budget allows; without Winograd none', () => {
    const g = graphOf((b, w) => {
      let v = b.input(tensorType('f32', [1, 64, 28, 28]));
      for (let i = 0; i < 4; i++) v = conv(b, v, w([64, 64, 3, 3]));
      return v;
    });
    const weights = g.state.reduce((n, s) => n + bytesOf(s.value.type), 0);
    for (const packBudget of [1, 1.5, 2, 2.8, 4]) {
      const chosen = algorithms(selectAlgorithms(g, target({ packBudget }))) as string[];
      const bytes = chosen.reduce((n, a) => n + 4 * packedFloats(convGeometry(a, [64, 64, 3, 3], 1)), 0);
      expect(bytes).toBeLessThanOrEqual(packBudget * weights);
      if (packBudget >= 2) expect(chosen.some((a) => a.startsWith('winograd'))).toBe(true);
    }
    expect(algorithms(selectAlgorithms(g, target({ winograd: false })))).toEqual(['direct', 'direct', 'direct', 'direct']);
  });

  test('computes what the graph computed before', () => {
    const x = tensor([2, 8, 9, 10], 7);
    const g = graphOf((b, w) => {
      const v = conv(b, conv(b, conv(b, b.input(tensorType('f32', [2, 8, 9, 10])), w([8, 1, 3, 3]), 1, 8), w([16, 8, 3, 3])), w([12, 8, 1, 1]), 2, 2);
      return b.contract('nchw,wk->nchk', v, w([5, 7]));
    });
    const packed = selectAlgorithms(g, target());
    expect(packed.ops.map((op) => op.name).sort()).toEqual(['contractPacked', 'convPacked', 'convPacked', 'convPacked', 'packConv', 'packConv', 'packConv', 'packMatmul']);
    const [want, got] = [run(g, x), run(packed, x)];
    const scale = Math.max(...(want.data as Float32Array).map(Math.abs));
    (got.data as Float32Array).forEach((v, i) => expect(Math.abs(v - Number(want.data[i]))).toBeLessThan(1e-5 * scale));
  });

  test('a constant left operand changes sides; what does not fit stays', () => {
    const names = (build: Parameters<typeof graphOf>[0]): string[] => selectAlgorithms(graphOf(build), target()).ops.map((op) => op.name);
    expect(names((b, w) => b.contract('kn,mk->mn', w([4, 5]), b.input(tensorType('f32', [3, 4]))))).toEqual(['packMatmul', 'contractPacked']);
    expect(names((b, w) => b.contract('km,kn->mn', b.input(tensorType('f32', [3, 4])), w([3, 5])))).toEqual(['contract']);
    expect(names((b) => { const x = b.input(tensorType('f32', [3, 3])); return b.contract('mk,kn->mn', x, x); })).toEqual(['contract']);
  });

  test('a weight that the graph updates is not packed', () => {
    const b = new Builder('g');
    const w = b.state('w', tensorType('f32', [4, 5]), tensor([4, 5]));
    const y = b.contract('mk,kn->mn', b.input(tensorType('f32', [3, 4])), w);
    b.update(w, b.mul(w, 0.5));
    const ops = selectAlgorithms(b.finish([{ name: 'y', value: y }]), target()).ops.map((op) => op.name);
    expect(ops).not.toContain('packMatmul');
  });
});

describe("products by Strassen's algorithm", () => {
  const product = (m: number, n: number, k: number, scale: (i: number) => number = () => 1, samples = 1): Graph => {
    const b = new Builder('g');
    const w = tensor([k, n]);
    const weight = b.state('w', tensorType('f32', w.shape), { ...w, data: (w.data as Float32Array).map((v, i) => v * scale(i)) });
    return b.finish([{ name: 'y', value: b.contract('smk,kn->smn', b.input(tensorType('f32', [samples, m, k])), weight) }]);
  };
  const chosen = (g: Graph, to = target()): unknown => selectAlgorithms(g, to).ops.find((op) => op.name === 'contractPacked')?.attrs['algorithm'];

  test('are taken where that saves time, by the sizes', () => {
    expect(chosen(product(197, 768, 768))).toBe('strassen');
    expect(chosen(product(784, 768, 192))).toBe('strassen');
    expect(chosen(product(8, 768, 768))).toBe('direct');
    expect(chosen(product(784, 192, 768))).toBe('direct');
    expect(chosen(product(3136, 384, 96))).toBe('strassen');
    expect(chosen(product(3136, 96, 384))).toBe('direct');
    expect(chosen(product(49, 3072, 768))).toBe('direct');
    expect(chosen(product(197, 1000, 768))).toBe('direct');
    expect(chosen(product(197, 768, 764))).toBe('direct');
    expect(chosen(product(197, 768, 768), target({ winograd: false }))).toBe('direct');
  });

  test('are not taken where rounding errors would be large for the weights', () => {
    expect(chosen(product(197, 768, 768, () => 3e38))).toBe('direct');
    expect(chosen(product(197, 768, 768, (i) => (i % 768 < 384 ? 1e5 : 1)))).toBe('direct');
    expect(chosen(product(197, 768, 768, (i) => (i % 768 < 384 ? 4 : 1)))).toBe('strassen');
  });

  test('do not add rows of one sample to rows of another', () => {
    expect(chosen(product(197, 768, 768, () => 1, 2))).toBe('direct');
    const b = new Builder('g');
    const [x, table] = [b.input(tensorType('f32', [2, 768])), b.state('table', tensorType('f32', [197, 768]), tensor([197, 768]))];
    const positions = b.contract('mk,kn->mn', table, b.state('w', tensorType('f32', [768, 768]), tensor([768, 768])));
    expect(chosen(b.finish([{ name: 'y', value: b.add(b.broadcast(b.reshape(x, [2, 1, 768]), [2, 197, 768]), positions) }]))).toBe('strassen');
  });

  test('share the sums of rows that several of them read', () => {
    const b = new Builder('g');
    const x = b.input(tensorType('f32', [1, 197, 768]));
    const [q, k] = ['q', 'k'].map((name, i) => b.contract('smk,kn->smn', x, b.state(name, tensorType('f32', [768, 768]), tensor([768, 768], i + 1)))) as [Value, Value];
    const names = selectAlgorithms(b.finish([{ name: 'y', value: b.add(q, k) }]), target()).ops.map((op) => op.name);
    expect(names.filter((name) => name === 'strassenSums')).toHaveLength(1);
    expect(names.filter((name) => name === 'contractPacked')).toHaveLength(2);
  });

  test('are never part of a step that updates state', () => {
    const b = new Builder('g');
    const [frozen, w] = [b.state('frozen', tensorType('f32', [768, 768]), tensor([768, 768])), b.state('w', tensorType('f32', [768]), tensor([768]))];
    const y = b.mul(b.contract('smk,kn->smn', b.input(tensorType('f32', [1, 197, 768])), frozen), w);
    b.update(w, b.mul(w, 0.5));
    expect(chosen(b.finish([{ name: 'y', value: y }]))).toBe('direct');
  });

  test('the error grows where the columns of one half are far larger than those of the other', () => {
    const w = tensor([256, 64]);
    const scaled: Tensor = { ...w, data: (w.data as Float32Array).map((v, i) => (i % 64 < 32 ? 1e4 * v : v)) };
    const [even, uneven] = [strassenError(w, 'mk,kn->mn'), strassenError(scaled, 'mk,kn->mn')];
    expect(even).toBeGreaterThan(0);
    expect(even).toBeLessThan(2e-5);
    expect(uneven).toBeGreaterThan(10 * even);
  });
});

describe('the error of Winograd', () => {
  test('is small for ordinary weights, and grows with the tile', () => {
    const w = tensor([64, 64, 3, 3]);
    const [small, large] = [winogradError(w, 2), winogradError(w, 4)];
    expect(small).toBeLessThan(large);
    expect(large).toBeLessThan(1e-4);
  });
  test('keeps convolutions direct whose transformed weights would overflow', () => {
    const huge = tensor([64, 64, 3, 3]);
    const scaled: Tensor = { ...huge, data: (huge.data as Float32Array).map((v) => v * 3e38) };
    expect(winogradError(scaled, 4)).toBeNaN();
    const b = new Builder('g');
    const y = conv(b, b.input(tensorType('f32', [1, 64, 56, 56])), b.state('w', tensorType('f32', huge.shape), scaled));
    expect(algorithms(selectAlgorithms(b.finish([{ name: 'y', value: y }]), target({ packBudget: 8 })))).toEqual(['direct']);
  });
});
