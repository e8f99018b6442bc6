import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { ParseError, parseGraph } from '../ir/parse.ts';
import { graphText, printGraph } from '../ir/text.ts';
import { dtypes, type DType, type Tensor } from '../ir/type.ts';
import { generator } from '../ir/generator.ts';
import { randomTensor } from './ir/tensors.ts';

/** Numbers every value in order, so that two graphs with the same structure become deeply equal objects. */
function structure(graph: Graph, sources = true): unknown {
  const ids = new Map<Value, number>();
  const id = (v: Value): unknown => [ids.get(v) ?? (ids.set(v, ids.size), ids.size - 1), v.name, v.type];
  const op = (o: Op): unknown => [o.name, o.operands.map(id), o.attrs, o.regions.map(walk), o.results.map(id), sources ? o.source : []];
  const walk = (g: Graph): unknown => [
    g.name, g.inputs.map(id), g.state.map((s) => [id(s.value), s.name, s.init]), g.ops.map(op), g.outputs.map((o) => [o.name, id(o.value)]), g.updates.map((u) => [id(u.state), id(u.value)]),
  ];
  return walk(graph);
}

function roundTrip(graph: Graph): void {
  const printed = printGraph(graph, { locations: true });
  const parsed = parseGraph(printed.text, printed.tensors);
  expect(structure(parsed)).toEqual(structure(graph));
  expect(graphText(parsed, { locations: true })).toBe(printed.text);
}

const tensor = (dtype: DType, shape: readonly number[], ...elements: (number | bigint)[]): Tensor => {
  const data = new dtypes[dtype].array(elements.length);
  elements.forEach((x, i) => ((data as unknown as (number | bigint)[])[i] = x));
  return { dtype, shape, data };
};

describe('the text form', () => {
  it('prints one op a line, types, attributes in order, and names kept from the model', () => {
    const b = new Builder('main');
    const x = b.input({ dtype: 'f32', shape: [1, 1, 4, 4] }, 'x');
    const w = b.state('conv.weight', { dtype: 'f32', shape: [2, 1, 3, 3] }, { dtype: 'f32', shape: [2, 1, 3, 3], data: new Float32Array(18) });
    const c = b.one('conv', [x, w], { groups: 1, dilations: [1, 1], pads: [1, 1, 1, 1], strides: [1, 1] });
    const y = b.unary('relu', c);
    b.source = ['Add(a)'];
    expect(graphText(b.finish([{ name: 'out', value: b.one('add', [y, b.scalar(0.1, 'f32')], {}, 'sum') }]), { locations: true })).toBe(
      [
        'graph @main(%x: f32[1,1,4,4]) state(%conv.weight: f32[2,1,3,3] = "conv.weight") {',
        '  %0 = conv %x, %conv.weight {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[1,2,4,4]',
        '  %1 = relu %0 : f32[1,2,4,4]',
        '  %2 = constant {value=f32[](0.1)} : f32[] // from "Add(a)"',
        '  %sum = add %1, %2 : f32[1,2,4,4] // from "Add(a)"',
        '  return "out" = %sum',
        '}',
        '',
      ].join('\n'),
    );
  });

  it('reads back what it prints: odd names, equal names, several results, state, updates, regions', () => {
    const b = new Builder('odd name');
    const x = b.input({ dtype: 'f32', shape: [2, 3] }, 'x y"z\\');
    const again = b.input({ dtype: 'f32', shape: [2, 3] }, 'x y"z\\');
    const digits = b.input({ dtype: 'bool', shape: [] }, '123');
    const m = b.state('m', { dtype: 'f32', shape: [3] }, 'zero');
    const s = b.state('c0', { dtype: 'f32', shape: [3] }, tensor('f32', [3], 1, -0, 2.5));
    const big = b.constant(randomTensor({ dtype: 'f32', shape: [5, 5] }, generator(1)));
    b.source = ['Sin(/a/b)', 'Über "c"'];
    const [mean, m2] = b.op('moments', [b.add(x, again)], { axes: [0] }, [], ['mean', undefined]) as [Value, Value];
    const branch = (op: string): Graph => {
      const r = new Builder(op === 'neg' ? 'then' : '');
      const a = r.input({ dtype: 'f32', shape: [3] }, 'mean');
      return r.finish([{ name: op === 'neg' ? 'r' : '', value: r.unary(op, r.unary('exp', a)) }]);
    };
    const [chosen] = b.op('if', [digits, mean], {}, [branch('neg'), branch('abs')], ['/out/0']) as [Value];
    b.update(m, b.add(chosen, m2));
    b.update(s, chosen);
    roundTrip(b.finish([{ name: '1', value: chosen }, { name: 'same', value: chosen }, { name: 'big', value: b.reduce('reduceSum', big, [0]) }]));
  });

  it('reads back constants of every element type bit by bit', () => {
    const random = generator(2);
    const b = new Builder('constants');
    const values: Value[] = [];
    for (const [dtype, facts] of Object.entries(dtypes) as [DType, (typeof dtypes)[DType]][]) {
      if (facts.kind === 'float' && facts.bytes < 4) {
        // All bit patterns, sixteen at a time, NaN payloads included.
        const count = 2 ** facts.bits;
        for (let at = 0; at < count; at += Math.max(16, count / 16)) values.push(b.constant(tensor(dtype, [16], ...Array.from({ length: 16 }, (_, i) => (at + i) % count))));
      } else values.push(b.constant(randomTensor({ dtype, shape: [3, 5] }, random, true)));
    }
    values.push(b.constant(tensor('f32', [6], 0.1, 3.4028234663852886e38, 1.401298464324817e-45, -0, Infinity, NaN)));
    values.push(b.constant(tensor('i64', [2], 2n ** 63n - 1n, -(2n ** 63n))), b.constant(tensor('u64', [1], 2n ** 64n - 1n)), b.constant(tensor('f32', [0, 3])));
    roundTrip(b.finish(values.map((value, i) => ({ name: `o${i}`, value }))));
  });

  it('takes defaults for attributes that are left out, and tensors from a function', () => {
    const graph = parseGraph('graph @g(%x: f32[2,3]) state(%w: f32[2,3] = "w") { // a comment\n %0 = cast %x {to="f16"} : f16[2,3]\n return %0, %w }', (name, type) =>
      name === 'w' ? randomTensor(type, generator(1)) : undefined);
    expect(graph.ops[0]!.attrs).toEqual({ to: 'f16', saturate: false });
    expect(graph.state[0]!.init).toEqual(randomTensor({ dtype: 'f32', shape: [2, 3] }, generator(1)));
  });

  it.each([
    ['a missing definition', 'graph @g(%x: f32[]) {\n  %0 = neg %y : f32[]\n  return %0\n}', 'line 2: %y is not defined before its use'],
    ['a second definition', 'graph @g(%x: f32[]) {\n  %x = neg %x : f32[]\n  return %x\n}', 'line 2: %x is defined twice'],
    ['an unknown op', 'graph @g(%x: f32[]) {\n  %0 = frobnicate %x : f32[]\n  return %0\n}', 'line 2: there is no op frobnicate'],
    ['an unknown attribute', 'graph @g(%x: f32[]) {\n  %0 = neg %x {speed=1} : f32[]\n  return %0\n}', 'line 2: neg has no attribute speed'],
    ['a missing attribute', 'graph @g(%x: f32[]) {\n  %0 = transpose %x : f32[]\n  return %0\n}', 'line 2: transpose needs the attribute perm'],
    ['an attribute of another kind', 'graph @g(%x: f32[]) {\n  %0 = cast %x {to=3} : f32[]\n  return %0\n}', 'line 2: expected a string, found 3'],
    ['a bad type', 'graph @g(%x: f33[]) {\n  return %x\n}', 'line 1: expected a type, found f33'],
    ['a missing tensor', 'graph @g() state(%w: f32[2] = "w") {\n  return %w\n}', 'line 1: there is no tensor "w" beside the text'],
    ['too few elements', 'graph @g() {\n  %0 = constant {value=f32[3](1, 2)} : f32[3]\n  return %0\n}', 'line 2: 3 elements expected, 2 given'],
    ['too few types', 'graph @g(%x: f32[3]) {\n  %0, %1 = moments %x {axes=[0]} : f32[]\n  return %0\n}', 'line 2: 2 results but 1 types'],
    ['a stray character', 'graph @g(%x: f32[]) {\n  ?\n}', 'line 2: unexpected "?"'],
    ['an early end', 'graph @g(%x: f32[]) {\n  return %x', "line 2: expected '}', found the end of the text"],
  ])('names the line of %s', (_, text, message) => {
    expect(() => parseGraph(text)).toThrow(new ParseError(Number(/\d+/.exec(message)![0]), message.replace(/^line \d+: /, '')));
  });
});
