/** Plans a prepared graph for a machine of tiles. */
import type { Graph } from '../../ir/graph.ts';
import { graphText } from '../../ir/text.ts';
import type { TileMemory, TilePlan, TileStep } from '../../ir/tiles.ts';
import { lower, type Lowered } from './lower.ts';
import { tightened } from './tighten.ts';
import { placeBuffers, type Placed } from './memory.ts';
import { usableBytes, type TileTarget } from './target.ts';

export interface PlanOptions {
  /** Share of a tile that the temporaries of one op may take; the target's own unless given. */
  readonly temporary?: number;
  /** Samples that one run of the graph takes. */
  readonly samples: number;
  readonly onProgress?: (done: number, of: number) => void;
}

/** A plan, whether or not it fits, and what is known beside it. */
export interface Planned {
  readonly plan: TilePlan;
  readonly fits: boolean;
  /** Bytes live by step, state and constants apart. */
  readonly live: readonly number[];
  /** Bytes a tile that narrower temporaries at the fullest steps saved. */
  readonly saved?: number;
}

/** How often ops at the fullest steps get fewer bytes for their temporaries. */
const mostRounds = 4;

/**
 * Plans a prepared graph. Where that does not fit, the ops that run while a tile is overfull are cut into smaller slices, or in time, until it does or nothing is won. A plan that does not fit comes back all the same,
 * with `fits` false.
 */
export function planTiles(graph: Graph, target: TileTarget, options: PlanOptions): Planned {
  let bounds: ReadonlyMap<number, number> = new Map();
  let best = planOnce(graph, target, options, bounds);
  const first = best;
  for (let round = 1, last = best; round < mostRounds && !best.fits; round++) {
    const next = tightened(last, bounds);
    if (!next) break;
    bounds = next;
    last = planOnce(graph, target, options, bounds);
    if (last.fits || last.plan.memory.total < best.plan.memory.total) best = last;
  }
  if (best === first) return first;
  const saved = first.plan.memory.total - best.plan.memory.total;
  return { ...best, saved, plan: { ...best.plan, notes: [...best.plan.notes, `${bounds.size} ops have less room for temporaries, which saves ${saved} bytes a tile`] } };
}

function planOnce(graph: Graph, target: TileTarget, options: PlanOptions, bounds: ReadonlyMap<number, number>): Planned {
  const share = options.temporary ?? target.constants.temporary;
  const lowered = lower(graph, target, share * target.constants.bytesPerTile, bounds, options.onProgress);
  const placed = placeBuffers(lowered.buffers, lowered.count);
  const code = codeBytes(lowered, target);
  const total = placed.end + code;
  const memory: TileMemory = {
    always: placed.always, code, peak: placed.peak, peakStep: placed.peakStep, gaps: placed.end - placed.always - placed.peak, total, limit: usableBytes(target),
  };
  const repeats = lowered.steps.filter((s) => s.kind === 'repeat').length;
  const notes = [...(lowered.relaxed.length === 0 ? [] : [relaxation(lowered, share * target.constants.bytesPerTile), ...tooLarge(lowered, target)]), ...(repeats > 0 ? [`${repeats} ops run in serial parts`] : [])];
  return { plan: assemble(graph, target, options, lowered, memory, notes), fits: total <= memory.limit, live: placed.live };
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
  const all = (steps: readonly TileStep[]): number => steps.reduce((n, s) => n + (s.kind === 'repeat' ? all(s.body) : s.code), 0);
  return Math.ceil(lowered.vertices.size * t.constants['code.vertexType'] + all(lowered.steps));
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

export type { Placed };
