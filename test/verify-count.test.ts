import { describe, expect, it } from 'vitest';
import { bytesMovedBy, countGraph, multiplyAddsOf } from '../ir/count.ts';
import { parseGraph } from '../ir/parse.ts';


describe('counts', () => {
  it.each([
    // ResNet's first layer: 112 x 112 positions, 64 filters of 3 x 7 x 7.
    ['conv', 'graph @g(%x: f32[1,3,224,224], %w: f32[64,3,7,7]) { %0 = conv %x, %w {strides=[2,2], pads=[3,3,3,3], dilations=[1,1], groups=1} : f32[1,64,112,112] return %0 }', 112 * 112 * 64 * 147],
    ['depthwise conv', 'graph @g(%x: f32[2,8,6,6], %w: f32[8,1,3,3]) { %0 = conv %x, %w {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=8} : f32[2,8,6,6] return %0 }', 2 * 36 * 8 * 9],
    ['matrix product', 'graph @g(%x: f32[5,3,4], %w: f32[4,7]) { %0 = contract %x, %w {spec="bmk,kn->bmn"} : f32[5,3,7] return %0 }', 5 * 3 * 4 * 7],
    ['sum', 'graph @g(%x: f32[5,3]) { %0 = reduceSum %x {axes=[0]} : f32[3] return %0 }', 0],
    [
      'loop body, once a trip',
      `graph @g(%x: f32[3], %w: f32[3,3]) { %n = constant {value=i64[](4)} : i64[] %t = constant {value=bool[](1)} : bool[]
         %0 = loop %n, %t, %x, %w {trips=4, carried=1, scans=0} (%i: i64[], %c: f32[3], %a: f32[3,3]) {
           %go = constant {value=bool[](1)} : bool[] %1 = contract %c, %a {spec="k,kn->n"} : f32[3] return %go, %1 } : f32[3] return %0 }`,
      4 * 9,
    ],
  ])('multiply-adds of a %s', (_, text, expected) => {
    expect(countGraph(parseGraph(text)).multiplyAdds).toBe(expected);
  });

  it('counts parameters, and activations that depend on an input', () => {
    const graph = parseGraph('graph @g(%x: f32[2,3]) state(%w: f32[3] = "w" (1, 2, 3), %m: i64[] = "m" zero) { %0 = neg %w : f32[3] %1 = mul %x, %0 : f32[2,3] return %1 }');
    expect(countGraph(graph)).toEqual({ multiplyAdds: 0, parameters: 4, parameterBytes: 20, activations: 6, activationBytes: 24 });
    expect(bytesMovedBy(graph.ops[1]!)).toBe(24 + 12 + 24);
    expect(multiplyAddsOf(graph.ops[1]!)).toBe(0);
  });
});
