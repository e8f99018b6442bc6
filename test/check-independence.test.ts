/** The proof of batch independence: what it must prove, and what it must refuse by name. */
import { describe, expect, it } from 'vitest';
import { importModel, type ImportedModel } from '../frontend/index.ts';
import { proveBatchIndependence, proofBatches } from '../passes/batch-independence.ts';
import { encodeModel, floats, int64s, node, value, type TestModel, type TestNode } from './onnx-encode.ts';
import { testTarget } from './ir/target.ts';

type Initializers = TestModel['initializers'];

/** A model from x to y, the last node's output, whose first axis counts samples. */
const model = (shape: readonly number[], nodes: readonly TestNode[], initializers: Initializers = [], batch: number | string = 'n'): Uint8Array =>
  encodeModel({ nodes, initializers: initializers, inputs: [value('x', 'f32', [batch, ...shape])], outputs: [value(nodes.at(-1)!.outputs[0]!, 'f32')] });

/** `proved`, or the node that mixes and why. */
function verdict(bytes: Uint8Array): string {
  const at = (n: number): ImportedModel => importModel(bytes, { dims: { n } });
  const [a, b] = [at(proofBatches[0]), at(proofBatches[1])];
  const found = proveBatchIndependence(a.graph, testTarget, b.graph, [a, b]);
  return found.proved ? 'proved' : `${found.op.source.join()}: ${found.reason}`;
}

const ints = (name: string, xs: readonly number[]): NonNullable<Initializers>[number] => int64s(name, [xs.length], xs);
const named = (op: string, inputs: readonly string[], outputs: readonly string[], attributes: TestNode['attributes'] = {}): TestNode => node(op, inputs, outputs, attributes, { name: 'here' });

describe('proves', () => {
  it('[N,T,C] to [T,N,C]', () => expect(verdict(model([5, 3], [node('Transpose', ['x'], ['y'], { perm: [1, 0, 2] })]))).toBe('proved'));

  it('merging and splitting (n t)', () =>
    expect(verdict(model([5, 3], [node('Reshape', ['x', 'flat'], ['a']), node('MatMul', ['a', 'w'], ['b']), node('Reshape', ['b', 'back'], ['y'])], [ints('flat', [-1, 3]), floats('w', [3, 2], [1, 2, 3, 4, 5, 6]), ints('back', [-1, 5, 2])]))).toBe('proved'));

  it('attention over t', () =>
    expect(verdict(model([5, 4], [
      node('Transpose', ['x'], ['k'], { perm: [0, 2, 1] }), node('MatMul', ['x', 'k'], ['s']), node('Softmax', ['s'], ['p'], { axis: -1 }), node('MatMul', ['p', 'x'], ['y']),
    ]))).toBe('proved'));

  it('attention over t with the samples second', () =>
    expect(verdict(model([5, 4], [
      node('Transpose', ['x'], ['t'], { perm: [1, 0, 2] }), node('Transpose', ['t'], ['q'], { perm: [1, 0, 2] }), node('Transpose', ['t'], ['k'], { perm: [1, 2, 0] }),
      node('MatMul', ['q', 'k'], ['s']), node('Softmax', ['s'], ['p'], { axis: -1 }), node('MatMul', ['p', 'q'], ['y']),
    ]))).toBe('proved'));

  it('group norm as Reshape to [N,G,-1] and InstanceNormalization', () =>
    expect(verdict(model([6, 4, 4], [
      node('Reshape', ['x', 'groups'], ['g']), node('InstanceNormalization', ['g', 'one', 'zero'], ['i']), node('Shape', ['x'], ['shape']), node('Reshape', ['i', 'shape'], ['y']),
    ], [ints('groups', [0, 3, -1]), floats('one', [3], [1, 1, 1]), floats('zero', [3], [0, 0, 0])]))).toBe('proved'));

  it('a division by another size than the number of samples', () =>
    expect(verdict(model([5, 3], [node('Shape', ['x'], ['s'], { start: 1, end: 2 }), node('Cast', ['s'], ['f'], { to: 1 }), node('Div', ['x', 'f'], ['y'])]))).toBe('proved'));

  it('a token for every sample, expanded to the batch and joined with it', () =>
    expect(verdict(model([4, 3], [
      node('Shape', ['x'], ['n'], { start: 0, end: 1 }), node('Concat', ['n', 'back'], ['shape'], { axis: 0 }), node('Expand', ['token', 'shape'], ['tokens']), node('Concat', ['tokens', 'x'], ['y'], { axis: 1 }),
    ], [ints('back', [1, 3]), floats('token', [1, 1, 3], [1, 2, 3])]))).toBe('proved'));

  it('a recurrence whose initial state is made for the batch', () =>
    expect(verdict(model([4, 3], [
      node('Transpose', ['x'], ['t'], { perm: [1, 0, 2] }), node('Shape', ['x'], ['n'], { start: 0, end: 1 }), node('Concat', ['one', 'n', 'two'], ['shape'], { axis: 0 }), node('ConstantOfShape', ['shape'], ['h']),
      node('RNN', ['t', 'w', 'r', '', '', 'h'], ['y'], { hidden_size: 2 }),
    ], [ints('one', [1]), ints('two', [2]), floats('w', [1, 2, 3], [1, 2, 3, 4, 5, 6]), floats('r', [1, 2, 2], [1, 2, 3, 4])]))).toBe('proved'));

  it('a scale by the root of a size that a shape holds beside the number of samples', () =>
    expect(verdict(model([4, 9], [
      node('Shape', ['x'], ['s']), node('Gather', ['s', 'last'], ['c']), node('Cast', ['c'], ['f'], { to: 1 }), node('Sqrt', ['f'], ['r']), node('Div', ['x', 'r'], ['y']),
    ], [int64s('last', [], [-1])]))).toBe('proved'));

  it.each<readonly [string, readonly TestNode[], Initializers]>([
    ['the number of elements over that of samples', [node('Size', ['x'], ['e']), node('Div', ['e', 'n'], ['q']), node('Concat', ['n', 'q'], ['shape'], { axis: 0 })], []],
    ['a size where it is not -1', [node('Concat', ['n', 'six'], ['s'], { axis: 0 }), node('Equal', ['s', 'least'], ['q']), node('Where', ['q', 'least', 's'], ['shape'])], [ints('six', [6]), ints('least', [-1])]],
    ['half of twice the number of samples', [node('Mul', ['n', 'two'], ['t']), node('Div', ['t', 'two'], ['h']), node('Concat', ['h', 'six'], ['shape'], { axis: 0 })], [ints('six', [6]), ints('two', [2])]],
    ['the larger of the number of samples and 1', [node('Max', ['n', 'one'], ['m']), node('Concat', ['m', 'six'], ['shape'], { axis: 0 })], [ints('six', [6]), ints('one', [1])]],
  ])('a shape computed from %s', (_, nodes, initializers) =>
    expect(verdict(model([2, 3], [node('Shape', ['x'], ['n'], { start: 0, end: 1 }), ...nodes, node('Reshape', ['x', 'shape'], ['y'])], initializers))).toBe('proved'));

  it('a model for one sample, once it has more', () => {
    const { graph } = importModel(model([5, 3], [node('Transpose', ['x'], ['t'], { perm: [1, 0, 2] }), node('Relu', ['t'], ['r']), node('Transpose', ['r'], ['y'], { perm: [1, 0, 2] })], [], 1));
    expect(proveBatchIndependence(graph, testTarget)).toEqual({ proved: true });
  });
});

describe('refuses by name', () => {
  const cases: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ['x / Shape(x)[0]', model([3], [node('Shape', ['x'], ['s'], { start: 0, end: 1 }), node('Cast', ['s'], ['f'], { to: 1 }), named('Div', ['x', 'f'], ['y'])]), /^Div\(here\): it computes with the number of samples/],
    ['CumSum', model([3], [named('CumSum', ['x', 'axis'], ['y'])], [int64s('axis', [], [0])]), /^CumSum\(here\): it scans along samples/],
    ['Gather', model([3], [named('Gather', ['x', 'i'], ['y'], { axis: 0 })], [ints('i', [1, 0])]), /^Gather\(here\): it shifts, reverses, selects or indexes samples/],
    ['TopK', model([3], [named('TopK', ['x', 'k'], ['y', 'i'], { axis: 0 })], [ints('k', [2])]), /^TopK\(here\): /],
    ['Softmax', model([3], [named('Softmax', ['x'], ['y'], { axis: 0 })]), /^Softmax\(here\): it joins the samples of a batch/],
    ['reversal', model([3], [named('Slice', ['x', 'from', 'to', 'axes', 'steps'], ['y'])], [ints('from', [-1]), ints('to', [-1000]), ints('axes', [0]), ints('steps', [-1])]), /^Slice\(here\): it shifts, reverses, selects or indexes samples/],
    ['attention over n', model([3], [node('Transpose', ['x'], ['k']), named('MatMul', ['x', 'k'], ['s']), node('Softmax', ['s'], ['p'], { axis: -1 }), node('MatMul', ['p', 'x'], ['y'])]), /^MatMul\(here\): it pairs samples with samples/],
    ['batch norm in training', model([2, 4], [named('BatchNormalization', ['x', 'one', 'zero', 'zero', 'one'], ['y', 'm', 'v'], { training_mode: 1 })], [floats('one', [2], [1, 1]), floats('zero', [2], [0, 0])]), /^BatchNormalization\(here\): it joins the samples/],
    ['a mean over samples, before another op that mixes', model([3], [node('Softmax', ['x'], ['a'], { axis: 0 }, { name: 'first' }), node('CumSum', ['x', 'axis'], ['b'], {}, { name: 'second' }), node('Add', ['a', 'b'], ['y'])], [int64s('axis', [], [0])]), /^Softmax\(first\)/],
  ];
  // What these compute is the same at both sizes that are compared, and is not at others.
  const counted = (nodes: readonly TestNode[], initializers: Initializers, last: readonly TestNode[] = [node('Cast', ['q'], ['c'], { to: 1 }), named('Mul', ['x', 'c'], ['y'])]): Uint8Array =>
    model([6], [node('Shape', ['x'], ['n'], { start: 0, end: 1 }), ...nodes, ...last], initializers);
  const cut = [named('Slice', ['x', 'zero', 'q', 'one'], ['y'])];
  it.each<readonly [string, Uint8Array, RegExp]>([
    ['the smaller of the number of samples and 5', counted([node('Min', ['n', 'five'], ['q'])], [ints('five', [5])]), /^Mul\(here\): it computes with the number of samples/],
    ['a sixteenth of the number of samples, rounded', counted([node('Div', ['n', 'd'], ['q'])], [ints('d', [16])]), /^Mul\(here\): it computes with the number of samples/],
    ['whether there are more than 100 samples', counted([node('Greater', ['n', 'h'], ['q'])], [ints('h', [100])]), /^Mul\(here\): it computes with the number of samples/],
    ['the number of samples modulo 4', counted([node('Mod', ['n', 'd'], ['q'])], [ints('d', [4])]), /^Mul\(here\): it computes with the number of samples/],
    ['the square of the number of samples less its line through both sizes', counted([node('Mul', ['n', 'n'], ['s']), node('Mul', ['n', 'd'], ['t']), node('Sub', ['s', 't'], ['q'])], [ints('d', [18])]), /^Mul\(here\): it computes with the number of samples/],
    ['what 10 a sample lose in 8 bits', counted([node('Mul', ['n', 'ten'], ['s']), node('Cast', ['s'], ['t'], { to: 3 }), node('Cast', ['t'], ['w'], { to: 7 }), node('Sub', ['w', 's'], ['q'])], [ints('ten', [10])]), /^Mul\(here\): it computes with the number of samples/],
    ['that of samples up to the hundredth', counted([node('Slice', ['x', 'zero', 'h'], ['first']), node('Shape', ['first'], ['m'], { start: 0, end: 1 }), node('Sub', ['n', 'm'], ['q'])], [ints('zero', [0]), ints('h', [100])]), /^Slice\(first\): it takes its start or end from the number of samples/],
    ['features up to the smaller of the number of samples and 5', counted([node('Min', ['n', 'five'], ['q'])], [ints('five', [5]), ints('zero', [0]), ints('one', [1])], cut), /^Slice\(here\): it takes its ends from the number of samples/],
    ['the smaller of the number of samples and 5, in a loop that captures it', counted([node('Min', ['n', 'five'], ['q'])], [ints('five', [5]), int64s('twice', [], [2])], [
      node('Cast', ['q'], ['c'], { to: 1 }, { name: 'cast' }),
      named('Loop', ['twice', '', 'x'], ['y'], { body: { graph: {
        inputs: [value('i', 'i64', []), value('more', 'bool', []), value('a', 'f32', ['n', 6])], outputs: [value('again', 'bool'), value('b', 'f32')], nodes: [node('Identity', ['more'], ['again']), node('Mul', ['a', 'c'], ['b'])],
      } } }),
    ]), /^Cast\(cast\): it takes its result from the number of samples/],
    ['a branch for more than 100 samples', counted([node('Greater', ['n', 'h'], ['q']), node('Squeeze', ['q'], ['c'])], [ints('h', [100])], [named('If', ['c'], ['y'], {
      then_branch: { graph: { nodes: [node('Neg', ['x'], ['a'])], outputs: [value('a', 'f32')] } }, else_branch: { graph: { nodes: [node('Abs', ['x'], ['b'])], outputs: [value('b', 'f32')] } },
    })]), /^If\(here\): it takes its cond from the number of samples/],
  ])('%s', (_, bytes, message) => expect(verdict(bytes)).toMatch(message));

  it.each(cases)('%s', (_, bytes, message) => expect(verdict(bytes)).toMatch(message));
});
