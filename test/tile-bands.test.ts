/** Chains of windows computed in bands give what the whole gives, and hold less at a time. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { chainAt, inBands } from '../passes/tile/parts/bands.ts';
import { difference } from './ir/tensors.ts';
import { planned, runPlan, tensorOf } from './tiles-harness.ts';

const inputsOf = (graph: Graph): Record<string, Tensor> => Object.fromEntries(graph.inputs.map((v, k) => [v.name!, tensorOf(v.type, (i) => Math.sin(i * 1.7 + k))]));
const valueOf = (graph: Graph, name: string): Value => graph.ops.flatMap((o) => o.results).find((v) => v.name === name)!;
const plainConv = '{strides=[1,1], pads=[0,0,0,0], dilations=[1,1], groups=1}';

/** A strided convolution, a bias, a depthwise one that reaches out of its image on one side more than on the other, a dilated one and a pool. */
const chain = `%c = conv %x, %w {strides=[2,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[1,4,13,17]
  %a = add %c, %b : f32[1,4,13,17]
  %r = relu %a : f32[1,4,13,17]
  %d = conv %r, %v {strides=[1,1], pads=[2,1,0,1], dilations=[1,1], groups=4} : f32[1,4,13,17]
  %e = conv %d, %u {strides=[1,2], pads=[2,0,2,0], dilations=[2,1], groups=1} : f32[1,2,13,8]
  %p, %i = maxPool %e {kernel=[3,2], strides=[2,1], pads=[1,0,1,0], dilations=[1,1]} : f32[1,2,7,7], i32[1,2,7,7]`;
const text = (end: string): string => `graph @g(%x: f32[1,3,26,17], %w: f32[4,3,4,3], %b: f32[1,4,1,1], %v: f32[4,1,3,3], %u: f32[2,4,3,3]) { ${chain} ${end} }`;

describe('a chain in bands', () => {
  const graph = parseGraph(text('return "p" = %p'));
  const want = evaluate(graph, inputsOf(graph)).outputs.get('p')!;

  it.each([[2, 2], [2, 3], [3, 2], [3, 3]] as const)('along axis %i, %i bands', (axis, bands) => {
    const ops = chainAt(graph, valueOf(graph, 'r'), axis);
    expect(ops.map((o) => o.name)).toEqual(['conv', 'add', 'relu', 'conv', 'conv', 'maxPool']);
    const made = inBands(graph, ops, axis, bands)!;
    verify(made);
    expect(made.ops.filter((o) => o.name === 'maxPool').length).toBe(bands);
    expect(difference(evaluate(made, inputsOf(graph)).outputs.get('p')!, want, 1e-6, 1e-6)).toBeUndefined();
  });

  it('holds less at a time, and tiles run it', () => {
    const wide = parseGraph(`graph @g(%x: f32[1,2,32,16], %w: f32[16,2,3,3], %v: f32[16,1,3,3]) { %c = conv %x, %w {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[1,16,32,16]
      %d = conv %c, %v {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=16} : f32[1,16,32,16] %p, %i = maxPool %d {kernel=[4,4], strides=[4,4], pads=[0,0,0,0], dilations=[1,1]} : f32[1,16,8,4], i32[1,16,8,4] return "p" = %p }`);
    const banded = inBands(wide, chainAt(wide, valueOf(wide, 'c'), 2), 2, 4)!;
    expect(planned(banded, 1).planned.plan.memory.peak).toBeLessThan(0.5 * planned(wide, 1).planned.plan.memory.peak);
    const expected = evaluate(wide, inputsOf(wide)).outputs.get('p')!;
    for (const tiles of [1, 4]) {
      const t = planned(banded, tiles);
      expect(difference(runPlan(t, t.planned.plan, inputsOf(wide)).outputs.get('p')!, expected, 1e-5, 1e-5)).toBeUndefined();
    }
  });

  it('cuts within the chain alone, from any op of it to any other', () => {
    const ops = chainAt(graph, valueOf(graph, 'c'), 2);
    for (let from = 0; from < ops.length; from++) {
      for (let to = from; to < ops.length; to++) {
        const made = inBands(graph, ops.slice(from, to + 1), 2, 2)!;
        verify(made);
        expect(difference(evaluate(made, inputsOf(graph)).outputs.get('p')!, want, 1e-6, 1e-6)).toBeUndefined();
      }
    }
  });

  it('does not need rows that no later op reads', () => {
    const g = parseGraph(`graph @g(%x: f32[1,2,16,4], %w: f32[2,2,1,1]) { %c = conv %x, %w ${plainConv} : f32[1,2,16,4] %r = relu %c : f32[1,2,16,4] return "r" = %r }`);
    const made = inBands(g, chainAt(g, valueOf(g, 'r'), 2), 2, 4)!;
    expect(made.ops.filter((o) => o.name === 'relu').map((o) => o.results[0]!.type.shape)).toEqual([[1, 2, 4, 4], [1, 2, 4, 4], [1, 2, 4, 4], [1, 2, 4, 4]]);
    expect(made.ops.filter((o) => o.name === 'conv').reduce((n, o) => n + sizeOf(o.results[0]!.type.shape), 0)).toBe(128);
  });

  it('is not cut where a band reads nothing but padding', () => {
    const g = parseGraph('graph @g(%x: f32[1,1,4,4], %w: f32[1,1,3,3]) { %c = conv %x, %w {strides=[1,1], pads=[1,1,9,1], dilations=[1,1], groups=1} : f32[1,1,12,4] %r = relu %c : f32[1,1,12,4] return "r" = %r }');
    const ops = chainAt(g, valueOf(g, 'r'), 2);
    expect(ops.map((o) => o.name)).toEqual(['conv', 'relu']);
    expect(inBands(g, ops, 2, 4)).toBeUndefined();
  });

  it('ends where a value has other readers, where positions are read, and where an axis is summed', () => {
    const twice = parseGraph(text('%n = neg %d : f32[1,4,13,17] return "p" = %p, "n" = %n'));
    expect(chainAt(twice, valueOf(twice, 'c'), 2).map((o) => o.results[0]!.name)).toEqual(['c', 'a', 'r', 'd']);
    const positions = parseGraph(text('return "p" = %p, "i" = %i'));
    expect(chainAt(positions, valueOf(positions, 'c'), 2).map((o) => o.results[0]!.name)).toEqual(['c', 'a', 'r', 'd', 'e']);
    const summed = parseGraph(text('%s = reduceSum %p {axes=[2]} : f32[1,2,7] return "s" = %s'));
    expect(chainAt(summed, valueOf(summed, 's'), 2)).toEqual([]);
    expect(chainAt(summed, valueOf(summed, 'c'), 2).at(-1)!.name).toBe('maxPool');
    // Channels are no rows: a convolution sums over them.
    expect(chainAt(graph, valueOf(graph, 'c'), 1)).toEqual([]);
  });
});
