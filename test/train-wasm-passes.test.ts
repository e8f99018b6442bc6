/** Passes for training graphs: the same numbers by other ops, and state that is written in place. */
import { describe, expect, test } from 'vitest';
import { wasmTarget } from '../cli/driver/target.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { parseGraph } from '../ir/parse.ts';
import { sizeOf, tensorType, type Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { fuse } from '../passes/fuse.ts';
import { gradientsAsConvolutions } from '../passes/gradients-as-convolutions.ts';
import { eliminateDeadCode } from '../passes/eliminate-dead-code.ts';
import { joinAffine } from '../passes/join-affine.ts';
import { plan } from '../passes/plan.ts';
import { rebuildCheapValues } from '../passes/rebuild-cheap-values.ts';
import { passes, runPipeline } from '../passes/pipeline.ts';
import { selectAlgorithms } from '../passes/select-algorithms.ts';
import { splitReductions } from '../passes/split-reductions.ts';
import { splitWeightGradients } from '../passes/split-weight-gradients.ts';
import { differentiate } from '../passes/train/differentiate.ts';
import { onTrainingSteps } from '../passes/train/forward-end.ts';
import { randomArray, randomNumbers } from './contract-harness.ts';
import { runProgram } from './run-program.ts';

const random = (shape: readonly number[], seed: number): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from(randomArray(sizeOf(shape), randomNumbers(seed))) });

function graphOf(inputs: Readonly<Record<string, Tensor>>, build: (b: Builder, values: ReturnType<Builder['input']>[]) => ReturnType<Builder['op']>): Graph {
  const b = new Builder('g');
  const values = Object.entries(inputs).map(([name, t]) => b.input(t, name));
  return b.finish(build(b, values).map((value, i) => ({ name: `o${i}`, value })));
}

/** The pass changes the graph, the result verifies, and gives the same numbers up to rounding. */
function expectSame(graph: Graph, pass: (g: Graph, t: typeof wasmTarget) => Graph, inputs: Readonly<Record<string, Tensor>>, tolerance: number): Graph {
  const after = pass(graph, wasmTarget);
  expect(after).not.toBe(graph);
  verify(after);
  const [want, got] = [evaluate(graph, inputs).outputs, evaluate(after, inputs).outputs];
  for (const [name, t] of want) {
    const other = got.get(name)!;
    expect(other.shape).toEqual(t.shape);
    t.data.forEach((v, i) => expect(Math.abs(Number(other.data[i]) - Number(v))).toBeLessThanOrEqual(tolerance * Math.max(1, Math.abs(Number(v)))));
  }
  return after;
}

describe('gradients-as-convolutions', () => {
  test.each([
    { x: [2, 3, 6, 5], w: [4, 3, 3, 3], strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 },
    { x: [2, 3, 7, 8], w: [4, 3, 3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 },
    { x: [1, 4, 8, 9], w: [6, 2, 1, 1], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1], groups: 2 },
    { x: [1, 2, 11, 10], w: [3, 2, 4, 2], strides: [3, 1], pads: [2, 0, 1, 2], dilations: [1, 3], groups: 1 },
    { x: [2, 2, 13], w: [2, 1, 5], strides: [2], pads: [0, 3], dilations: [1], groups: 2 },
    { x: [1, 2, 4, 5, 6], w: [3, 2, 2, 3, 2], strides: [1, 2, 2], pads: [1, 1, 0, 0, 1, 1], dilations: [1, 1, 1], groups: 1 },
    { x: [1, 2, 8, 8], w: [2, 2, 2, 2], strides: [3, 3], pads: [-1, 0, 0, -1], dilations: [1, 1], groups: 1 },
    { x: [2, 3, 9, 8], w: [3, 1, 3, 3], strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 3 },
    { x: [1, 4, 8, 8], w: [4, 1, 4, 2], strides: [2, 2], pads: [2, 0, 2, 1], dilations: [1, 1], groups: 4 },
    { x: [1, 3, 9, 9], w: [4, 3, 3, 3], strides: [2, 2], pads: [2, 2, 2, 2], dilations: [1, 1], groups: 1 },
  ])('x $x, w $w, strides $strides, pads $pads, dilations $dilations, groups $groups', ({ x, w, ...attrs }) => {
    const y = opDef('conv').infer([tensorType('f32', x), tensorType('f32', w)], attrs, [])[0]!.shape;
    const inputs = { dy: random(y, 1), w: random(w, 2) };
    const graph = graphOf(inputs, (b, [dy, weight]) => [b.one('convData', [dy!, weight!], { ...attrs, size: x.slice(2) })]);
    const after = expectSame(graph, gradientsAsConvolutions, inputs, 1e-6);
    expect(after.ops.map((o) => o.name)).not.toContain('convData');
  });

  test('taps that other phases have are not computed', () => {
    const inputs = { dy: random([2, 4, 4, 4], 1), w: random([4, 3, 3, 3], 2) };
    const graph = graphOf(inputs, (b, [dy, w]) => [b.one('convData', [dy!, w!], { strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1, size: [8, 8] })]);
    const after = expectSame(graph, gradientsAsConvolutions, inputs, 1e-6);
    const taps = after.ops.filter((op) => op.name === 'conv').map((op) => sizeOf(op.operands[1]!.type.shape.slice(2)));
    expect(taps.reduce((n, t) => n + t, 0)).toBe(9);
  });
});

describe('join-affine', () => {
  const small = (shape: readonly number[], seed: number): Tensor => ({ ...random(shape, seed), data: Float32Array.from(random(shape, seed).data as Float32Array, (v) => 1 + v / 2) });
  const join = (g: Graph): Graph => eliminateDeadCode(joinAffine(g), wasmTarget);

  test('a norm over groups becomes one multiply-add of what stands before the groups', () => {
    const inputs = { x: random([2, 8, 6, 7], 1), mean: small([2, 4, 1, 1, 1], 2), rate: small([2, 4, 1, 1, 1], 3), g: small([1, 4, 2, 1, 1], 4), s: small([1, 4, 2, 1, 1], 5) };
    const graph = graphOf(inputs, (b, [x, mean, rate, g, s]) => [b.add(b.mul(b.mul(b.sub(b.reshape(x!, [2, 4, 2, 6, 7]), mean!), rate!), g!), s!)]);
    const after = expectSame(graph, join, inputs, 1e-5);
    expect(after.ops.filter((op) => sizeOf(op.results[0]!.type.shape) === 2 * 8 * 6 * 7).map((op) => op.name)).toEqual(['mul', 'add', 'reshape']);
  });
  test('what follows the norm over groups is computed before the groups, and is one op with one result', () => {
    const inputs = { x: random([2, 8, 6, 7], 1), mean: small([2, 4, 1, 1, 1], 2), rate: small([2, 4, 1, 1, 1], 3), g: small([1, 4, 2, 1, 1], 4), s: small([1, 4, 2, 1, 1], 5), m: small([1, 4, 2, 1, 1], 6), f: small([1, 4, 2, 1, 1], 7) };
    const graph = graphOf(inputs, (b, [x, mean, rate, g, s, m, f]) => {
      const n = b.add(b.mul(b.mul(b.sub(b.reshape(x!, [2, 4, 2, 6, 7]), mean!), rate!), g!), s!);
      return [b.reshape(b.mul(b.sub(b.mul(n, b.unary('sigmoid', n)), m!), f!), [2, 8, 6, 7])];
    });
    const after = expectSame(graph, (g) => runPipeline(g, wasmTarget), inputs, 1e-5);
    const large = after.ops.filter((op) => op.name === 'fused' && op.results.some((r) => sizeOf(r.type.shape) === 2 * 8 * 6 * 7));
    expect(large.map((op) => [op.attrs['kind'], op.results.length])).toEqual([['map', 1]]);
  });
  test('broadcasts and signs count as what they repeat and change', () => {
    const inputs = { x: random([4, 3, 8, 8], 1), m: small([4, 3, 1, 1], 2), s: small([4, 1, 1, 1], 3) };
    const graph = graphOf(inputs, (b, [x, m, s]) => [b.sub(b.mul(b.neg(b.add(b.broadcast(s!, [4, 3, 8, 8]), x!)), m!), s!)]);
    const after = expectSame(graph, join, inputs, 1e-5);
    expect(after.ops.filter((op) => sizeOf(op.results[0]!.type.shape) === 4 * 3 * 64).map((op) => op.name)).toEqual(['mul', 'add']);
  });
  test('a norm over the last axis, whose scale would be as large as the rows, keeps its form', () => {
    const inputs = { x: random([6, 32], 1), mean: small([6, 1], 2), rate: small([6, 1], 3), g: small([32], 4), s: small([32], 5) };
    const graph = graphOf(inputs, (b, [x, mean, rate, g, s]) => [b.add(b.mul(b.mul(b.sub(x!, mean!), rate!), g!), s!)]);
    expect(joinAffine(graph)).toBe(graph);
  });
});

test('the backward pass rebuilds what follows from the input of a norm, and reads nothing else of the forward pass', () => {
  const inputs = { x: random([4, 16, 8, 8], 1), a: random([4, 16, 1, 1], 2), t: random([4, 16, 8, 8], 4) };
  const graph = (() => {
    const b = new Builder('g');
    const [x, a, t] = Object.entries(inputs).map(([name, tensor]) => (name === 'a' ? b.state(name, tensor, tensor) : b.input(tensor, name)));
    const y = b.unary('relu', b.mul(x!, a!));
    const z = b.mul(y, b.unary('sigmoid', b.mul(y, 2)));
    const loss = b.reduce('reduceSum', b.mul(z, t!), [0, 1, 2, 3]);
    return differentiate({ ...b.finish([{ name: 'loss', value: loss }]), updates: [{ state: a!, value: a! }] });
  })();
  const after = rebuildCheapValues(graph, wasmTarget);
  verify(after);
  const end = after.ops.findIndex((op) => op.results[0] === after.outputs[0]!.value);
  const forward = new Set(after.ops.slice(0, end + 1).flatMap((op) => op.results).filter((v) => sizeOf(v.type.shape) === 4096));
  expect(after.ops.slice(end + 1).flatMap((op) => op.operands).filter((v) => forward.has(v))).toEqual([]);
  const [want, got] = [evaluate(graph, inputs).outputs, evaluate(after, inputs).outputs];
  for (const [name, tensor] of want) expect(got.get(name)).toEqual(tensor);
});

test.each(['add', 'sub'])('the forward pass of a training step ends at its loss, in a loop over micro-batches at what an iteration gives to %s to it', (sign) => {
  const graph = parseGraph(`graph @m(%x: f32[4]) {
    %n = constant {value=i64[](3)} : i64[] %t = constant {value=bool[](1)} : bool[] %start = constant {value=f32[](0)} : f32[]
    %0 = loop %n, %t, %start, %x {trips=3, carried=1, scans=0} (%i: i64[], %loss: f32[], %k: f32[4]) {
      %go = constant {value=bool[](1)} : bool[] %1 = neg %k : f32[4] %2 = reduceSum %1 {axes=[0]} : f32[] %3 = exp %k : f32[4] %4 = ${sign} %loss, %2 : f32[] return %go, %4
    } : f32[] return "loss" = %0 }`);
  const seen: string[] = [];
  onTrainingSteps(graph, (step, end) => {
    seen.push(step.ops[end]!.name);
    return step;
  });
  expect(seen).toEqual(['reduceSum', 'loop']);
});

test('sums that read the same tensors are one op', () => {
  const inputs = { dy: random([4, 8, 6, 7], 1), x: random([4, 8, 6, 7], 2) };
  const graph = graphOf(inputs, (b, [dy, x]) => [b.reduce('reduceSum', dy!, [2, 3]), b.reduce('reduceSum', b.mul(dy!, x!), [2, 3])]);
  const after = expectSame(graph, fuse, inputs, 1e-6);
  expect(after.ops.map((op) => op.name)).toEqual(['fused']);
  const program = plan(after, wasmTarget);
  const got = runProgram(program, inputs);
  for (const [name, t] of evaluate(graph, inputs).outputs) t.data.forEach((v, i) => expect(Number(got.get(name)!.data[i])).toBeCloseTo(Number(v), 4));
});

test('what a map alone reads is computed in it', () => {
  const inputs = { x: random([4, 60], 1), y: random([4, 60], 2), a: random([4, 1], 3) };
  const graph = graphOf(inputs, (b, [x, y, a]) => [b.add(b.mul(x!, a!), b.mul(b.unary('exp', y!), a!))]);
  const after = expectSame(graph, fuse, inputs, 1e-5);
  expect(after.ops.map((op) => op.name)).toEqual(['fused']);
});

test('no fused op has a result that nobody reads, though passes before fusion leave readers behind', () => {
  const inputs = { x: random([4, 60], 1), a: random([4, 1], 2), c: random([4, 1], 3) };
  const graph = graphOf(inputs, (b, [x, a, c]) => {
    const scaled = b.mul(x!, a!);
    b.reshape(b.add(scaled, a!), [2, 120]);
    return [b.add(scaled, c!)];
  });
  const last = passes.slice(passes.findIndex((p) => p.name === 'rebuild-cheap-values'));
  const after = expectSame(graph, (g) => runPipeline(g, wasmTarget, { passes: last }), inputs, 1e-5);
  expect(after.ops.map((op) => op.results.length)).toEqual([1]);
});

test('weight gradients are sums over parts of the batch', () => {
  const inputs = { x: random([12, 3, 6, 5], 1), dy: random([12, 4, 6, 5], 2) };
  const graph = graphOf(inputs, (b, [x, dy]) => [b.one('convWeight', [x!, dy!], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], kernel: [3, 3] })]);
  const after = expectSame(graph, splitWeightGradients, inputs, 1e-5);
  expect(after.ops.map((o) => o.attrs['parts'] ?? o.name)).toEqual([6, 'reduceSum']);
});

test('weight gradients of 3x3 convolutions are computed by Winograd where their sums fit it', () => {
  const algorithmOf = (x: readonly number[], out: number, attrs: { strides: number[]; kernel: number[] }): unknown => {
    const pads = [1, 1, 1, 1];
    const y = opDef('conv').infer([tensorType('f32', x), tensorType('f32', [out, x[1]!, ...attrs.kernel])], { strides: attrs.strides, pads, dilations: [1, 1], groups: 1 }, [])[0]!;
    const inputs = { x: random(x, 1), dy: random(y.shape, 2) };
    const graph = graphOf(inputs, (b, [v, dy]) => [b.one('convWeight', [v!, dy!], { ...attrs, pads, dilations: [1, 1], parts: 2 })]);
    return selectAlgorithms(graph, wasmTarget).ops.find((op) => op.name === 'convWeight')!.attrs['algorithm'];
  };
  expect(algorithmOf([8, 16, 16, 16], 16, { strides: [1, 1], kernel: [3, 3] })).toBe('winograd4');
  expect(algorithmOf([8, 16, 16, 16], 16, { strides: [2, 2], kernel: [3, 3] })).toBe('direct');
  expect(algorithmOf([8, 16, 16, 16], 16, { strides: [1, 1], kernel: [2, 3] })).toBe('direct');
  expect(algorithmOf([8, 3, 16, 16], 16, { strides: [1, 1], kernel: [3, 3] })).toBe('direct');
});

test('sums and moments over samples and pixels run sample by sample first', () => {
  const inputs = { x: random([8, 3, 60, 50], 5) };
  const graph = graphOf(inputs, (b, [x]) => [b.one('reduceSum', [x!], { axes: [0, 2, 3] }), ...b.op('moments', [b.add(x!, 3)], { axes: [0, 2, 3] })]);
  expectSame(graph, splitReductions, inputs, 1e-4);
});

describe('state in place', () => {
  const state = (seed: number): Tensor => random([3, 4], seed);
  const copies = (g: Graph): number => plan(g, wasmTarget).entries[0]!.steps.filter((s) => s.kind === 'kernel' && s.op.name === 'copy').length;
  /** Runs the plan, and reads the state where the plan has it. */
  const after = (g: Graph): number[][] => {
    const program = plan(g, wasmTarget);
    const outputs = g.state.map((s) => ({ name: s.name, value: s.value }));
    return [...runProgram({ ...program, graph: { ...program.graph, inputs: [], outputs } }, {}).values()].map((t) => Array.from(t.data as Float32Array));
  };
  const expected = (g: Graph): number[][] => {
    const result = evaluate(g, {}).state;
    return g.state.map((s) => Array.from(result.get(s.value)!.data as Float32Array));
  };

  test('a momentum step copies nothing, though the weight is read again after its gradient', () => {
    const b = new Builder('g');
    const [w, m] = [b.state('w', state(1), state(1)), b.state('m', state(2), state(2))];
    const gradient = b.mul(w, w);
    const next = b.add(b.mul(m, 0.9), gradient);
    const moved = b.sub(w, b.mul(next, 0.1));
    b.update(m, next);
    b.update(w, moved);
    const g = b.finish([{ name: 'norm', value: b.reduce('reduceSum', b.mul(w, 2), [0, 1]) }]);
    expect(copies(g)).toBe(0);
    expect(after(g)).toEqual(expected(g));
  });

  test('a momentum step of a weight that is read reshaped copies nothing', () => {
    const b = new Builder('g');
    const [w, m] = [b.state('w', state(1), state(1)), b.state('m', state(2), state(2))];
    const row = b.reshape(w, [12]);
    const next = b.add(b.mul(b.reshape(m, [12]), 0.9), b.mul(row, row));
    b.update(w, b.reshape(b.sub(row, b.mul(next, 0.1)), [3, 4]));
    b.update(m, b.reshape(next, [3, 4]));
    const g = b.finish([{ name: 'norm', value: b.reduce('reduceSum', b.mul(row, b.reshape(w, [12])), [0]) }]);
    expect(copies(g)).toBe(0);
    expect(after(g)).toEqual(expected(g));
  });

  test('a new value that reads its state’s elements in another order is not written over it', () => {
    const b = new Builder('g');
    const p = b.state('p', random([4, 4], 3), random([4, 4], 3));
    const rows = b.reshape(p, [16]);
    b.update(p, b.reshape(b.add(rows, b.reshape(b.transpose(p, [1, 0]), [16])), [4, 4]));
    const g = b.finish([]);
    expect(after(g)).toEqual(expected(g));
  });

  test('states that take each other’s values are saved first', () => {
    const b = new Builder('g');
    const [p, q] = [b.state('p', state(1), state(1)), b.state('q', state(2), state(2))];
    b.update(p, q);
    b.update(q, b.add(p, 1));
    const g = b.finish([]);
    expect(after(g)).toEqual(expected(g));
  });

  test('two states that are computed from each other’s old values', () => {
    const b = new Builder('g');
    const [p, q] = [b.state('p', state(1), state(1)), b.state('q', state(2), state(2))];
    b.update(p, b.unary('exp', b.mul(q, p)));
    b.update(q, b.unary('sin', b.sub(p, q)));
    const g = b.finish([]);
    expect(after(g)).toEqual(expected(g));
  });

  test('a value that reads its state transposed is not written over it', () => {
    const square = random([4, 4], 3);
    const b = new Builder('g');
    const p = b.state('p', square, square);
    b.update(p, b.add(p, b.transpose(p, [1, 0])));
    const g = b.finish([]);
    // The interpreter reads all of its operands first, and would not see the difference.
    expect(copies(g)).toBe(1);
    expect(after(g)).toEqual(expected(g));
  });
});
