/** Layouts are chosen jointly along the graph: as good as trying everything, and at least as good as choosing op by op. */
import { describe, expect, it } from 'vitest';
import { readTarget } from '../cli/driver/target-file.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import type { Spread } from '../ir/tiles.ts';
import { signature } from '../passes/tile/divide.ts';
import { inheritedDivision, resultOf } from '../passes/tile/divisions.ts';
import { beamSearch } from '../passes/tile/layouts/beam.ts';
import { chooseLayouts } from '../passes/tile/layouts/choose-layouts.ts';
import { Program } from '../passes/tile/layouts/program.ts';
import { divisionTo, Wishes } from '../passes/tile/layouts/wishes.ts';
import { lower, type Lowered } from '../passes/tile/lower.ts';
import { placeBuffers } from '../passes/tile/memory.ts';
import { keyOf } from '../passes/tile/op-key.ts';
import { planTiles } from '../passes/tile/plan.ts';
import { cyclesOf, flatSteps, totalCycles } from '../passes/tile/report.ts';
import { withConstants, type TileTarget } from '../passes/tile/target.ts';
import { walkOf } from '../passes/tile/walk.ts';
import { difference } from './ir/tensors.ts';
import { planned, runPlan, tensorOf } from './tiles-harness.ts';

const mk2 = readTarget('mk2');
const product = (x: string, w: string, y: string, shape: string): string => `%${y} = contract %${x}, %${w} {spec="mk,kn->mn"} : f16[${shape}]`;
const graphs = {
  'two products': `graph @g(%x: f16[64,96], %v: f16[96,128], %w: f16[128,80]) { ${product('x', 'v', 'a', '64,128')} ${product('a', 'w', 'b', '64,80')} return "b" = %b }`,
  'a chain of products and maps': `graph @g(%x: f16[48,64], %v: f16[64,256], %w: f16[256,32]) { ${product('x', 'v', 'a', '48,256')} %b = exp %a : f16[48,256] ${product('b', 'w', 'c', '48,32')} %d = exp %c : f16[48,32] return "d" = %d }`,
  'a value with two readers': `graph @g(%x: f16[96,64], %v: f16[64,64], %w: f16[96,64]) { %a = exp %x : f16[96,64] ${product('a', 'v', 'b', '96,64')} %c = contract %a, %w {spec="km,kn->mn"} : f16[64,64] %d = reduceSum %a {axes=[0]} : f16[64] return "b" = %b, "c" = %c, "d" = %d }`,
  'sums across both axes': `graph @g(%x: f32[40,72]) { %a = exp %x : f32[40,72] %b = reduceSum %a {axes=[0]} : f32[72] %c = reduceSum %a {axes=[1]} : f32[40] %d = exp %b : f32[72] return "c" = %c, "d" = %d }`,
  'a reshape in between': `graph @g(%x: f16[32,48], %w: f16[48,64], %u: f16[16,24]) { ${product('x', 'w', 'a', '32,64')} %r = reshape %a {shape=[128,16]} : f16[128,16] ${product('r', 'u', 'b', '128,24')} %c = exp %b : f16[128,24] return "c" = %c }`,
};
const programOf = (graph: Graph, tiles: number, exchange: number, bound = 2 ** 20): Program => new Program(graph, withConstants(mk2, { tiles, exchange }), { bound, bounds: new Map(), serial: true });

/** The fewest cycles of all ways of running all ops, each combination of them tried. */
function exhaustive(program: Program): number {
  const { ops } = program.graph;
  const from = (index: number, homes: ReadonlyMap<Value, Spread>): number => {
    const op = ops[index];
    if (!op) return 0;
    const view = program.viewOf(index, homes);
    if (view) return from(index + 1, new Map([...homes, [op.results[0]!, view]]));
    return Math.min(...program.optionsOf(index, homes).map((c) => c.cycles + from(index + 1, new Map([...homes, ...program.placesAfter(index, c)]))));
  };
  return from(0, program.start());
}

/** Cycles of the steps that layouts are lowered to. */
function loweredCycles(program: Program, layouts: ReturnType<typeof chooseLayouts>): number {
  const { compute, exchange, sync } = cyclesOf(lower(program.graph, program.target, layouts.choices, program.options).steps);
  return compute + exchange + sync;
}

/** Bytes of a tile, code included. */
function bytesOf(lowered: Lowered, { constants }: TileTarget): number {
  return placeBuffers(lowered.buffers, lowered.count).end + flatSteps(lowered.steps).reduce((n, s) => n + s.code, lowered.vertices.size * constants['code.vertexType']);
}

describe('layouts that are chosen jointly', () => {
  for (const [name, text] of Object.entries(graphs)) {
    for (const [tiles, exchange] of [[12, 4], [64, 0.5]] as const) {
      it(`are as good as the best of all: ${name}, ${tiles} tiles, ${exchange} bytes a cycle`, () => {
        const program = programOf(parseGraph(text), tiles, exchange);
        const best = exhaustive(program);
        expect(beamSearch(program, Infinity).cycles).toBeCloseTo(best, 6);
        expect(chooseLayouts(program, false).cycles).toBeCloseTo(best, 6);
      });

      it(`take the cycles of the steps they are lowered to: ${name}, ${tiles} tiles, ${exchange} bytes a cycle`, () => {
        for (const bound of [2 ** 20, 4096, 512]) {
          const program = programOf(parseGraph(text), tiles, exchange, bound);
          for (const alone of [false, true]) {
            const layouts = chooseLayouts(program, alone);
            expect(loweredCycles(program, layouts)).toBeCloseTo(layouts.cycles, 6);
          }
        }
      });
    }
  }

  it('are better than choosing op by op, where a slower product leaves its result where the next one reads it', () => {
    const program = programOf(parseGraph(graphs['a chain of products and maps']), 12, 1);
    const alone = chooseLayouts(program, true).cycles;
    const joint = chooseLayouts(program, false).cycles;
    expect(joint).toBeLessThan(0.95 * alone);
    expect(joint).toBeCloseTo(exhaustive(program), 6);
  });

  it('may leave a value just where one of its readers reads it, elementwise ops in between', () => {
    const program = programOf(parseGraph(graphs['a chain of products and maps']), 12, 1);
    const [made, between, reader] = program.graph.ops as [Op, Op, Op];
    const wishes = new Wishes(program).of(made.results[0]!);
    expect(wishes.length).toBeGreaterThan(0);
    const read = program.chooser.waysOf(reader).map((w) => signature(w.needs[0]!));
    for (const wish of wishes) {
      const division = divisionTo(walkOf(made), wish)!;
      expect(resultOf(walkOf(made), division, made.results[0]!.type.shape).axes).toEqual(wish.axes);
      const onward = inheritedDivision(walkOf(between), keyOf(between), 0, wish)!;
      expect(read).toContain(signature(resultOf(walkOf(between), onward, between.results[0]!.type.shape)));
    }
  });

  it('are the same every time', () => {
    for (const text of Object.values(graphs)) {
      const [a, b] = [1, 2].map(() => chooseLayouts(programOf(parseGraph(text), 12, 1), false));
      expect(a!.choices.map((c) => c && [c.division, c.made, c.meet])).toEqual(b!.choices.map((c) => c && [c.division, c.made, c.meet]));
    }
  });

  it('fit where those that are chosen op by op fit, and take no more cycles then', () => {
    let compared = 0;
    for (const text of Object.values(graphs)) {
      for (const bytesPerTile of [6144, 8192, 12288, 2 ** 16]) {
        const target = withConstants(mk2, { tiles: 12, bytesPerTile, exchange: 1, 'code.vertexType': 100, 'code.exchange': 4 });
        const graph = parseGraph(text);
        const program = new Program(graph, target, { bound: target.constants.temporary * bytesPerTile, bounds: new Map(), serial: true });
        const alone = chooseLayouts(program, true);
        const lowered = lower(graph, target, alone.choices, program.options);
        const { plan, fits } = planTiles(graph, target, { samples: 1 });
        if (bytesOf(lowered, target) > plan.memory.limit) continue;
        expect(fits).toBe(true);
        expect(totalCycles(plan)).toBeLessThanOrEqual(alone.cycles + 1e-6);
        compared++;
      }
    }
    expect(compared).toBeGreaterThan(8);
  });

  it('change no number', () => {
    for (const text of Object.values(graphs)) {
      const graph = parseGraph(text);
      const inputs = Object.fromEntries(graph.inputs.map((v, k) => [v.name!, tensorOf(v.type, (i) => Math.sin(i * 1.7 + k) / 8)]));
      const t = planned(graph, 24);
      const found = runPlan(t, t.planned.plan, inputs);
      for (const [output, want] of evaluate(graph, inputs).outputs) expect(difference(found.outputs.get(output)!, want, 4e-3, 4e-3)).toBeUndefined();
    }
  });
});
