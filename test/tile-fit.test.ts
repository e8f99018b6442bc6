/** How the fastest plan that fits is found, what levers say, and what is counted for them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readTarget } from '../cli/driver/target-file.ts';
import { parseGraph } from '../ir/parse.ts';
import { run, type TileBuffer, type TilePlan, type TileStep } from '../ir/tiles.ts';
import { exchangeCode } from '../passes/tile/exchange-code.ts';
import { fitPlan } from '../passes/tile/fit.ts';
import { leastBytes } from '../passes/tile/least.ts';
import { leversOf } from '../passes/tile/levers.ts';
import type { Planned } from '../passes/tile/plan.ts';
import { recomputeLevels, type Recompute } from '../passes/tile/recompute.ts';
import { Trials, type Setting } from '../passes/tile/trials.ts';

/** A machine on which bytes and cycles follow formulas: `kept` bytes a sample for each level, `extra` cycles a sample, and cycles that a run takes whatever its samples. */
interface Machine { readonly limit: number; readonly always: number; readonly code: number; readonly temporaries: number; readonly kept: readonly number[]; readonly extra: readonly number[]; readonly fixed: number }

const bytesOf = (m: Machine, s: Setting): number => m.always + m.code + m.temporaries + s.batch * m.kept[recomputeLevels.indexOf(s.recompute)]!;
const cyclesOf = (m: Machine, s: Setting): number => m.fixed / s.batch + m.extra[recomputeLevels.indexOf(s.recompute)]!;

function planAt(m: Machine): (s: Setting) => Planned {
  return (s) => {
    const total = bytesOf(m, s);
    const memory = { always: m.always, code: m.code, peak: total - m.always - m.code, peakStep: 0, gaps: 0, total, limit: m.limit };
    const steps: TileStep[] = [{ kind: 'exchange', index: 0, copies: [], bytes: 0, largest: 0, cycles: { compute: 0, exchange: cyclesOf(m, s) * s.batch, sync: 0 }, code: 0 }];
    return { plan: { samples: s.batch, steps, memory } as unknown as TilePlan, fits: total <= m.limit, live: [], tightened: undefined };
  };
}

const batches = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 128];
const fitted = (m: Machine, recompute: readonly Recompute[] = recomputeLevels): Trials => {
  const trials = new Trials(planAt(m));
  fitPlan(trials, { batches, recompute, temporary: 0.16 }, { limit: m.limit, always: m.always, perSample: (level) => m.kept[recomputeLevels.indexOf(level)]! });
  return trials;
};
/** Every way of planning, one by one. */
const fastest = (m: Machine): number => Math.min(...recomputeLevels.flatMap((recompute) => batches.map((batch): Setting => ({ batch, recompute, temporary: 0.16 })).filter((s) => bytesOf(m, s) <= m.limit).map((s) => cyclesOf(m, s))));

const machine: Machine = { limit: 600, always: 70, code: 200, temporaries: 80, kept: [30, 22, 9, 6], extra: [500, 510, 540, 640], fixed: 1000 };

describe('the fastest plan that fits', () => {
  it('is found wherever more samples are faster and more recomputation keeps less', () => {
    const levels = fc.tuple(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 99 }), fc.integer({ min: 1, max: 99 }), fc.integer({ min: 1, max: 99 }));
    const machines = fc.record({ limit: fc.integer({ min: 100, max: 3000 }), always: fc.integer({ min: 1, max: 90 }), code: fc.integer({ min: 1, max: 300 }), temporaries: fc.integer({ min: 0, max: 300 }), levels, extra: levels, fixed: fc.integer({ min: 0, max: 5000 }) });
    fc.assert(fc.property(machines, ({ levels: [a, b, c, d], extra: [e, f, g, h], ...m }) => {
      const whole: Machine = { ...m, kept: [a, (a * b) / 100, (a * b * c) / 10_000, (a * b * c * d) / 1_000_000], extra: [e, e + f, e + f + g, e + f + g + h] };
      const best = fitted(whole).best?.trial.cyclesPerSample;
      expect(best ?? Infinity).toBeCloseTo(fastest(whole), 9);
    }), { numRuns: 2000, seed: 5 });
  });

  it('takes few plans, and none that is larger than what fits by far', () => {
    const trials = fitted(machine);
    expect(trials.best!.trial).toMatchObject({ batch: 24, recompute: 'blocks' });
    expect(trials.all.length).toBeLessThan(10);
    expect(trials.all.every((t) => t.memory.total < 1.4 * machine.limit)).toBe(true);
  });

  it('where nothing fits, the smallest plan is there to report', () => {
    const trials = fitted({ ...machine, code: 700 });
    expect(trials.best).toBeUndefined();
    expect(trials.smallest!.trial).toMatchObject({ batch: 1 });
  });
});

it('levers say what each saves against what, the cheapest first', () => {
  const trials = fitted(machine);
  const levers = leversOf(trials, trials.best!.trial, { recompute: ['none', 'norms', 'blocks', 'all'], smaller: 12 });
  expect(levers.map((l) => [l.what, l.against, l.bytes, Math.round(l.cycles), l.fits, l.taken])).toEqual([
    ['recompute norms', 'recompute none', 24 * 8, 10, false, false],
    ['recompute blocks', 'recompute none', 24 * 21, 40, true, true],
    ['micro-batches of 12', '24', 12 * 9, Math.round(1000 / 12 - 1000 / 24), true, false],
    ['recompute all', 'recompute none', 24 * 24, 140, true, false],
  ]);
});

describe('bytes that no plan gets below', () => {
  it('are state, and what is alive between two ops; views and results in place of operands take nothing', () => {
    const graph = parseGraph(`graph @g(%x: f32[4,8]) state(%w: f32[8,8] = "w" zero) {
      %a = exp %x : f32[4,8] %b = contract %a, %w {spec="mk,kn->mn"} : f32[4,8] %v = reshape %b {shape=[32]} : f32[32] %c = exp %v : f32[32] %d = reshape %a {shape=[32]} : f32[32] %y = add %c, %d : f32[32]
      return "y" = %y }`);
    // Of f32[4,8], 128 bytes each: x; then a; a and b; a and c; y.
    expect(leastBytes(graph)).toEqual({ always: 256, alive: 256 });
  });
});

it('copies that move slices alike share a program, whatever they move', () => {
  const target = readTarget('mk2');
  const spread = (parts: number, n: number): TileBuffer['spread'] => ({ base: 0, dims: [{ name: 'm', parts, stride: 1 }], axes: [{ by: [0], combs: Array.from({ length: parts }, (_, p) => run(p * n, n)) }] });
  const buffer = (id: number, parts: number, n: number, dtype: string): TileBuffer => ({ id, value: `v${id}`, source: [], kind: 'activation', dtype, shape: [parts * n], spread: spread(parts, n), width: 1, bytes: 0, offset: 0, birth: 0, death: 0 });
  // 64 elements over 8 tiles are collected on 2, twice in f16 and once in f32; 32 elements over 4 on 1.
  const buffers = [buffer(0, 8, 8, 'f16'), buffer(1, 2, 32, 'f16'), buffer(2, 8, 8, 'f16'), buffer(3, 2, 32, 'f16'), buffer(4, 8, 8, 'f32'), buffer(5, 2, 32, 'f32'), buffer(6, 4, 8, 'f16'), buffer(7, 1, 32, 'f16')];
  const exchange = (...copies: [number, number][]): TileStep => ({ kind: 'exchange', index: 0, copies: copies.map(([from, to]) => ({ from, to })), bytes: 0, largest: 0, cycles: { compute: 0, exchange: 0, sync: 0 }, code: 0 });
  const plan = { buffers, steps: [exchange([0, 1], [6, 7]), exchange([2, 3]), exchange([4, 5])] } as unknown as TilePlan;
  // Each collects from 4 tiles; 64 bytes of f16, 128 of f32 arrive.
  expect(exchangeCode(plan, target)).toEqual({ copies: 4, programs: 3, bytes: 3 * 60 + 4 * 12, proposedConstant: 3 * 250 + 4 * 12, proposed: 3 * 250 + 4 * (1 + 2 + 1) });
});
