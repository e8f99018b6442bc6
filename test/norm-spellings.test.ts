/** Batch normalizations that are spelled out in single ops, in many orders, against plain loops; and what is none. */
import { describe, expect, it } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { findNorms } from '../passes/norm/find-norms.ts';
import { beta, c, close, expected, gamma, h, mean, n, outputOf, rewrite, variance } from './norm-harness.ts';
import { encodeModel, floats, int64s, node, value, type TestNode } from './onnx-encode.ts';

const relu = (u: number): number => Math.max(u, 0);
/** `Sub x m d`: the op, its inputs, its output. */
const spell = (text: string): TestNode[] => text.split(';').map((part) => {
  const [op = '', ...names] = part.trim().split(' ');
  const axes = op === 'ReduceMean' || op === 'ReduceSum' ? [...names.slice(0, -1), 'axes'] : names.slice(0, -1);
  return node(op, axes, [names.at(-1)!]);
});

/** x -> the nodes -> u -> Relu -> y. The parameters are [c, 1]; `e` is an epsilon: an initializer, or a Constant node. */
function model(nodes: readonly TestNode[], constant = false): Uint8Array {
  return encodeModel({
    nodes: [...(constant ? [node('Constant', [], ['e'], { value_float: { float: 1e-5 } })] : []), ...nodes, node('Relu', ['u'], ['y'])],
    initializers: [
      floats('g', [c, 1], gamma), floats('b', [c, 1], beta), floats('m', [c, 1], mean), floats('v', [c, 1], variance), ...(constant ? [] : [floats('e', [], [1e-5])]),
      floats('half', [], [0.5]), floats('two', [], [2]), floats('count', [], [n * h]), floats('less', [], [n * h - 1]), int64s('axes', [2], [0, 2]),
    ],
    inputs: [value('x', 'f32', ['n', c, h])],
    outputs: [value('y', 'f32')],
  });
}

/** Ways to write the same, from a mean `m` and a variance `v`: [spelling, with scale, sign of the shift]. */
const affine: Readonly<Record<string, readonly [nodes: string, scale: boolean, shift: -1 | 0 | 1]>> = {
  '(x - m) / √(v + e) · g + b': ['Sub x m d; Add v e w; Sqrt w s; Div d s q; Mul q g k; Add k b u', true, 1],
  'g · (x - m) / √(v + e) + b': ['Sub x m d; Mul g d k; Add v e w; Sqrt w s; Div k s q; Add q b u', true, 1],
  'b + g · ((x - m) / (e + v)^0.5)': ['Sub x m d; Add e v w; Pow w half s; Div d s q; Mul g q k; Add b k u', true, 1],
  '(x - m) · 1/√(v + e) · g + b': ['Sub x m d; Add v e w; Sqrt w s; Reciprocal s r; Mul d r q; Mul q g k; Add k b u', true, 1],
  'x · i + (b - m · i)': ['Add v e w; Sqrt w s; Div g s i; Mul x i k; Mul m i o; Sub b o p; Add k p u', true, 1],
  'x · i + b - m · i': ['Add v e w; Sqrt w s; Div g s i; Mul x i k; Add k b p; Mul m i o; Sub p o u', true, 1],
  'x · i - (m · i - b)': ['Add v e w; Sqrt w s; Reciprocal s r; Mul r g i; Mul x i k; Mul i m o; Sub o b p; Sub k p u', true, 1],
  'g · (x - m) / √(v + e) - b': ['Sub x m d; Mul d g k; Add v e w; Sqrt w s; Div k s q; Sub q b u', true, -1],
  'g · ((x - m) / √(v + e))': ['Sub x m d; Add v e w; Sqrt w s; Div d s q; Mul g q u', true, 0],
  '(x - m) / √(v + e) + b': ['Sub x m d; Add v e w; Sqrt w s; Div d s q; Add b q u', false, 1],
  '(x - m) / √(v + e)': ['Sub x m d; Add v e w; Sqrt w s; Div d s u', false, 0],
};
/** Ways to compute mean and variance of the batch. */
const moments: Readonly<Record<string, string>> = {
  'the mean of squared distances': 'ReduceMean x m; Sub x m dx; Mul dx dx sq; ReduceMean sq v',
  'the mean of distances to the power 2': 'ReduceMean x m; Sub m x dx; Pow dx two sq; ReduceMean sq v',
  'with a mean of its own': 'ReduceMean x m; ReduceMean x m2; Sub x m2 dx; Mul dx dx sq; ReduceMean sq v',
  'squares less the square of the mean': 'ReduceMean x m; Mul x x sq; ReduceMean sq q2; Mul m m mm; Sub q2 mm v',
};
const wanted = (scale: boolean, shift: number, proxy: boolean): number[] =>
  expected({ groups: 2, f: relu, proxy, gamma: scale ? gamma : [1, 1, 1, 1], beta: beta.map((b) => b * shift) });

describe.each(Object.entries(affine))('%s', (_, [nodes, scale, shift]) => {
  const check = (bytes: Uint8Array, from: string): void => {
    const grouped = rewrite(bytes, 'group:2');
    expect(grouped.rewritten.map((r) => [r.from, r.channels])).toEqual([[from, c]]);
    expect(grouped.left).toEqual([]);
    close(outputOf(grouped), wanted(scale, shift, false));
    const proxied = rewrite(bytes, 'group:2+proxy');
    expect(proxied.rewritten[0]!.proxy).toHaveLength(2);
    close(outputOf(proxied), wanted(scale, shift, true));
  };
  it.each([['an initializer', false], ['a Constant', true]] as const)('in inference form, its epsilon %s', (__, constant) => {
    const bytes = model(spell(nodes), constant);
    check(bytes, 'inference');
    const frozen = rewrite(bytes, 'frozen');
    expect(frozen.rewritten).toEqual([]);
    expect(frozen.statistics.map((s) => s.state.name)).toEqual(['m', 'v']);
  });
  it.each(Object.entries(moments))('by statistics of the batch: %s', (__, stats) => {
    check(ofBatch(stats, nodes), 'training');
  });
});

/** The statistics replace the parameters m and v. */
function ofBatch(stats: string, nodes: string): Uint8Array {
  const named = (text: string): string => text.replace(/\b([mv])\b/g, 'batch_$1');
  return model(spell(`${named(stats)}; ${named(nodes)}`));
}

describe('what is no batch normalization stays, and is named', () => {
  const stats = 'ReduceMean x bm; Sub x bm dx; Mul dx dx sq; ReduceMean sq bv';
  it.each<readonly [string, string, string, RegExp]>([
    ['the epsilon beside the root', 'Sub x m d; Sqrt v s; Add s e w; Div d w q; Mul q g k; Add k b u', 'Div(q)', /added to the deviation/],
    ['a variance with a bound', 'Sub x m d; Max v e w; Sqrt w s; Div d s q; Mul q g k; Add k b u', 'Div(q)', /bounded from below/],
    ['the same of the batch', `${stats}; Sqrt bv s; Add s e w; Div dx w q; Mul q g k; Add k b u`, 'Div(q)', /added to the deviation/],
    ['a bounded variance of the batch', `${stats}; Max bv e w; Sqrt w s; Div dx s q; Mul q g k; Add k b u`, 'Div(q)', /bounded from below/],
    ['a corrected variance', `${stats}; Mul bv count t; Div t less cv; Add cv e w; Sqrt w s; Div dx s q; Mul q g k; Add k b u`, 'Div(q)', /without correction for their number/],
    ['a variance that is a sum over one less', 'ReduceMean x bm; Sub x bm dx; Mul dx dx sq; ReduceSum sq sum; Div sum less bv; Add bv e w; Sqrt w s; Div dx s q; Mul q g k; Add k b u', 'Div(q)', /without correction for their number/],
    ['a mean that is added', 'Add x m d; Add v e w; Sqrt w s; Div d s q; Mul q g k; Add k b u', 'Div(q)', /is not \(x - mean\)/],
    ['no mean', 'Add v e w; Sqrt w s; Div x s q; Mul q g k; Add k b u', 'Div(q)', /is not \(x - mean\)/],
  ])('%s', (_, nodes, left, reason) => {
    const bytes = model(spell(nodes));
    expect(findNorms(importModel(bytes, { dims: { n } }).graph)).toEqual([]);
    expect(() => rewrite(bytes, 'layer')).toThrow(reason);
    const both = rewrite(withBatchNorm(spell(nodes)), 'layer');
    expect(both.rewritten.map((r) => r.node)).toEqual(['BatchNormalization(bn)']);
    expect(both.left).toEqual([{ node: left, reason: expect.stringMatching(reason) as string }]);
  });

  it('the scale of a layer behind a normalization is none of its own', () => {
    const bytes = model(spell('Sub x m d; Add v e w; Sqrt w s; Div d s q; Mul q g k; Add k b t; Mul t half u'));
    const [norm] = findNorms(importModel(bytes, { dims: { n } }).graph);
    expect(norm?.last.source).toEqual(['Add(t)']);
    close(outputOf(rewrite(bytes, 'group:2')), expected({ groups: 2, f: (u) => relu(u / 2) }));
  });

  it('the same parameters along another axis are none', () => {
    // x is [n, 4, 4]: parameters of 4 elements without an axis behind them belong to the last one.
    const bytes = encodeModel({
      nodes: [...spell('Sub x m d; Add v e w; Sqrt w s; Div d s q; Mul q g k; Add k b y')],
      initializers: [floats('g', [c], gamma), floats('b', [c], beta), floats('m', [c], mean), floats('v', [c], variance), floats('e', [], [1e-5])],
      inputs: [value('x', 'f32', ['n', c, c])], outputs: [value('y', 'f32')],
    });
    expect(findNorms(importModel(bytes, { dims: { n } }).graph)).toEqual([]);
  });
});

/** The nodes behind a batch normalization of the input. */
function withBatchNorm(nodes: readonly TestNode[]): Uint8Array {
  const parameter = (name: string): ReturnType<typeof floats> => floats(name, [c], gamma.map(Math.abs));
  return encodeModel({
    nodes: [node('BatchNormalization', ['z', 'n.g', 'n.b', 'n.m', 'n.v'], ['x'], {}, { name: 'bn' }), ...nodes, node('Relu', ['u'], ['y'])],
    initializers: [
      ...['n.g', 'n.b', 'n.m', 'n.v'].map(parameter), floats('g', [c, 1], gamma), floats('b', [c, 1], beta), floats('m', [c, 1], mean), floats('v', [c, 1], variance), floats('e', [], [1e-5]),
      floats('count', [], [n * h]), floats('less', [], [n * h - 1]), int64s('axes', [2], [0, 2]),
    ],
    inputs: [value('z', 'f32', ['n', c, h])],
    outputs: [value('y', 'f32')],
  });
}
