import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { verify, VerifyError } from '../ir/verify.ts';

/** Lines 2.. of a graph over %x, %y: f32[2,3] and %b: bool[2,3]. */
const graph = (...lines: string[]): Graph => parseGraph(`graph @g(%x: f32[2,3], %y: f32[2,3], %b: bool[2,3]) state(%s: f32[3] = "s" zero) {\n${lines.join('\n')}\n}`);

function problem(g: Graph): string | undefined {
  try {
    verify(g);
    return undefined;
  } catch (e) {
    if (e instanceof VerifyError) return e.message.split('\n')[0];
    throw e;
  }
}

describe('the verifier', () => {
  it('accepts a graph in order', () => {
    expect(problem(graph('%0 = add %x, %y : f32[2,3]', '%1 = reduceSum %0 {axes=[0]} : f32[3]', 'return "o" = %0, state(%s = %1)'))).toBeUndefined();
  });

  it.each([
    ['a type that is not what the op gives', ['%0 = neg %x : f32[2,3]', '%1 = reduceSum %0 {axes=[0]} : f32[2]', 'return %1'], 'line 3: result 0 is f32[3], not f32[2]'],
    ['operands that do not fit', ['%0 = add %x, %b : f32[2,3]', 'return %0'], /^line 2: add: .*f32\[2,3\].*bool\[2,3\]/],
    ['too many operands', ['%0 = neg %x, %y : f32[2,3]', 'return %0'], 'line 2: neg takes 1 operands, 2 given'],
    ['an update of another type', ['return %x, state(%s = %x)'], 'line 2: %s is f32[3], its new value %x is f32[2,3]'],
    ['two updates of one state', ['return %x, state(%s = %s, %s = %s)'], 'line 2: %s is updated twice'],
    ['an update of what is not state', ['return %x, state(%x = %y)'], 'line 2: %x is updated but is not state'],
    ['two outputs of one name', ['return "a" = %x, "a" = %y'], 'line 2: there are two outputs a'],
    ['an error inside a region', ['%0 = fused %x {kind="map"} (%p: f32[2,3]) {', '%1 = neg %p : f32[3]', 'return %1 } : f32[3]', 'return %0'], 'line 3: result 0 is f32[2,3], not f32[3]'],
    ['a fused map that is none', ['%0 = fused %x {kind="map"} (%p: f32[2,3]) {', '%1 = transpose %p {perm=[1,0]} : f32[3,2]', 'return %1 } : f32[3,2]', 'return %0'], 'line 2: transpose is not elementwise'],
    ['a fusion with two roots', ['%0 = fused %x {kind="reduce"} (%p: f32[2,3]) {', '%1 = reduceSum %p {axes=[1]} : f32[2]', '%2 = reduceMax %p {axes=[1]} : f32[2]', '%3 = add %1, %2 : f32[2]', 'return %3 } : f32[2]', 'return %0'],
      'line 2: one root expected, 2 found'],
    ['rows that come back at the wrong axis', ['%0 = fused %x {kind="row"} (%p: f32[2,3]) {', '%1 = reduceSum %p {axes=[0]} : f32[3]', '%2 = reshape %1 {shape=[3,1]} : f32[3,1]', '%3 = mul %2, %2 : f32[3,1]', 'return %3 } : f32[3,1]', 'return %0'],
      'line 2: a reshape in a row fusion puts the reduced axes back as 1s'],
  ])('rejects %s at its line', (_, lines, message) => {
    expect(problem(graph(...lines))).toMatch(message);
  });

  const x: Value = { type: { dtype: 'f32', shape: [2] }, name: 'x' };
  const built = (ops: Op[], outputs: Value[]): Graph => ({ name: 'g', inputs: [x], state: [], ops, outputs: outputs.map((value) => ({ name: '', value })), updates: [] });
  const neg = (from: Value, to: Value, attrs: Op['attrs'] = {}): Op => ({ name: 'neg', operands: [from], attrs, results: [to], regions: [], source: [] });
  const a: Value = { type: x.type, name: 'a' };
  const b: Value = { type: x.type, name: 'b' };

  it.each([
    ['a use before the definition', built([neg(b, a), neg(x, b)], [a]), 'line 2: %b is used before it is defined'],
    ['a second definition', built([neg(x, a), neg(x, a)], [a]), 'line 3: %a is defined twice'],
    ['an output that nothing defines', built([neg(x, a)], [b]), 'line 3: %b is returned but never defined'],
    ['an attribute that the op does not have', built([neg(x, a, { speed: 1 })], [a]), 'line 2: neg has no attribute speed'],
    ['a missing attribute', built([{ ...neg(x, a), name: 'transpose' }], [a]), 'line 2: transpose needs the attribute perm'],
    ['an attribute of the wrong kind', built([{ ...neg(x, a), name: 'transpose', attrs: { perm: 'x' } }], [a]), 'line 2: attribute perm must be a numbers'],
    ['a state whose tensor has another shape', { ...built([], [x]), state: [{ value: a, name: 'a', init: { dtype: 'f32', shape: [3], data: new Float32Array(3) } }] } satisfies Graph, 'line 1: %a: its tensor is f32[3], not f32[2]'],
  ])('rejects %s', (_, g, message) => {
    expect(problem(g)).toBe(message);
  });

  it('rejects a region that reads a value from outside', () => {
    const region = new Builder('');
    const p = region.input(x.type, 'p');
    const inner = { ...region.finish([{ name: '', value: p }]), ops: [neg(x, b)] };
    const op: Op = { name: 'fused', operands: [x], attrs: { kind: 'map' }, results: [a], regions: [inner], source: [] };
    expect(problem(built([op], [a]))).toBe('line 3: %x is used before it is defined');
  });
});
