/** Plans a prepared graph for a machine of tiles. */
import type { Graph } from '../../ir/graph.ts';
import { graphText } from '../../ir/text.ts';
import type { TileMemory, TilePlan } from '../../ir/tiles.ts';
import { chooseLayouts } from './layouts/choose-layouts.ts';
import { Program } from './layouts/program.ts';
import { lower, type Lowered } from './lower.ts';
import { flatSteps, totalCycles } from './report.ts';
import { narrowerBounds } from './tighten.ts';
import { placeBuffers } from './memory.ts';
import { usableBytes, type TileTarget } from './target.ts';

export interface PlanOptions {
  /** Share of a tile that the temporaries of one op may take; the target's own unless given. */
  readonly temporary?: number;
  /** Samples that one run of the graph takes. */
  readonly samples: number;
  /** Whether products may run in serial parts; true unless given. */
  readonly serial?: boolean;
  /** Bytes of a tile that are kept free, for the code of another program. */
  readonly reserved?: number;
  /** Whether layouts are chosen one by one alone: faster to plan, and slower to run. False unless given. */
  readonly alone?: boolean;
  readonly onProgress?: (done: number, of: number) => void;
}

/** A plan, whether or not it fits, and what is known beside it. */
export interface Planned {
  readonly plan: TilePlan;
  readonly fits: boolean;
  /** Bytes live by step, state and constants apart. */
  readonly live: readonly number[];
  /** Ops at the fullest steps that had less room for their temporaries, the bytes of a tile that it saved and the cycles of a run that it took. */
  readonly tightened: { readonly ops: number; readonly bytes: number; readonly cycles: number } | undefined;
}

/** Two programs over one state: gradients of several runs add up before an update. */
export interface AccumulatedPlan extends Planned {
  /** The update, after every `runs` runs. */
  readonly update: { readonly plan: TilePlan; readonly runs: number };
}

/** Plans a step whose gradients add up: each program fits beside the other's code. */
export function planAccumulated(accumulate: Graph, update: Graph, target: TileTarget, options: PlanOptions, runs: number): AccumulatedPlan {
  const { onProgress: _, ...quiet } = options;
  const alone = planTiles(update, target, { ...quiet, samples: options.samples * runs });
  const own = planTiles(accumulate, target, { ...options, reserved: alone.plan.memory.code });
  const after = planTiles(update, target, { ...quiet, samples: options.samples * runs, reserved: own.plan.memory.code });
  const notes = [...own.plan.notes, `${alone.plan.memory.code} bytes are kept free for the code of the update, which runs after every ${runs} runs`];
  return { ...own, plan: { ...own.plan, notes }, fits: own.fits && after.fits, update: { plan: after.plan, runs } };
}

/** How often ops at the fullest steps get fewer bytes for their temporaries. */
const mostRounds = 4;

/** Share of the limit up to which a plan may be over it for other layouts to be looked for: they save bytes by chance. */
const nearLimit = 0.05;

/**
 * Plans a prepared graph. Where that does not fit, the ops that run while a tile is overfull are cut into smaller slices, or in time, until it does or nothing is won. A plan that does not fit comes back all the same, with
 * `fits` false.
 */
export function planTiles(graph: Graph, target: TileTarget, options: PlanOptions): Planned {
  const alone = planInRounds(graph, target, options, true);
  const { total, limit } = alone.plan.memory;
  if (options.alone || total > limit * (1 + nearLimit)) return alone;
  const joint = planInRounds(graph, target, options, false);
  return isBetter(joint, alone) ? joint : alone;
}

/** Whether a plan fits where another does not, or is faster where both do, or smaller where neither does. */
function isBetter(a: Planned, b: Planned): boolean {
  if (a.fits !== b.fits) return a.fits;
  return a.fits ? totalCycles(a.plan) < totalCycles(b.plan) : a.plan.memory.total < b.plan.memory.total;
}

/** Plans with layouts that are chosen jointly, or, if `alone`, one by one. */
function planInRounds(graph: Graph, target: TileTarget, options: PlanOptions, alone: boolean): Planned {
  let bounds: ReadonlyMap<number, number> = new Map();
  let best = planOnce(graph, target, options, bounds, alone);
  const first = best;
  for (let round = 1, last = best; round < mostRounds && !best.fits; round++) {
    const next = narrowerBounds(last, bounds);
    if (!next) break;
    bounds = next;
    last = planOnce(graph, target, options, bounds, alone);
    if (last.fits || last.plan.memory.total < best.plan.memory.total) best = last;
  }
  if (best === first) return first;
  const tightened = { ops: bounds.size, bytes: first.plan.memory.total - best.plan.memory.total, cycles: totalCycles(best.plan) - totalCycles(first.plan) };
  return { ...best, tightened, plan: { ...best.plan, notes: [...best.plan.notes, `${bounds.size} ops have less room for temporaries, which saves ${tightened.bytes} bytes a tile`] } };
}

function planOnce(graph: Graph, target: TileTarget, options: PlanOptions, bounds: ReadonlyMap<number, number>, alone: boolean): Planned {
  const share = options.temporary ?? target.constants.temporary;
  const within = { bound: share * target.constants.bytesPerTile, bounds, serial: options.serial ?? true };
  const { choices } = chooseLayouts(new Program(graph, target, within), alone, options.onProgress);
  const lowered = lower(graph, target, choices, within);
  const placed = placeBuffers(lowered.buffers, lowered.count);
  const code = codeBytes(lowered, target);
  const total = placed.end + code;
  const memory: TileMemory = {
    always: placed.always, code, peak: placed.peak, peakStep: placed.peakStep, gaps: placed.end - placed.always - placed.peak, total, limit: usableBytes(target) - (options.reserved ?? 0),
  };
  const repeats = lowered.steps.filter((s) => s.kind === 'repeat').length;
  const notes = [...(lowered.relaxed.length === 0 ? [] : [relaxation(lowered, share * target.constants.bytesPerTile), ...tooLarge(lowered, target)]), ...(repeats > 0 ? [`${repeats} ops run in serial parts`] : [])];
  return { plan: assemble(graph, target, options, lowered, memory, notes), fits: total <= memory.limit, live: placed.live, tightened: undefined };
}

function relaxation(lowered: Lowered, bound: number): string {
  const worst = lowered.relaxed.reduce((a, b) => (b.bytes > a.bytes ? b : a));
  return `the bound of ${Math.floor(bound)} bytes of temporaries was relaxed for ${lowered.relaxed.length} ops, at most to ${Math.ceil(worst.bytes)} bytes (${worst.op.source[0] ?? worst.op.results[0]?.name ?? worst.op.name})`;
}

/** The op whose smallest vertex does not fit a tile by itself, if there is one. */
function tooLarge(lowered: Lowered, t: TileTarget): string[] {
  const worst = lowered.relaxed.reduce((a, b) => (b.bytes > a.bytes ? b : a));
  if (worst.bytes <= usableBytes(t)) return [];
  return [`the tile memory is too small for ${worst.op.source[0] ?? worst.op.results[0]?.name ?? worst.op.name} (${worst.op.name}): its smallest slices take ${Math.ceil(worst.bytes)} bytes at once, a tile has ${usableBytes(t)}`];
}

function codeBytes(lowered: Lowered, t: TileTarget): number {
  return Math.ceil(flatSteps(lowered.steps).reduce((n, s) => n + s.code, lowered.vertices.size * t.constants['code.vertexType']));
}

function assemble(graph: Graph, t: TileTarget, options: PlanOptions, lowered: Lowered, memory: TileMemory, notes: readonly string[]): TilePlan {
  return {
    version: 1, model: graph.name, graph: digest(graph), target: t.name, tiles: t.constants.tiles, bytesPerTile: t.constants.bytesPerTile, grain: t.constants.grain, samples: options.samples, vertexTypeBytes: t.constants['code.vertexType'],
    buffers: lowered.buffers, steps: lowered.steps, memory, notes,
  };
}

/** A digest of a graph's text (FNV-1a, 64 bits, in hex): a plan belongs to one graph. */
export function digest(graph: Graph): string {
  const text = graphText(graph);
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (let i = 0; i < text.length; i++) {
    low = (low ^ text.charCodeAt(i)) >>> 0;
    // Times 0x100000001b3, in two halves.
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 0x100000000) + ((low << 8) >>> 0)) >>> 0;
    low = product >>> 0;
  }
  return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0');
}
