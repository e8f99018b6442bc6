/** The ONNX importer: dimensions, initializers, names, compile-time values, local functions, subgraphs. Values are checked against hand arithmetic. */
import { expect, test } from 'vitest';
import { decodeModel } from '../frontend/onnx/decode.ts';
import { importModel, lowerModel, type ImportOptions } from '../frontend/onnx/import.ts';
import { UnboundInputs, type LoweringTable } from '../frontend/onnx/lowering.ts';
import { lowerings } from '../frontend/onnx/ops/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { showType, type Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { encodeModel, floats, int64s, node, value, type TestGraph, type TestModel } from './onnx-encode.ts';

const f32 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from(data) });
const i64 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'i64', shape, data: BigInt64Array.from(data, BigInt) });
const bool = (x: boolean): Tensor => ({ dtype: 'bool', shape: [], data: Uint8Array.of(Number(x)) });

/** Imports, verifies, and runs on the interpreter. */
function run(model: TestModel, inputs: Readonly<Record<string, Tensor>>, options: ImportOptions = {}): Record<string, number[]> {
  const { graph } = importModel(encodeModel(model), options);
  return runGraph(graph, inputs);
}

function runGraph(graph: Graph, inputs: Readonly<Record<string, Tensor>>): Record<string, number[]> {
  verify(graph);
  return Object.fromEntries([...evaluate(graph, inputs).outputs].map(([name, t]) => [name, Array.from<number | bigint, number>(t.data, Number)]));
}

const affine: TestModel = {
  nodes: [node('Mul', ['x', 'w'], ['xw']), node('Add', ['xw', 'bias'], ['y'])],
  inputs: [value('x', 'f32', ['n', 2])],
  outputs: [value('y', 'f32', ['n', 2])],
  initializers: [floats('w', [2], [10, 100]), floats('bias', [2], [1, 2])],
};

test('symbolic dimensions are bound by name, inferred from shapes, or become 1 with a warning', () => {
  const shapeOf = (options: ImportOptions): string => showType(importModel(encodeModel(affine), options).graph.inputs[0]!.type);
  expect(shapeOf({ dims: { n: 3 } })).toBe('f32[3,2]');
  expect(shapeOf({ shapes: { x: [5, 2] } })).toBe('f32[5,2]');
  expect(shapeOf({})).toBe('f32[1,2]');
  const unbound = importModel(encodeModel(affine));
  expect(unbound.dims).toEqual({ n: 1 });
  expect(unbound.warnings).toEqual(['"n" is not bound and taken as 1; bind with --dim n=N']);
  expect(unbound.inputs).toEqual([{ name: 'x', dtype: 'f32', dims: ['n', 2] }]);
  expect(importModel(encodeModel(affine), { dims: { n: 3 } }).warnings).toEqual([]);
});

test('a dimension without a name is called by its input and axis', () => {
  const model: TestModel = { nodes: [node('Relu', ['x'], ['y'])], inputs: [value('x', 'f32', [undefined, 2])], outputs: [value('y', 'f32')] };
  expect(importModel(encodeModel(model), { dims: { 'x.0': 4 } }).graph.outputs[0]!.value.type.shape).toEqual([4, 2]);
});

test.each<[string, ImportOptions, RegExp]>([
  ['an unknown symbol', { dims: { m: 3 } }, /no symbolic dimension "m"; it has "n"/],
  ['two sizes of one symbol', { dims: { n: 3 }, shapes: { x: [4, 2] } }, /dimension "n" is 3 by --dim n=3, but 4 by the shape of input "x"/],
  ['a shape that does not fit', { shapes: { x: [4, 3] } }, /input "x" has shape \[n,2\], but \[4,3\] was given/],
  ['an input that does not exist', { shapes: { z: [4, 3] } }, /has no input "z"; its inputs are "x"/],
  ['a value of another dtype', { values: { x: i64([1, 2], [1, 2]) } }, /input "x" has element type f32, but a value of i64 was given/],
])('%s is refused', (_, options, message) => {
  expect(() => importModel(encodeModel(affine), options)).toThrow(message);
});

test('float initializers are state under their ONNX names, others are constants; names and sources are kept', () => {
  const { graph } = importModel(encodeModel(affine), { dims: { n: 1 } });
  expect(graph.state.map((s) => s.name)).toEqual(['w', 'bias']);
  expect(graph.ops.flatMap((op) => op.results.map((r) => r.name))).toEqual(['xw', 'y']);
  expect(graph.ops.map((op) => op.source)).toEqual([['Mul(xw)'], ['Add(y)']]);
  expect(run(affine, { x: f32([1, 2], [3, 4]) })).toEqual({ y: [31, 402] });
});

test('raw initializer data is viewed, not copied, where it is aligned', () => {
  const bytes = encodeModel({ ...affine, initializers: [floats('w', [2], [10, 100]), floats('bias', [2], [1, 2])] });
  const { graph } = importModel(bytes);
  for (const { init } of graph.state) {
    if (init === 'zero') throw new Error('no data');
    const at = Buffer.from(bytes).indexOf(Buffer.from(init.data.buffer, init.data.byteOffset, init.data.byteLength));
    expect(init.data.buffer === bytes.buffer).toBe((bytes.byteOffset + at) % 4 === 0);
  }
});

test('an initializer that is also an input is a weight, unless the caller gives its shape or value', () => {
  const model: TestModel = { ...affine, inputs: [...affine.inputs!, value('w', 'f32', [2]), value('bias', 'f32', [2])] };
  const plain = importModel(encodeModel(model));
  expect(plain.graph.inputs.map((v) => v.name)).toEqual(['x']);
  expect(run(model, { x: f32([1, 2], [1, 1]), w: f32([2], [5, 6]) }, { shapes: { w: [2] } })).toEqual({ y: [6, 8] });
  const bound = importModel(encodeModel(model), { values: { bias: f32([2], [7, 7]) } });
  expect(Object.keys(bound.bound)).toEqual(['bias']);
  expect(runGraph(bound.graph, { x: f32([1, 2], [1, 1]) })).toEqual({ y: [17, 107] });
});

test('nodes that are out of order are sorted', () => {
  expect(run({ ...affine, nodes: [...affine.nodes].reverse() }, { x: f32([1, 2], [3, 4]) })).toEqual({ y: [31, 402] });
});

test('shape arithmetic folds: a Reshape to computed sizes needs no input value', () => {
  const model: TestModel = {
    nodes: [
      node('Shape', ['x'], ['shape']),
      node('Gather', ['shape', 'zero'], ['batch']),
      node('Concat', ['batch', 'rest'], ['target'], { axis: 0 }),
      node('Reshape', ['x', 'target'], ['y']),
    ],
    inputs: [value('x', 'f32', ['n', 2, 3])],
    outputs: [value('y', 'f32')],
    initializers: [int64s('zero', [1], [0]), int64s('rest', [1], [-1])],
  };
  expect(importModel(encodeModel(model), { dims: { n: 4 } }).graph.outputs[0]!.value.type.shape).toEqual([4, 6]);
});

test('float weights can decide shapes too', () => {
  const model: TestModel = {
    nodes: [node('Mul', ['limit', 'limit'], ['square']), node('Range', ['zero', 'square', 'one'], ['r']), node('Add', ['x', 'r'], ['y'])],
    inputs: [value('x', 'f32', [1])],
    outputs: [value('y', 'f32')],
    initializers: [floats('zero', [], [0]), floats('limit', [], [2]), floats('one', [], [1])],
  };
  expect(run(model, { x: f32([1], [5]) })).toEqual({ y: [5, 6, 7, 8] });
});

test('an input whose value decides a shape is named; bound, it leaves the graph', () => {
  const model: TestModel = {
    nodes: [node('Add', ['s', 'one'], ['target']), node('Reshape', ['x', 'target'], ['y'])],
    inputs: [value('x', 'f32', [2, 3]), value('s', 'i64', [2])],
    outputs: [value('y', 'f32')],
    initializers: [int64s('one', [2], [1, 1])],
  };
  const bytes = encodeModel(model);
  let error: unknown;
  try {
    importModel(bytes);
  } catch (e) {
    error = e;
  }
  expect(error).toBeInstanceOf(UnboundInputs);
  expect((error as UnboundInputs).inputs).toEqual(['s']);
  expect((error as UnboundInputs).message).toMatch(/Reshape node "y" \(opset 21\).*depends on input "s".*--value s=FILE\.npy/);
  const { graph, bound } = importModel(bytes, { values: { s: i64([2], [2, 1]) } });
  expect(graph.inputs.map((v) => v.name)).toEqual(['x']);
  expect(bound).toEqual({ s: i64([2], [2, 1]) });
  expect(graph.outputs[0]!.value.type.shape).toEqual([3, 2]);
});

test('an optional input that is left out in the middle is skipped', () => {
  const model: TestModel = { nodes: [node('Clip', ['x', '', 'hi'], ['y'])], inputs: [value('x', 'f32', [3])], outputs: [value('y', 'f32')], initializers: [floats('hi', [], [2])] };
  expect(run(model, { x: f32([3], [-5, 1, 7]) })).toEqual({ y: [-5, 1, 2] });
});

// softmax over an axis that the call gives, or by default the last; then scaled by a nested function, of which there are two overloads.
const functions: TestModel = {
  nodes: [node('Spread', ['x'], ['a'], { axis: 0 }, { domain: 'local' }), node('Spread', ['x'], ['b'], {}, { domain: 'local', name: 'second' })],
  inputs: [value('x', 'f32', [2, 2])],
  outputs: [value('a', 'f32'), value('b', 'f32')],
  opsets: { '': 21, local: 1 },
  functions: [
    {
      name: 'Spread', domain: 'local', inputs: ['t', 'absent'], outputs: ['r'], defaults: { axis: -1 },
      nodes: [
        node('ReduceSum', ['t', 'axes'], ['s'], { keepdims: { ref: 'keep' } }),
        node('Constant', [], ['axes0'], { value_int: { ref: 'axis' } }),
        node('Reshape', ['axes0', 'one'], ['axes']),
        node('Constant', [], ['one'], { value_ints: [1] }),
        node('Scale', ['s'], ['r'], {}, { domain: 'local', overload: 'hundred' }),
      ],
    },
    { name: 'Scale', domain: 'local', overload: 'ten', inputs: ['t'], outputs: ['r'], nodes: [node('Constant', [], ['k'], { value_float: { float: 10 } }), node('Mul', ['t', 'k'], ['r'])] },
    { name: 'Scale', domain: 'local', overload: 'hundred', inputs: ['t'], outputs: ['r'], nodes: [node('Constant', [], ['k'], { value_float: { float: 100 } }), node('Mul', ['t', 'k'], ['r'])] },
  ],
};

test('local functions are inlined: attribute references, defaults, absent attributes, overloads, nested calls', () => {
  expect(run(functions, { x: f32([2, 2], [1, 2, 3, 4]) })).toEqual({ a: [400, 600], b: [300, 700] });
  const { graph } = importModel(encodeModel(functions));
  expect(graph.ops.findLast((op) => op.source[0]!.startsWith('Mul'))!.results[0]!.name).toBe('b');
});

test('a local function that calls itself is refused', () => {
  const model: TestModel = { ...functions, functions: [{ name: 'Spread', domain: 'local', inputs: ['t'], outputs: ['r'], nodes: [node('Spread', ['t'], ['r'], {}, { domain: 'local' })] }] };
  expect(() => importModel(encodeModel(model))).toThrow(/the local function local\.Spread calls itself/);
});

/** A table with an If of its own, so that regions are tested here whatever the ops do with them. */
const branching: LoweringTable = {
  ...lowerings,
  If: [
    {
      since: 1,
      inputs: [1, 1],
      outputs: [1, Infinity],
      lower(cx) {
        const branches = [cx.node.attrs.graph('then_branch'), cx.node.attrs.graph('else_branch')];
        if (cx.isConstant(cx.input(0))) return cx.inline(branches[cx.numbers(cx.input(0), 'cond')[0] ? 0 : 1]!, []);
        const { regions, captured } = cx.regions(branches.map((graph) => ({ graph, inputs: [] })));
        return cx.b.op('if', [cx.input(0), ...captured], {}, regions);
      },
    },
  ],
};

const branch = (op: string, operand: string, more: Partial<TestGraph> = {}): TestGraph => ({ name: op, nodes: [node(op, ['x', operand], ['r'])], outputs: [value('r', 'f32')], ...more });
const ifModel: TestModel = {
  nodes: [
    node('Mul', ['x', 'x'], ['square']),
    node('If', ['cond'], ['y'], { then_branch: { graph: branch('Add', 'square') }, else_branch: { graph: branch('Mul', 'w', { initializers: [floats('w', [2], [7, 8])] }) } }),
  ],
  inputs: [value('cond', 'bool', []), value('x', 'f32', [2])],
  outputs: [value('y', 'f32', [2])],
};
const lowerWith = (model: TestModel, options: ImportOptions = {}): Graph => lowerModel(decodeModel(encodeModel(model), 'the model', undefined), undefined, options, branching).graph;

test('subgraphs become regions whose captures are operands, the same for every branch', () => {
  const graph = lowerWith(ifModel);
  const op = graph.ops.find((o) => o.name === 'if')!;
  expect(op.operands.map((v) => v.name)).toEqual(['cond', 'x', 'square', 'w']);
  for (const region of op.regions) expect(region.inputs.map((v) => v.name)).toEqual(['x', 'square', 'w']);
  expect(graph.state.map((s) => s.name)).toEqual(['w']);
  const x = f32([2], [3, 4]);
  expect(runGraph(graph, { x, cond: bool(true) })).toEqual({ y: [12, 20] });
  expect(runGraph(graph, { x, cond: bool(false) })).toEqual({ y: [21, 32] });
});

test('a subgraph may reuse the name of a weight around it', () => {
  const model: TestModel = { ...ifModel, nodes: [...ifModel.nodes, node('Add', ['y', 'w'], ['z'])], outputs: [value('z', 'f32')], initializers: [floats('w', [2], [100, 200])] };
  const graph = lowerWith(model);
  expect(graph.state.map((s) => s.name).sort()).toEqual(['w', 'w.1']);
  expect(runGraph(graph, { x: f32([2], [3, 4]), cond: bool(false) })).toEqual({ z: [121, 232] });
});

test('a subgraph inside a subgraph captures through both', () => {
  const inner = branch('Add', 'square');
  const outer: TestGraph = { nodes: [node('If', ['cond'], ['z'], { then_branch: { graph: inner }, else_branch: { graph: branch('Sub', 'square') } }), node('Neg', ['z'], ['r'])], outputs: [value('r', 'f32')] };
  const model: TestModel = { ...ifModel, nodes: [ifModel.nodes[0]!, node('If', ['cond'], ['y'], { then_branch: { graph: outer }, else_branch: { graph: inner } })] };
  expect(runGraph(lowerWith(model), { x: f32([2], [3, 4]), cond: bool(true) })).toEqual({ y: [-12, -20] });
});

test('a branch that random numbers choose is chosen while compiling, but not where each run draws others', () => {
  const model: TestModel = {
    ...ifModel, inputs: [value('x', 'f32', [2])], initializers: [floats('half', [], [0.5])],
    nodes: [ifModel.nodes[0]!, node('RandomUniform', [], ['draw'], { shape: [1] }), node('Less', ['draw', 'half'], ['cond']), ifModel.nodes[1]!],
  };
  const ops = (seeded: boolean): string[] => importModel(encodeModel(model), { seeded }).graph.ops.map((op) => op.name);
  expect(ops(false)).not.toContain('if');
  expect(ops(true)).toContain('if');
});

test('a subgraph whose condition is bound is inlined', () => {
  const graph = lowerWith(ifModel, { values: { cond: bool(false) } });
  expect(graph.ops.some((op) => op.name === 'if')).toBe(false);
  expect(runGraph(graph, { x: f32([2], [3, 4]) })).toEqual({ y: [21, 32] });
});
