/** Tile programs, executed tile by tile: they compute what graphs compute, and wrong plans are caught. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { PlanFault, simulate } from '../backends/tiles/simulate.ts';
import { compare, goldenCases, modelCases, type TileCase } from '../bench/tiles/case.ts';
import { leastMemory } from '../bench/tiles/least.ts';
import { runTiled } from '../cli/driver/simulate.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { parseGraph } from '../ir/parse.ts';
import { run, type Cut, type Spread, type TileBuffer, type TilePlan } from '../ir/tiles.ts';
import type { Tensor } from '../ir/type.ts';
import { withConstants } from '../passes/tile/target.ts';
import { planned, runPlan, tensorOf, withoutOneCopy } from './tiles-harness.ts';

const shared = join(import.meta.dirname, '../../shared');
const absent = !existsSync(shared);
const readCaseOf = (name: string): Promise<TileCase> => [...goldenCases(join(shared, 'goldens')), ...modelCases(join(shared, 'models'))].find((c) => c.name === name)!.read();

describe.skipIf(absent)(absent ? 'the matrix (skipped: ../shared is not there)' : 'the matrix of npm run tiles, in part', () => {
  it.each([['mlp-sgd', 4], ['mlp-clip-norm', 64], ['convnet-bn-sgd-momentum', 4], ['transformer-adamw', 1], ['mnist_cntk', 4], ['micro_kws_m_qdq', 64]] as const)('%s on %i tiles gives the numbers of the interpreter in the least memory', async (name, tiles) => {
    const c = await readCaseOf(name);
    const least = leastMemory(c.graph, withConstants(readTarget('mk2'), { tiles }));
    const result = runTiled({ graph: least.graph, planned: least }, c.inputs);
    expect(compare(c, result.outputs, result.named)).toEqual({ compared: c.wanted.size });
    expect(Math.max(...result.used) + least.plan.memory.code).toBeLessThanOrEqual(least.bytes);
  });
});

it.skipIf(absent)('blocks that are equally full are all put in parts: SqueezeNet on one tile', async () => {
  const { bytes, bound } = leastMemory((await readCaseOf('squeezenet1_1')).graph, withConstants(readTarget('mk2'), { tiles: 1 }));
  expect(bytes / Math.max(bound.always, bound.vertex)).toBeLessThanOrEqual(1.5);
});

const f32 = (...shape: number[]): { dtype: 'f32'; shape: number[] } => ({ dtype: 'f32', shape });
const numbers = (t: Tensor | undefined): number[] => Array.from(t!.data as Float32Array);

describe('a tile program', () => {
  it('sums contributions of all tiles', () => {
    const t = planned(parseGraph('graph @g(%x: f32[3000,2]) { %y = reduceSum %x {axes=[0]} : f32[2] return "y" = %y }'), 8);
    expect(t.planned.plan.steps.some((s) => s.kind === 'compute' && s.part === 'contribute')).toBe(true);
    // Column j holds j, j + 2, …, j + 5998.
    expect(numbers(runPlan(t, t.planned.plan, { x: tensorOf(f32(3000, 2), (i) => i) }).outputs.get('y'))).toEqual([0, 1].map((j) => 3000 * j + 2999 * 3000));
  });

  it('merges means and sums of squares of parts', () => {
    const t = planned(parseGraph('graph @g(%x: f32[2000]) { %m, %s = moments %x {axes=[0]} : f32[], f32[] return "m" = %m, "s" = %s }'), 7);
    expect(t.planned.plan.steps.some((s) => s.kind === 'compute' && s.part === 'merge')).toBe(true);
    const { outputs } = runPlan(t, t.planned.plan, { x: tensorOf(f32(2000), (i) => i) });
    expect(numbers(outputs.get('m'))[0]).toBeCloseTo(999.5, 3);
    // n (n² - 1) / 12
    expect(numbers(outputs.get('s'))[0]! / ((2000 * (2000 ** 2 - 1)) / 12)).toBeCloseTo(1, 6);
  });

  it('reads halos of a convolution from neighbours', () => {
    const t = planned(parseGraph(`graph @g(%x: f32[1,1,30,3], %w: f32[1,1,3,1]) {
      %y = conv %x, %w {strides=[1,1], pads=[1,0,1,0], dilations=[1,1], groups=1} : f32[1,1,30,3] return "y" = %y }`), 5);
    const { outputs } = runPlan(t, t.planned.plan, { x: tensorOf(f32(1, 1, 30, 3), (i) => i), w: tensorOf(f32(1, 1, 3, 1), (i) => [1, 10, 100][i]!) });
    const at = (h: number, w: number): number => (h < 0 || h > 29 ? 0 : 3 * h + w);
    expect(numbers(outputs.get('y'))).toEqual(Array.from({ length: 90 }, (_, i) => at(Math.floor(i / 3) - 1, i % 3) + 10 * at(Math.floor(i / 3), i % 3) + 100 * at(Math.floor(i / 3) + 1, i % 3)));
  });

  it('updates state where it lies', () => {
    const t = planned(parseGraph('graph @g(%x: f32[40]) state(%w: f32[40] = "w" zero) { %y = add %w, %x : f32[40] %s = reduceSum %y {axes=[0]} : f32[] return "s" = %s, state(%w = %y) }'), 4);
    const x = tensorOf(f32(40), (i) => i);
    const once = runPlan(t, t.planned.plan, { x });
    expect(numbers(once.named.get('w'))).toEqual(numbers(x));
    const twice = runTiled(t, { x }, once.named);
    expect(numbers(twice.named.get('w'))).toEqual(numbers(x).map((v) => 2 * v));
    expect(numbers(twice.outputs.get('s'))).toEqual([2 * (39 * 20)]);
  });

  it.each([1, 4])('on %i tiles does not update state where it lies while a reshape of it is still to be read', (tiles) => {
    const t = planned(parseGraph(`graph @g(%g: f32[64], %x: f32[8,8]) state(%w: f32[64] = "w" zero) { %v = reshape %w {shape=[8,8]} : f32[8,8]
      %n = add %w, %g : f32[64] %y = mul %v, %x : f32[8,8] return "y" = %y, state(%w = %n) }`), tiles);
    const inputs = { g: tensorOf(f32(64), (i) => i), x: tensorOf(f32(8, 8), (i) => i + 1) };
    const once = runPlan(t, t.planned.plan, inputs);
    expect(numbers(once.outputs.get('y'))).toEqual(Array.from({ length: 64 }, () => 0));
    expect(numbers(runTiled(t, inputs, once.named).outputs.get('y'))).toEqual(Array.from({ length: 64 }, (_, i) => i * (i + 1)));
  });

  it('wants inputs of the types that its graph has', () => {
    const t = planned(parseGraph('graph @g(%x: f32[4]) { %y = neg %x : f32[4] return "y" = %y }'), 2);
    expect(() => runPlan(t, t.planned.plan, {})).toThrow('input x: f32[4] is missing');
    expect(() => runPlan(t, t.planned.plan, { x: tensorOf(f32(5), () => 0) })).toThrow('input x is f32[5], expected f32[4]');
  });
});

describe('a serial split', () => {
  // y = x · w on one tile, w given by another in two halves of its columns.
  const graph = parseGraph('graph @g(%x: f32[2,3], %w: f32[3,4]) { %y = contract %x, %w {spec="mk,kn->mn"} : f32[2,4] return "y" = %y }');
  const whole = (n: number): Cut => ({ by: [], combs: [run(0, n)] });
  const on = (tile: number, ...shape: number[]): Spread => ({ base: tile, dims: [], axes: shape.map(whole) });
  const halves: Cut = { by: [0], combs: [run(0, 2), run(2, 2)] };
  const time = [{ name: 'n', parts: 2, stride: 0, time: true }] as const;
  const columns = (n: number): Spread => ({ base: 0, dims: time, axes: [whole(n), halves] });
  const buffer = (id: number, value: string, kind: TileBuffer['kind'], shape: number[], spread: Spread, offset: number, bytes: number, birth: number, death: number): TileBuffer => ({ id, value, source: [], kind, dtype: 'f32', shape, spread, width: 1, bytes, offset, birth, death });
  const cycles = { compute: 0, exchange: 0, sync: 0 };
  const plan: TilePlan = {
    version: 1, model: 'g', graph: '', target: 'test', tiles: 2, bytesPerTile: 128, grain: 8, vertexTypeBytes: 0, samples: 1, notes: [],
    memory: { always: 0, code: 0, peak: 128, peakStep: 0, gaps: 0, total: 128, limit: 128 },
    buffers: [
      buffer(0, 'x', 'input', [2, 3], on(0, 2, 3), 0, 24, 0, 2),
      buffer(1, 'w', 'input', [3, 4], on(1, 3, 4), 24, 48, 0, 2),
      buffer(2, 'w.copy', 'gather', [3, 4], columns(3), 72, 24, 1, 2),
      buffer(3, 'y', 'output', [2, 4], on(0, 2, 4), 96, 32, 2, 2),
    ],
    steps: [{
      kind: 'repeat', index: 0, times: 2, body: [
        { kind: 'exchange', index: 1, copies: [{ from: 1, to: 2 }], bytes: 24, largest: 24, cycles, code: 0 },
        {
          kind: 'compute', index: 2, op: 0, part: 'whole', name: 'y', source: [], root: 'contract', vertex: 'matrix f32', division: { base: 0, dims: time, ranges: { n: halves } },
          reads: [{ buffer: 0, slice: on(0, 2, 3) }, { buffer: 2, slice: columns(3) }], writes: [{ buffer: 3, slice: columns(2) }], cycles, code: 0, macs: 12,
        },
      ],
    }],
  };
  const inputs = { x: tensorOf(f32(2, 3), (i) => i + 1), w: tensorOf(f32(3, 4), (i) => i) };

  it('runs the body of a repeat for each part in time', () => {
    expect(numbers(simulate(graph, plan, inputs).outputs.get('y'))).toEqual([32, 38, 44, 50, 68, 83, 98, 113]);
  });

  it('lacks what the iterations that are left out would make', () => {
    expect(() => simulate(graph, { ...plan, steps: [{ ...plan.steps[0]!, times: 1 } as TilePlan['steps'][number]] }, inputs)).toThrow(/buffer 3 .y, output.*poisoned/);
  });
});

describe('a plan that is wrong', () => {
  const text = `graph @g(%x: f32[2,6,10,10], %w: f32[8,6,3,3], %b: f32[8]) {
    %c = conv %x, %w {strides=[1,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[2,8,10,10]
    %r = reshape %b {shape=[1,8,1,1]} : f32[1,8,1,1]
    %a = add %c, %r : f32[2,8,10,10]
    %n = relu %a : f32[2,8,10,10]
    %p, %i = maxPool %n {kernel=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1]} : f32[2,8,5,5], i32[2,8,5,5]
    %f = reshape %p {shape=[2,200]} : f32[2,200]
    %m, %s = moments %f {axes=[0]} : f32[200], f32[200]
    %d = sub %f, %m : f32[2,200]
    %y = reduceSum %d {axes=[1]} : f32[2]
    return "y" = %y, "s" = %s, "i" = %i }`;
  const graph = parseGraph(text);
  const inputs = { x: tensorOf(f32(2, 6, 10, 10), (i) => Math.sin(i)), w: tensorOf(f32(8, 6, 3, 3), (i) => Math.cos(3 * i)), b: tensorOf(f32(8), (i) => i / 8) };
  const differs = (a: ReadonlyMap<string, Tensor>, b: ReadonlyMap<string, Tensor>): boolean => [...b].some(([k, t]) => Array.from(t.data as Float32Array).some((x, i) => !(Math.abs(Number(a.get(k)!.data[i]) - x) <= 1e-5)));

  it.each([2, 5, 16, 64])('fails on %i tiles without any one copy', (tiles) => {
    const t = planned(graph, tiles);
    const right = runPlan(t, t.planned.plan, inputs).outputs;
    let mutants = 0;
    for (const { plan, what, to, merge } of withoutOneCopy(t.planned.plan)) {
      mutants++;
      let caught = false;
      let message = '';
      try {
        caught = differs(runPlan(t, plan, inputs).outputs, right);
      } catch (e) {
        expect(e, what).toBeInstanceOf(PlanFault);
        caught = true;
        message = (e as Error).message;
      }
      expect(caught, what).toBe(true);
      // Not even what another buffer has left in the same place can be read.
      if (!merge && to.dtype === 'f32') expect(message, what).toContain('poisoned');
    }
    expect(mutants).toBeGreaterThan(3);
  });

  it('finds memory that is used again', () => {
    const { buffers } = planned(graph, 16).planned.plan;
    expect(buffers.some((a) => a.viewOf === undefined && buffers.some((b) => b.kind === 'gather' && b.dtype === 'f32' && b.birth > a.death && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes))).toBe(true);
  });

  it.skipIf(absent)('fails without any one copy of a training step', async () => {
    const c = await readCaseOf('mlp-sgd');
    const least = leastMemory(c.graph, withConstants(readTarget('mk2'), { tiles: 4 }));
    let mutants = 0;
    for (const { plan, what } of withoutOneCopy(least.plan)) {
      mutants++;
      let problem: string | undefined;
      try {
        const result = runTiled({ graph: least.graph, planned: { plan } }, c.inputs);
        problem = compare(c, result.outputs, result.named).problem;
      } catch (e) {
        expect(e, what).toBeInstanceOf(PlanFault);
        problem = (e as Error).message;
      }
      expect(problem, what).toBeDefined();
    }
    expect(mutants).toBeGreaterThan(10);
  });

  const t = planned(graph, 5);
  const { plan } = t.planned;
  const right = runPlan(t, plan, inputs).outputs;
  const changed = (id: number, change: Partial<TileBuffer>): TilePlan => ({ ...plan, buffers: plan.buffers.map((b) => (b.id === id ? { ...b, ...change } : b)) });
  const long = plan.buffers.find((b) => b.kind === 'activation' && b.viewOf === undefined && b.death > b.birth + 1)!;

  it('fails where a buffer is freed too early', () => {
    expect(() => runPlan(t, changed(long.id, { death: long.death - 1 }), inputs)).toThrow(PlanFault);
  });

  it('fails where two live buffers overlap', () => {
    const other = plan.buffers.find((b) => b !== long && b.viewOf === undefined && b.bytes >= 8 && b.birth > long.birth && b.birth < long.death)!;
    let caught = false;
    try {
      caught = differs(runPlan(t, changed(other.id, { offset: long.offset }), inputs).outputs, right);
    } catch (e) {
      expect(e).toBeInstanceOf(PlanFault);
      caught = true;
    }
    expect(caught).toBe(true);
  });

  it('fails where a buffer leaves the tile', () => {
    expect(() => runPlan(t, { ...plan, bytesPerTile: 64 }, inputs)).toThrow(/takes bytes \d+ to \d+ of tiles that have 64/);
  });
});
