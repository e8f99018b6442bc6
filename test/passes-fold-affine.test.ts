/** Factors and shifts before convolutions and linear layers, as Proxy Norm leaves them: the same numbers with fewer ops, on random graphs. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { sizeOf } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { foldAffine } from '../passes/fold-affine.ts';
import { foldConstants } from '../passes/fold-constants.ts';
import { testTarget } from './ir/target.ts';
import { numbers, spread, tensor } from './train-harness.ts';

interface Case {
  readonly split: boolean;
  readonly residual: boolean;
  readonly groups: 1 | 2;
  readonly kernel: 1 | 3;
  readonly pad: 0 | 1;
  readonly stride: 1 | 2;
  readonly head: boolean;
  readonly shared: boolean;
  readonly seed: number;
}

const [n, c, h] = [2, 4, 5];

/** (relu(x) - m) * s in groups or not, perhaps with a residual added and read twice, then a convolution or a pooled linear layer. */
function build({ split, residual, groups, kernel, pad, stride, head, shared, seed }: Case): Graph {
  const b = new Builder('g');
  const x = b.input({ dtype: 'f64', shape: [n, c, h, h] }, 'x');
  const weight = (name: string, shape: readonly number[], at: number): Value => b.state(name, { dtype: 'f64', shape: [...shape] }, tensor(shape, spread(sizeOf(shape), 1, seed + at)));
  const grouped = split ? b.reshape(x, [n, 2, c / 2, h, h]) : x;
  const row = (v: Value): Value => b.reshape(v, split ? [1, 2, c / 2, 1, 1] : [1, c, 1, 1]);
  const proxied = b.mul(b.sub(b.unary('relu', grouped), row(weight('mean', [c], 1))), row(weight('scale', [c], 2)));
  const flat = b.reshape(proxied, [n, c, h, h]);
  const joined = residual ? b.add(flat, b.input({ dtype: 'f64', shape: [n, c, h, h] }, 'r')) : flat;
  const outputs = shared ? [{ name: 'flat', value: flat }] : [];
  if (head) {
    const mean = b.div(b.reduce('reduceSum', joined, [2, 3], true), h * h);
    const y = b.add(b.contract('mk,nk->mn', b.reshape(mean, [n, c]), weight('fc', [3, c], 3)), weight('bias', [3], 4));
    return b.finish([{ name: 'y', value: y }, ...outputs]);
  }
  const y = b.one('conv', [joined, weight('w', [6, c / groups, kernel, kernel], 3)], { strides: [stride, stride], pads: [pad, pad, pad, pad], dilations: [1, 1], groups });
  return b.finish([{ name: 'y', value: y }, ...outputs]);
}

const fold = (graph: Graph): Graph => {
  const folded = foldConstants(foldAffine(graph, testTarget), testTarget);
  verify(folded);
  return folded;
};

function expectSame(graph: Graph, folded: Graph): void {
  const inputs = Object.fromEntries(graph.inputs.map((v, i) => [v.name!, tensor(v.type.shape, spread(sizeOf(v.type.shape), 2, 5 + i))]));
  const [want, got] = [evaluate(graph, inputs).outputs, evaluate(folded, inputs).outputs];
  for (const [name, t] of want) numbers(t).forEach((v, i) => expect(numbers(got.get(name)!)[i]).toBeCloseTo(v, 10));
}

/** Elementwise ops on something as large as the input. */
const passes = (g: Graph): string[] => g.ops.filter((op) => ['add', 'sub', 'mul', 'div'].includes(op.name) && sizeOf(op.results[0]!.type.shape) === n * c * h * h).map((op) => op.name);

const usual: Case = { split: true, residual: false, groups: 1, kernel: 1, pad: 0, stride: 1, head: false, shared: false, seed: 1 };

describe('a factor and a shift', () => {
  it('keep every number, on random graphs', () => {
    const cases = fc.record({
      split: fc.boolean(), residual: fc.boolean(), groups: fc.constantFrom(1 as const, 2 as const), kernel: fc.constantFrom(1 as const, 3 as const), pad: fc.constantFrom(0 as const, 1 as const),
      stride: fc.constantFrom(1 as const, 2 as const), head: fc.boolean(), shared: fc.boolean(), seed: fc.integer({ min: 0, max: 1000 }),
    });
    fc.assert(fc.property(cases, (one) => {
      const graph = build(one);
      expectSame(graph, fold(graph));
    }), { numRuns: 60, seed: 7 });
  });

  it.each([
    ['both fold into an unpadded convolution, past the groups of a norm', usual, []],
    ['both fold where there are no groups', { ...usual, split: false, kernel: 3 }, []],
    ['both fold into a convolution of groups', { ...usual, groups: 2, kernel: 3 }, []],
    ['the factor folds into a padded convolution, whose border the shift would change', { ...usual, kernel: 3, pad: 1 }, ['sub']],
    ['both fold into a linear layer past the mean over positions', { ...usual, head: true }, []],
    // The factor of one branch is none of the sum; nor is the shift behind it.
    ['before an addition both stay', { ...usual, residual: true }, ['sub', 'mul', 'add']],
    ['what something else reads stays as it is', { ...usual, shared: true }, ['sub', 'mul']],
  ] satisfies [string, Case, string[]][])('%s', (_, one, left) => {
    const graph = build(one);
    expect(passes(graph)).toEqual(one.residual ? ['sub', 'mul', 'add'] : ['sub', 'mul']);
    expect(passes(fold(graph))).toEqual(left);
  });

  it.each([
    ['scale into two convolutions, shift kept where one is padded', [0, 1], false, ['relu', 'sub'], 'sub'],
    ['scale and shift into two convolutions without padding', [0, 0], false, ['relu'], 'relu'],
    ['nothing where an output reads the value as well', [0, 1], true, ['mul', 'relu', 'sub'], 'mul'],
  ] as const)('of a value that several convolutions read: %s', (_, pads, held, left, read) => {
    const b = new Builder('g');
    const weight = (name: string, shape: readonly number[], at: number): Value => b.state(name, { dtype: 'f64', shape: [...shape] }, tensor(shape, spread(sizeOf(shape), 1, at)));
    const x = b.unary('relu', b.input({ dtype: 'f64', shape: [n, c, h, h] }, 'x'));
    const proxied = b.mul(b.sub(x, weight('mean', [1, c, 1, 1], 1)), weight('scale', [1, c, 1, 1], 2));
    const convs = pads.map((pad, i) => ({ name: `y${i}`, value: b.one('conv', [proxied, weight(`w${i}`, [6, c, 3, 3], 3 + i)], { strides: [1, 1], pads: [pad, pad, pad, pad], dilations: [1, 1], groups: 1 }) }));
    const graph = b.finish([...convs, ...(held ? [{ name: 'value', value: proxied }] : [])]);
    const folded = fold(graph);
    expectSame(graph, folded);
    const nameOf = (op: { readonly name: string } | undefined): string | undefined => (op?.name === 'add' ? 'sub' : op?.name);
    const ofInput = folded.ops.filter((op) => ['relu', 'sub', 'mul', 'add'].includes(op.name) && op.results[0]!.type.shape[1] === c);
    expect(ofInput.map(nameOf).sort()).toEqual(left);
    const large = folded.ops.filter((op) => op.name === 'conv').map((op) => op.operands[0]!).filter((v) => v.type.shape[2] === h);
    expect(large.map((v) => nameOf(folded.ops.find((op) => op.results.includes(v))))).toEqual(pads.map(() => read));
  });
  it('the shift of one branch folds past an addition', () => {
    const b = new Builder('g');
    const [x, r] = [b.input({ dtype: 'f64', shape: [n, c, h, h] }, 'x'), b.input({ dtype: 'f64', shape: [n, c, h, h] }, 'r')];
    const shift = b.state('shift', { dtype: 'f64', shape: [1, c, 1, 1] }, tensor([1, c, 1, 1], spread(c)));
    const w = b.state('w', { dtype: 'f64', shape: [3, c, 1, 1] }, tensor([3, c, 1, 1], spread(3 * c)));
    const graph = b.finish([{ name: 'y', value: b.one('conv', [b.add(r, b.sub(b.unary('tanh', x), shift)), w], { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], groups: 1 }) }]);
    const folded = fold(graph);
    expectSame(graph, folded);
    expect(passes(folded)).toEqual(['add']);
  });
});
