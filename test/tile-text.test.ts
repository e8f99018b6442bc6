/** The text form of tile programs: what is printed parses back to an equal program, which runs to the same numbers. */
import { describe, expect, it } from 'vitest';
import { runTiled } from '../cli/driver/simulate.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { buildGraph, prepared } from '../cli/plan/build.ts';
import { ParseError, parseGraph } from '../ir/parse.ts';
import { graphText } from '../ir/text.ts';
import { parseTileProgram } from '../ir/tile-parse.ts';
import { printTileProgram, type TileProgramText } from '../ir/tile-text.ts';
import type { BufferKind, Comb, Cut, Division, Spread, StepCycles, TileBuffer, TilePlan, TileStep } from '../ir/tiles.ts';
import { digest, planTiles } from '../passes/tile/plan.ts';
import { withConstants } from '../passes/tile/target.ts';
import { example } from './cli-harness.ts';
import { generator } from '../ir/generator.ts';
import { planned, tensorOf } from './tiles-harness.ts';

const chain = parseGraph(`graph @chain(%x: f32[2,6,10,10], %w: f32[8,6,3,3]) state(%m: f32[8] = "mean of \\"x\\"" zero) {
  %c = conv %x, %w {strides=[2,1], pads=[1,1,1,1], dilations=[1,1], groups=1} : f32[2,8,5,10] // from "Conv \\"a\\"", "b"
  %r = relu %c : f32[2,8,5,10]
  %s = reduceSum %r {axes=[0,2,3]} : f32[8]
  %u = add %m, %s : f32[8]
  return "y" = %s, state(%m = %u) }`);

function roundTrip(program: TileProgramText): TileProgramText {
  const { text, tensors } = printTileProgram(program);
  const parsed = parseTileProgram(text, tensors);
  expect(parsed.plan).toEqual(program.plan);
  expect(graphText(parsed.graph, { locations: true })).toBe(graphText(program.graph, { locations: true }));
  return parsed;
}

describe('the text of a tile program', () => {
  it.each([1, 3, 16, 64, 1472])('parses back and runs, for %i tiles', (tiles) => {
    const t = planned(chain, tiles);
    const parsed = roundTrip({ graph: t.graph, plan: t.planned.plan });
    const inputs = { x: tensorOf({ dtype: 'f32', shape: [2, 6, 10, 10] }, (i) => Math.sin(i)), w: tensorOf({ dtype: 'f32', shape: [8, 6, 3, 3] }, (i) => Math.cos(i)) };
    const [a, b] = [runTiled(t, inputs), runTiled({ graph: parsed.graph, planned: parsed }, inputs)];
    expect(b.outputs).toEqual(a.outputs);
    expect(b.named).toEqual(a.named);
    expect(a.outputs.get('y')!.data.every((x) => Number(x) > 0)).toBe(true);
  });

  it.each(['f32', 'f16'] as const)('parses back for a training step in %s, to the graph that the plan was made for', (dtype) => {
    const graph = prepared(buildGraph({ model: example, batch: 4, dtype, train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' } } }), 'norms');
    const { plan } = planTiles(graph, withConstants(readTarget('mk2'), { tiles: 32 }), { samples: 4 });
    const inParts = { of: '1b', regions: [{ from: { op: 1, result: 0 }, axis: 1, parts: 4, first: 0, last: 2, again: 'light' }, { from: { input: 0 }, axis: 0, parts: 2, first: 0, last: 9, again: 'none' }, { from: { state: 3 }, axis: 1, parts: 2, first: 0, last: 9, again: 'all', bands: true }] } as const;
    const parsed = roundTrip({ graph, plan: { ...plan, onnx: '0a', inParts } });
    expect(digest(parsed.graph)).toBe(plan.graph);
  });

  it('parses back for plans of any form', () => {
    for (let seed = 1; seed <= 60; seed++) roundTrip({ graph: chain, plan: anyPlan(generator(seed)) });
  });

  it('lists cuts and spreads once, and one step a line', () => {
    const { text } = printTileProgram({ graph: chain, plan: planned(chain, 16).planned.plan });
    const lines = text.split('\n');
    for (const word of ['cut', 'spread']) {
      const texts = lines.filter((l) => l.startsWith(`  ${word} `)).map((l) => l.replace(/^ +\w+ \w+ /, ''));
      expect(texts.length).toBeGreaterThan(1);
      expect(new Set(texts).size).toBe(texts.length);
    }
    expect(lines.filter((l) => /^ {2}compute \d+ (whole|contribute|merge) of \d+ /.test(l)).length).toBeGreaterThanOrEqual(2);
    expect(text).toContain('// from "Conv \\"a\\"", "b"');
  });

  it.each([
    [/target "mk2" \{tiles=/, 'target "mk2" {cores=', /line 2: expected 'tiles', found cores/],
    [/buffer 0 \w+/, 'buffer 0 heap', /line \d+: expected a kind of buffer, found heap/],
    [/spread s0 at/, 'spread t0 at', /expected a spread that is listed above, found s0/],
    [/compute (\d+) whole/, 'compute $1 half', /expected whole, contribute or merge, found half/],
  ])('says where a text is wrong: %s', (from, to, message) => {
    const { text } = printTileProgram({ graph: chain, plan: planned(chain, 16).planned.plan });
    const parse = (): unknown => parseTileProgram(text.replace(from, to));
    expect(parse).toThrow(ParseError);
    expect(parse).toThrow(message);
  });
});

/** A plan that no machine could run, with every form that plans have. */
function anyPlan(random: () => number): TilePlan {
  const upTo = (n: number): number => Math.floor(random() * (n + 1));
  const several = <T>(most: number, make: (i: number) => T): T[] => Array.from({ length: upTo(most) }, (_, i) => make(i));
  const pick = <T>(list: readonly T[]): T => list[upTo(list.length - 1)]!;
  const names = ['n', '@0', 'out-channels', 'inf', 'nan', 'time', 'a "b"', ''];
  const comb = (): Comb => ({ base: upTo(99), levels: several(3, () => ({ n: upTo(4), step: 1 + upTo(9) })) });
  const cut = (): Cut => ({ by: several(2, upTo), combs: random() < 0.5 ? [...several(5, comb), comb()] : Array.from({ length: 1 + upTo(6) }, (_, i) => ({ base: 3 * i, levels: [{ n: 3, step: 1 }] })) });
  const dims = (): Spread['dims'] => several(3, () => ({ name: pick(names), parts: 1 + upTo(7), stride: upTo(64), ...(random() < 0.3 && { time: true as const }) }));
  const flat = (): { flat?: true } => (random() < 0.3 ? { flat: true } : {});
  const spread = (): Spread => ({ base: upTo(7), dims: dims(), axes: several(3, cut), ...flat() });
  const division = (): Division => ({ base: upTo(7), dims: dims(), ranges: Object.fromEntries(several(3, () => [pick(names), cut()])), ...flat() });
  const source = (): string[] => several(2, () => pick(names));
  const cycles = (): StepCycles => ({ compute: upTo(1e6), exchange: random() * 1e3, sync: 1e-9 * upTo(9) });
  const access = (): { buffer: number; slice: Spread }[] => several(3, () => ({ buffer: upTo(9), slice: spread() }));
  const kinds: readonly BufferKind[] = ['state', 'constant', 'input', 'output', 'activation', 'gather', 'partial', 'receive'];
  const buffer = (id: number): TileBuffer => ({
    id, value: `%${pick(names)}`, source: source(), kind: pick(kinds), dtype: pick(['f32', 'f16', 'bool', 'i64']), shape: several(4, upTo), spread: spread(), width: 1 + upTo(2),
    bytes: upTo(1e6), offset: upTo(1e6), birth: upTo(9), death: upTo(9), ...(random() < 0.3 && { viewOf: upTo(9) }),
  });
  const step = (index: number, depth: number): TileStep => {
    const kind = pick(depth < 2 ? (['exchange', 'compute', 'repeat'] as const) : (['exchange', 'compute'] as const));
    if (kind === 'repeat') return { kind, index, times: 1 + upTo(9), body: several(3, (i) => step(i, depth + 1)) };
    if (kind === 'exchange') return { kind, index, copies: several(4, () => ({ from: upTo(9), to: upTo(9), ...(random() < 0.3 && { merge: true as const }) })), bytes: upTo(1e9), largest: upTo(1e6), cycles: cycles(), code: random() };
    return { kind, index, op: upTo(9), part: pick(['whole', 'contribute', 'merge'] as const), name: pick(names), source: source(), root: pick(names), vertex: 'matrix f32 /8', division: division(), reads: access(), writes: access(), cycles: cycles(), code: upTo(99), macs: upTo(2 ** 40) };
  };
  return {
    version: 1, model: pick(names), graph: 'ab', target: pick(names), tiles: 1 + upTo(1472), bytesPerTile: upTo(1e6), grain: 8, samples: 1 + upTo(16), vertexTypeBytes: upTo(2400), ...(random() < 0.5 && { onnx: 'ff' }),
    buffers: several(6, buffer), steps: several(6, (i) => step(i, 0)), notes: source(),
    memory: { always: upTo(9), code: upTo(9), peak: upTo(9), peakStep: upTo(9), gaps: upTo(9), total: upTo(9), limit: upTo(9) },
  };
}
