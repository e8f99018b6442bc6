/** Ops whose slices are too large for a tile are split in time; the tile simulator and the checker of plans judge them. */
import { describe, expect, it } from 'vitest';
import { evaluate } from '../ir/evaluate.ts';
import { parseGraph } from '../ir/parse.ts';
import type { Graph } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { countOf, run, type Spread } from '../ir/tiles.ts';
import { overTime } from '../passes/tile/serial.ts';
import { difference } from './ir/tensors.ts';
import { planned, runPlan, tensorOf } from './tiles-harness.ts';

const inputsOf = (graph: Graph): Record<string, Tensor> => Object.fromEntries(graph.inputs.map((v, k) => [v.name!, tensorOf(v.type, (i) => Math.sin(i * 1.7 + k))]));

const cases: Readonly<Record<string, string>> = {
  'a product': 'graph @g(%x: f32[32,64], %w: f32[64,128]) { %y = contract %x, %w {spec="mk,kn->mn"} : f32[32,128] %z = relu %y : f32[32,128] return "z" = %z }',
  'a product whose sum is divided over tiles': 'graph @g(%x: f32[64,2048], %w: f32[2048,64]) { %y = contract %x, %w {spec="mk,kn->mn"} : f32[64,64] %z = relu %y : f32[64,64] return "z" = %z }',
  'a convolution': 'graph @g(%x: f32[4,32,8,8], %w: f32[256,32,3,3]) { %y = conv %x, %w {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[4,256,8,8] %z = relu %y : f32[4,256,8,8] return "z" = %z, "y" = %y }',
  'a weight gradient': 'graph @g(%x: f32[16,32,8,8], %d: f32[16,64,8,8]) { %y = convWeight %x, %d {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1, kernel=[3,3]} : f32[64,32,3,3] %z = relu %y : f32[64,32,3,3] return "z" = %z }',
  'a data gradient of stride 2': 'graph @g(%d: f32[2,64,4,4], %w: f32[64,32,1,1]) { %y = convData %d, %w {size=[8,8], strides=[2,2], pads=[0,0,0,0], dilations=[1,1], groups=1} : f32[2,32,8,8] %z = relu %y : f32[2,32,8,8] return "z" = %z }',
};

/** The plan with the tightest bound, of those tried, under which an op repeats. */
function repeating(graph: Graph, tiles: number): ReturnType<typeof planned> {
  for (let bound = 1 << 20; bound >= 512; bound = Math.floor(bound * 0.85)) {
    const t = planned(graph, tiles, bound);
    if (t.planned.plan.steps.some((s) => s.kind === 'repeat')) return t;
  }
  throw new Error('no bound makes an op repeat');
}

describe('serial splits', { timeout: 60_000 }, () => {
  for (const [name, text] of Object.entries(cases)) {
    for (const tiles of /sum|^a convolution/.test(name) ? [16, 64] : [2, 4]) {
      it(`${name} on ${tiles} tiles gives what the interpreter gives`, () => {
        const graph = parseGraph(text);
        const t = repeating(graph, tiles);
        const found = runPlan(t, t.planned.plan, inputsOf(graph));
        for (const [output, want] of evaluate(graph, inputsOf(graph)).outputs) expect(difference(found.outputs.get(output)!, want, 1e-4, 1e-4)).toBeUndefined();
      });
    }
  }

  it('merge contributions within each part', () => {
    const body = repeating(parseGraph(cases['a product whose sum is divided over tiles']!), 16).planned.plan.steps.find((s) => s.kind === 'repeat')!;
    expect(body.kind === 'repeat' && body.body.map((s) => (s.kind === 'compute' ? s.part : s.kind))).toEqual(['exchange', 'contribute', 'exchange', 'merge']);
  });

  it('hold less than the op at once', () => {
    const graph = parseGraph(cases['a product']!);
    const most = (p: ReturnType<typeof planned>): number => Math.max(...p.planned.plan.buffers.filter((b) => b.kind === 'gather').map((b) => b.bytes));
    expect(most(repeating(graph, 4))).toBeLessThan(most(planned(graph, 4)));
  });

  it('leave each element of the result on a tile, all parts together', () => {
    const timed: Spread = { base: 0, dims: [{ name: 'o', parts: 2, stride: 1 }, { name: 'o in time', parts: 2, stride: 0, time: true }], axes: [{ by: [0, 1], combs: [run(0, 2), run(4, 2), run(8, 2), run(12, 2)] }] };
    const all = overTime(timed)!;
    expect(all.dims).toEqual([{ name: 'o', parts: 2, stride: 1 }]);
    expect(all.axes[0]!.combs.map((c) => [c.base, countOf(c)])).toEqual([[0, 4], [8, 4]]);
    // 0 to 1 and 5: no comb.
    expect(overTime({ ...timed, axes: [{ by: [0, 1], combs: [run(0, 2), run(5, 1), run(8, 2), run(12, 2)] }] })).toBeUndefined();
  });
});
