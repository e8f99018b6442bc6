/** What counts as the activation of a normalization, and what does not: affine functions, dropout. */
import { describe, expect, it } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { verify } from '../ir/verify.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms, type RewriteResult } from '../passes/norm/rewrite-norms.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { batchNormModel, c, close, expected, h, n, outputOf, rewrite, x } from './norm-harness.ts';
import { encodeModel, floats, node, value, type TestNode } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

describe('an affine function of the normalised value is no activation', () => {
  it.each<readonly [string, readonly TestNode[], (u: number) => number]>([
    ['a scale', [node('Mul', ['u', 'half'], ['a'])], (u) => u / 2],
    ['a quotient', [node('Div', ['u', 'half'], ['a'])], (u) => u * 2],
    ['a shift', [node('Sub', ['half', 'u'], ['a'])], (u) => 0.5 - u],
    ['its negative', [node('Neg', ['u'], ['a'])], (u) => -u],
    ['its double', [node('Add', ['u', 'u'], ['a'])], (u) => 2 * u],
    ['several of them', [node('Mul', ['u', 'half'], ['s']), node('Add', ['s', 'one'], ['t']), node('Sub', ['t', 'u'], ['a'])], (u) => 1 - u / 2],
  ])('%s', (_, nodes, f) => {
    const result = rewrite(batchNormModel([...nodes, node('Add', ['a', 'x'], ['b']), node('Relu', ['b'], ['y'])]), 'group:2+proxy');
    expect(result.rewritten[0]!.proxy).toEqual([]);
    close(outputOf(result), expected({ groups: 2 }).map((u, i) => Math.max(f(u) + x[i]!, 0)));
  });

  it('but joins one that follows it', () => {
    const result = rewrite(batchNormModel([node('Mul', ['u', 'half'], ['a']), node('Relu', ['a'], ['y'])]), 'group:2+proxy');
    close(outputOf(result), expected({ groups: 2, f: (u) => Math.max(u / 2, 0), proxy: true }));
  });
});

describe('a square is an activation', () => {
  it('of its own', () => close(outputOf(rewrite(batchNormModel([node('Mul', ['u', 'u'], ['y'])]), 'layer+proxy')), expected({ groups: 1, f: (u) => u * u, proxy: true })));
});

/** Training form: batch norm -> the nodes -> y, where drops keep with a probability of 0.75. */
function dropModel(after: readonly TestNode[]): Uint8Array {
  const parameter = (name: string, k: number): ReturnType<typeof floats> => floats(name, [c], spread(c, 0.5, k).map((v) => v + 1));
  return encodeModel({
    nodes: [
      node('BatchNormalization', ['x', 'n.weight', 'n.bias', 'n.mean', 'n.var'], ['u', 'm', 'v'], { training_mode: 1 }, { name: 'bn' }),
      node('Constant', [], ['training'], { value: { tensor: { name: '', dataType: 9, dims: [], rawData: Uint8Array.of(1) } } }), node('Constant', [], ['ratio'], { value_float: { float: 0.25 } }), ...after,
    ],
    initializers: ['n.weight', 'n.bias', 'n.mean', 'n.var'].map(parameter),
    inputs: [value('x', 'f32', ['n', c, h])],
    outputs: [value('y', 'f32')],
  });
}
const drop = (from: string, to: string): TestNode => node('Dropout', [from, 'ratio', 'training'], [to], { seed: 3 });

describe('dropout is no part of an activation: training and inference have the same proxies', () => {
  const rewritten = (after: readonly TestNode[], norm: string, inference: boolean): RewriteResult => {
    const result = rewriteNorms(importModel(dropModel(after), { dims: { n }, inference }), parseNorm(norm), testTarget, { inference });
    verify(result.graph);
    return result;
  };
  const proxies = ({ rewritten: norms }: RewriteResult): number[] => norms.map((r) => r.proxy.length);
  /** Output, and mean and scale of the proxy, from the output of relu without one: the proxy is one affine function a channel. */
  const values = (r: RewriteResult): number[] => numbers(evaluate(r.graph, { x: f32([n, c, h], x) }).outputs.get('y')!);

  it('behind the activation', () => {
    const after = [node('Relu', ['u'], ['r']), drop('r', 'y')];
    const [training, inference] = [false, true].map((mode) => rewritten(after, 'layer+proxy', mode)) as [RewriteResult, RewriteResult];
    expect([proxies(training), proxies(inference)]).toEqual([[2], [2]]);
    const [got, want] = [values(training), values(inference)];
    got.filter((v) => v !== 0).forEach((v) => expect(Math.min(...want.map((w) => Math.abs(v - w / 0.75)))).toBeLessThan(1e-5));
    got.forEach((v, i) => expect(Math.min(Math.abs(v), Math.abs(v - want[i]! / 0.75))).toBeLessThan(1e-5));
    expect(got.filter((v) => v === 0).length).toBeGreaterThan(2);
    expect(got.filter((v) => v !== 0).length).toBeGreaterThan(20);
  });

  it('between norm and activation', () => {
    const after = [drop('u', 'd'), node('Relu', ['d'], ['y'])];
    const [training, inference] = [false, true].map((mode) => rewritten(after, 'layer+proxy', mode)) as [RewriteResult, RewriteResult];
    expect([proxies(training), proxies(inference)]).toEqual([[2], [2]]);
    // Without a proxy the inference form gives max(u, 0); with it (max(u, 0) - m) · s, m and s the same for all of a channel.
    const [plain, proxied] = [values(rewritten(after, 'layer', true)), values(inference)];
    const lines = Array.from({ length: c }, (_, k) => {
      const own = x.flatMap((__, i) => (Math.floor(i / h) % c === k ? [i] : []));
      const [low, high] = [own.reduce((p, q) => (plain[q]! < plain[p]! ? q : p)), own.reduce((p, q) => (plain[q]! > plain[p]! ? q : p))];
      const s = (proxied[high]! - proxied[low]!) / (plain[high]! - plain[low]!);
      return (v: number): number => proxied[low]! + s * (v - plain[low]!);
    });
    const got = values(training);
    let [dropped, spared] = [0, 0];
    got.forEach((v, i) => {
      const line = lines[Math.floor(i / h) % c]!;
      const [gone, there] = [Math.abs(v - line(0)), Math.abs(v - line(plain[i]! / 0.75))];
      expect(Math.min(gone, there)).toBeLessThan(1e-5);
      if (gone > 1e-4) spared++;
      if (there > 1e-4) dropped++;
    });
    expect(dropped).toBeGreaterThan(2);
    expect(spared).toBeGreaterThan(10);
  });

  it('alone is none', () => {
    const after = [drop('u', 'd'), node('Add', ['d', 'x'], ['a']), node('Relu', ['a'], ['y'])];
    expect([false, true].map((mode) => proxies(rewritten(after, 'layer+proxy', mode)))).toEqual([[0], [0]]);
  });
});
