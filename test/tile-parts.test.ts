/** Regions of a graph computed part by part give what the whole gives, in less memory. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import type { Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { delayed } from '../passes/tile/order.ts';
import { inParts } from '../passes/tile/parts/in-parts.ts';
import { regionOf } from '../passes/tile/parts/region.ts';
import { samplesInParts } from '../passes/tile/parts/narrow.ts';
import { difference } from './ir/tensors.ts';
import { planned, runPlan, tensorOf } from './tiles-harness.ts';

const inputsOf = (graph: Graph): Record<string, Tensor> => Object.fromEntries(graph.inputs.map((v, k) => [v.name!, tensorOf(v.type, (i) => (v.type.dtype === 'i64' ? (i * 3 + k) % 4 : Math.sin(i * 1.7 + k)))]));

interface Case { readonly text: string; readonly value: string; readonly axis: number; readonly parts: number; /** Ops in parts. */ readonly cut: number }
const cases: Readonly<Record<string, Case>> = {
  'samples, with sums over them': {
    text: 'graph @g(%x: f32[6,8], %d: f32[6,5]) state(%w: f32[5,8] = "w" zero) { %g = contract %x, %d {spec="bi,bo->oi"} : f32[5,8] %n = sub %w, %g : f32[5,8] %b = reduceSum %d {axes=[0]} : f32[5] return "b" = %b, "g" = %g, state(%w = %n) }',
    value: 'x', axis: 0, parts: 6, cut: 2,
  },
  'samples, with moments over them and what needs these': {
    text: 'graph @g(%x: f32[6,4,3]) { %m, %s = moments %x {axes=[0,2]} : f32[4], f32[4] %k = reshape %m {shape=[1,4,1]} : f32[1,4,1] %y = sub %x, %k : f32[6,4,3] %z = reduceMax %y {axes=[0]} : f32[4,3] return "z" = %z, "s" = %s, "y" = %y }',
    value: 'x', axis: 0, parts: 3, cut: 3,
  },
  'channels of a convolution that a pool and a product read': {
    text: 'graph @g(%x: f32[1,3,8,8], %w: f32[16,3,3,3], %v: f32[4,16,1,1]) { %c = conv %x, %w {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[1,16,8,8] %r = relu %c : f32[1,16,8,8] %p, %i = maxPool %r {kernel=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1]} : f32[1,16,4,4], i32[1,16,4,4] %y = conv %p, %v {strides=[1,1], pads=[0,0,0,0], dilations=[1,1], groups=1} : f32[1,4,4,4] return "y" = %y }',
    value: 'c', axis: 1, parts: 4, cut: 4,
  },
  'groups of a convolution': {
    text: 'graph @g(%x: f32[2,8,5,5], %w: f32[8,1,3,3]) { %e = exp %x : f32[2,8,5,5] %c = conv %e, %w {strides=[2,2], pads=[1,1,1,1], dilations=[1,1], groups=8} : f32[2,8,3,3] %s = reduceSum %c {axes=[2,3]} : f32[2,8] return "s" = %s }',
    value: 'e', axis: 1, parts: 8, cut: 3,
  },
  'axes that a reshape merges, cut by the outer one': {
    text: 'graph @g(%x: f32[4,6,2]) { %a = reshape %x {shape=[4,2,6]} : f32[4,2,6] %b = reshape %a {shape=[8,6]} : f32[8,6] %c = transpose %b {perm=[1,0]} : f32[6,8] return "c" = %c }',
    value: 'x', axis: 0, parts: 4, cut: 3,
  },
  'operands of a concat, one a part': {
    text: 'graph @g(%x: f32[1,3,6,6], %u: f32[4,3,1,1], %w: f32[4,3,3,3], %v: f32[5,8,1,1]) { %a = conv %x, %u {strides=[1,1], pads=[0,0,0,0], dilations=[1,1], groups=1} : f32[1,4,6,6] %b = conv %x, %w {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[1,4,6,6] %c = concat %a, %b {axis=1} : f32[1,8,6,6] %r = relu %c : f32[1,8,6,6] %y = conv %r, %v {strides=[1,1], pads=[0,0,0,0], dilations=[1,1], groups=1} : f32[1,5,6,6] return "y" = %y }',
    value: 'c', axis: 1, parts: 2, cut: 3,
  },
  'lines that data scatters along': {
    text: 'graph @g(%x: f32[6,4], %i: i64[6,1], %u: f32[6,1]) { %y = scatterElements %x, %i, %u {axis=1, reduction="add"} : f32[6,4] %s = reduceSum %y {axes=[1]} : f32[6] return "s" = %s }',
    value: 'x', axis: 0, parts: 2, cut: 2,
  },
};

const valueOf = (graph: Graph, name: string): Graph['inputs'][number] => [...graph.inputs, ...graph.ops.flatMap((o) => o.results)].find((v) => v.name === name)!;

describe('a region in parts', () => {
  it.each(['none', 'light', 'all'] as const)('that needs moments over its parts keeps, or computes again, what comes before: %s', (again) => {
    const { text } = cases['samples, with moments over them and what needs these']!;
    const graph = parseGraph(text.replace('%m, %s = moments %x', '%e = exp %x : f32[6,4,3] %t = reduceSum %e {axes=[2]} : f32[6,4] %q = reshape %t {shape=[6,4,1]} : f32[6,4,1] %f = mul %e, %q : f32[6,4,3] %m, %s = moments %f').replace('sub %x', 'sub %f'));
    const made = inParts(graph, regionOf(graph, { value: graph.inputs[0]!, axis: 0, parts: 3 }), { again });
    verify(made);
    const count = (name: string): number => made.ops.filter((o) => o.name === name).length;
    expect([count('exp'), count('reduceSum')]).toEqual({ none: [3, 3], light: [6, 3], all: [6, 6] }[again]);
    const [want, found] = [evaluate(graph, inputsOf(graph)), evaluate(made, inputsOf(graph))];
    for (const [name, tensor] of want.outputs) expect(difference(found.outputs.get(name)!, tensor, 1e-4, 1e-4)).toBeUndefined();
  });

  it('adds contributions where their sum lies', () => {
    const graph = parseGraph('graph @g(%x: f32[4,16], %d: f32[4,32]) { %g = contract %x, %d {spec="bi,bo->oi"} : f32[32,16] return "g" = %g }');
    const t = planned(inParts(graph, regionOf(graph, { value: graph.inputs[0]!, axis: 0, parts: 4 })), 1);
    const sums = t.planned.plan.buffers.filter((b) => b.shape.join() === '32,16' && b.viewOf === undefined);
    expect(sums.length).toBe(1);
    expect(difference(runPlan(t, t.planned.plan, inputsOf(graph)).outputs.get('g')!, evaluate(graph, inputsOf(graph)).outputs.get('g')!, 1e-5, 1e-5)).toBeUndefined();
  });

  it.each(Object.entries(cases))('%s', (_, { text, value, axis, parts, cut }) => {
    const graph = parseGraph(text);
    const region = regionOf(graph, { value: valueOf(graph, value), axis, parts });
    expect(region.cuts.size).toBe(cut);
    const made = inParts(graph, region);
    verify(made);
    const want = evaluate(graph, inputsOf(graph));
    const found = evaluate(made, inputsOf(graph));
    for (const [name, tensor] of want.outputs) expect(difference(found.outputs.get(name)!, tensor, 1e-5, 1e-5)).toBeUndefined();
    for (const [v, tensor] of want.state) expect(difference(found.state.get(v)!, tensor, 1e-5, 1e-5)).toBeUndefined();
  });

  it('never joins what is made in parts', () => {
    const graph = parseGraph(cases['operands of a concat, one a part']!.text);
    const made = inParts(graph, regionOf(graph, { value: valueOf(graph, 'c'), axis: 1, parts: 2 }));
    expect(made.ops.filter((o) => o.name === 'concat')).toEqual([]);
  });

  it('ends at ops that see a whole axis', () => {
    const graph = parseGraph('graph @g(%x: f32[4,6]) { %a = exp %x : f32[4,6] %v, %i = topK %a {axis=0, k=2, largest=true, sorted=true} : f32[2,6], i64[2,6] return "v" = %v, "i" = %i }');
    const region = regionOf(graph, { value: graph.inputs[0]!, axis: 0, parts: 2 });
    expect([...region.cuts.keys()].map((o) => o.name)).toEqual(['exp']);
    const [want, found] = [evaluate(graph, inputsOf(graph)), evaluate(inParts(graph, region), inputsOf(graph))];
    expect(found.outputs.get('v')).toEqual(want.outputs.get('v'));
  });

  it.each([
    ['along a window that slides', 'graph @g(%x: f32[1,2,8,8], %w: f32[4,2,2,2]) { %c = conv %x, %w {strides=[1,1], pads=[0,0,1,1], dilations=[1,1], groups=1} : f32[1,4,8,8] return "c" = %c }', 2],
    ['along lines that data scatters along', 'graph @g(%x: f32[6,4], %i: i64[6,4], %u: f32[6,4]) { %y = scatterElements %x, %i, %u {axis=1, reduction="add"} : f32[6,4] return "y" = %y }', 1],
  ])('does not go %s', (_, text, axis) => {
    const graph = parseGraph(text);
    expect(regionOf(graph, { value: graph.inputs[0]!, axis, parts: 2 }).cuts.size).toBe(0);
  });

  it('keeps fewer values at a time, and tiles run it', () => {
    const graph = parseGraph('graph @g(%x: f32[8,16], %w: f32[16,256], %v: f32[256,4]) { %a = contract %x, %w {spec="mk,kn->mn"} : f32[8,256] %b = relu %a : f32[8,256] %y = contract %b, %v {spec="mk,kn->mn"} : f32[8,4] return "y" = %y }');
    const parts = samplesInParts(graph)!;
    const [whole, cut] = [planned(graph, 1), planned(parts, 1)];
    // 8 KiB of a value in between become 1 KiB.
    expect(whole.planned.plan.memory.peak - cut.planned.plan.memory.peak).toBeGreaterThan(7 * 256 * 4 - 1024);
    const found = runPlan(cut, cut.planned.plan, inputsOf(graph));
    expect(difference(found.outputs.get('y')!, evaluate(graph, inputsOf(graph)).outputs.get('y')!, 1e-5, 1e-5)).toBeUndefined();
  });
});

describe('the order of ops', () => {
  it('puts what follows from constants, and grows, right before its first reader', () => {
    const graph = parseGraph('graph @g(%x: f32[8]) { %c = constant {value=i8[2](1, 2)} : i8[2] %d = cast %c {to="f32", saturate=false} : f32[2] %a = exp %x : f32[8] %s = reduceSum %a {axes=[0]} : f32[] %y = mul %d, %s : f32[2] return "y" = %y }');
    expect(delayed(graph).ops.map((o) => o.name)).toEqual(['constant', 'exp', 'reduceSum', 'cast', 'mul']);
  });

  it('leaves in place what frees more than it makes, and what reads state that changes', () => {
    const graph = parseGraph('graph @g(%x: f32[8]) state(%w: f32[1] = "w" zero) { %e = exp %x : f32[8] %s = reduceSum %e {axes=[0]} : f32[] %b = broadcast %w {shape=[8]} : f32[8] %n = add %w, %s : f32[1] %m = mul %b, %s : f32[8] return "m" = %m, state(%w = %n) }');
    expect(delayed(graph).ops.map((o) => o.name)).toEqual(graph.ops.map((o) => o.name));
  });
});
