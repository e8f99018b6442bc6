/** A model that has a form already stays as it is: in memory, and read back from the ONNX file that it was written to. */
import { describe, expect, it } from 'vitest';
import { rewrittenOnnx } from '../cli/driver/export.ts';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { findNorms } from '../passes/norm/find-norms.ts';
import { weightNorms } from '../passes/norm/normalize-weights.ts';
import { parseNorm, type NormSpec } from '../passes/norm/options.ts';
import { rewriteNorms, type RewriteResult } from '../passes/norm/rewrite-norms.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

const [n, c, size] = [4, 4, 5];
/** Two normalizations, one with an activation behind it, in training form; a linear layer. */
const model = encodeModel({
  nodes: [
    node('Conv', ['x', 'c1.weight'], ['a']), node('BatchNormalization', ['a', 'n1.weight', 'n1.bias', 'n1.mean', 'n1.var'], ['b', 'bm', 'bv'], { training_mode: 1 }, { name: 'n1' }), node('Relu', ['b'], ['r']),
    node('Conv', ['r', 'c2.weight'], ['d']), node('BatchNormalization', ['d', 'n2.weight', 'n2.bias', 'n2.mean', 'n2.var'], ['e', 'em', 'ev'], { training_mode: 1 }, { name: 'n2' }),
    node('GlobalAveragePool', ['e'], ['g']), node('Flatten', ['g'], ['h']), node('Gemm', ['h', 'l.weight'], ['y'], { transB: 1 }),
  ],
  initializers: [
    floats('c1.weight', [c, 2, 1, 1], spread(c * 2)), floats('c2.weight', [c, c, 3, 3], spread(c * c * 9, 1, 5)), floats('l.weight', [3, c], spread(3 * c)),
    ...['n1', 'n2'].flatMap((k) => [floats(`${k}.weight`, [c], [1, 0.5, 2, -1]), floats(`${k}.bias`, [c], spread(c, 0.5)), floats(`${k}.mean`, [c], spread(c, 0.2)), floats(`${k}.var`, [c], [1, 2, 0.5, 1])]),
  ],
  inputs: [value('x', 'f32', ['n', 2, size, size])],
  outputs: [value('y', 'f32')],
});
const x = f32([n, 2, size, size], spread(n * 2 * size * size, 2, 3));
const again = (bytes: Uint8Array, spec: NormSpec, inference = false): RewriteResult => rewriteNorms(importModel(bytes, { dims: { n }, inference }), spec, testTarget, { inference });
const outputOf = ({ graph }: Pick<RewriteResult, 'graph'>): number[] => numbers(evaluate(graph, { x, ...(graph.inputs.length > 1 && { domain: { dtype: 'i64', shape: [n], data: new BigInt64Array(n) } }) }).outputs.get('y')!);

const kinds = ['group:2', 'layer', 'instance', 'batch', 'frozen', 'none', 'renorm', 'ghost:2', 'domains:2'];
describe.each(kinds.flatMap((kind) => [kind, `${kind}+proxy`]))('%s', (norm) => {
  const spec = parseNorm(norm);
  it('once more gives the same file', () => {
    const once = rewrittenOnnx(model, spec);
    expect(Buffer.from(rewrittenOnnx(once, spec)).equals(rewrittenOnnx(once, undefined))).toBe(true);
  });
  it('once more adds nothing', () => {
    const once = rewrittenOnnx(model, spec);
    const [plain, twice] = [importModel(once, { dims: { n } }), again(once, spec, true)];
    expect(twice.rewritten).toEqual([]);
    expect(twice.left).toEqual([]);
    expect(twice.graph.state.map((s) => s.name)).toEqual(plain.graph.state.map((s) => s.name));
    const want = outputOf(plain);
    outputOf(twice).forEach((v, i) => expect(v).toBeCloseTo(want[i]!, 5));
  });
});

it('a norm that keeps its proxy gets no second one in training', () => {
  const once = rewrittenOnnx(model, parseNorm('renorm+proxy'));
  const training = again(once, parseNorm('renorm+proxy'));
  expect(training.rewritten.map((r) => r.proxy)).toEqual([['n1.proxy_gamma', 'n1.proxy_beta'], []]);
  const want = outputOf(again(model, parseNorm('renorm+proxy')));
  outputOf(training).forEach((v, i) => expect(v).toBeCloseTo(want[i]!, 4));
});

describe('a file with frozen statistics', () => {
  const frozen = rewrittenOnnx(model, parseNorm('frozen'));
  it('has its normalizations still: their epsilon is an initializer', () => {
    expect(findNorms(importModel(frozen, { dims: { n } }).graph).map((k) => [k.form, k.epsilon.toPrecision(6), k.running?.mean.name])).toEqual([['inference', '0.0000100000', 'n1.mean'], ['inference', '0.0000100000', 'n2.mean']]);
  });
  it.each(['group:2', 'layer+proxy', 'renorm', 'none'])('becomes %s as the model does', (norm) => {
    const want = outputOf(again(model, parseNorm(norm)));
    outputOf(again(frozen, parseNorm(norm))).forEach((v, i) => expect(v).toBeCloseTo(want[i]!, 4));
  });
  it('keeps its statistics out of training', () => expect(again(frozen, parseNorm('frozen')).statistics.map((s) => [s.state.name, s.next])).toEqual(['n1.mean', 'n1.var', 'n2.mean', 'n2.var'].map((name) => [name, undefined])));
});

describe.each(weightNorms)('%s weights', (weights) => {
  const spec: NormSpec = { kind: 'keep', weights };
  it('are normalized once, in memory and in a file', () => {
    const once = rewriteNorms(importModel(model, { dims: { n } }), spec, testTarget);
    expect(once.weights.map((w) => w.name)).toEqual(weights === 'weight' || weights === 'cosine' ? ['c1.weight', 'c2.weight', 'l.weight'] : ['c1.weight', 'c2.weight']);
    const twice = rewriteNorms(once, spec, testTarget);
    expect(twice.graph).toBe(once.graph);
    expect(twice.weights).toEqual([]);
    const file = rewrittenOnnx(model, spec);
    expect(again(file, spec).weights).toEqual([]);
    expect(Buffer.from(rewrittenOnnx(file, spec)).equals(rewrittenOnnx(file, undefined))).toBe(true);
  });
});

it('a gain that a model has of its own is no weight to normalize', () => {
  const scaled = encodeModel({
    nodes: [node('Mul', ['w', 'gain'], ['v']), node('Conv', ['x', 'v'], ['y'])],
    initializers: [floats('w', [2, 1, 1, 2], [1, 3, 2, -2]), floats('gain', [2, 1, 1, 1], [2, 3])],
    inputs: [value('x', 'f32', [1, 1, 1, 2])], outputs: [value('y', 'f32')],
  });
  const { graph, weights } = rewriteNorms(importModel(scaled), { kind: 'keep', weights: 'weight' }, testTarget);
  expect(weights.map((w) => w.name)).toEqual(['w']);
  numbers(evaluate(graph, { x: f32([1, 1, 1, 2], [1, 2]) }).outputs.get('y')!).forEach((v, i) => expect(v).toBeCloseTo([2 * 7, 3 * -2][i]!, 5));
});

describe('refuses an epsilon', () => {
  it.each([0, -1, NaN, Infinity])('of %d', (epsilon) => {
    const imported = importModel(model, { dims: { n } });
    expect(() => rewriteNorms(imported, { kind: 'layer', epsilon }, testTarget)).toThrow(/the epsilon of a normalization is .*has to be above 0/);
    expect(() => rewriteNorms(imported, { kind: 'layer', proxy: { epsilon } }, testTarget)).toThrow(/the epsilon of the proxy of a normalization is/);
  });
});
