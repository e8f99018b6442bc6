/** The smallest tile memory for which there is a plan, and what no plan gets below. */
import { wasmTarget } from '../../cli/driver/target.ts';
import type { Graph } from '../../ir/graph.ts';
import { graphText } from '../../ir/text.ts';
import type { BufferKind, TilePlan } from '../../ir/tiles.ts';
import { dtypes, sizeOf, type DType } from '../../ir/type.ts';
import { modelOf } from '../../passes/tile/estimate.ts';
import { narrowed, sampleRegion, samplesInParts } from '../../passes/tile/parts/narrow.ts';
import { planTiles, type Planned } from '../../passes/tile/plan.ts';
import { prepare, simplified } from '../../passes/tile/prepare.ts';
import { recomputeLevels } from '../../passes/tile/recompute.ts';
import { searchSplits } from '../../passes/tile/search.ts';
import { withConstants, type TileTarget } from '../../passes/tile/target.ts';
import { walkOf } from '../../passes/tile/walk.ts';

/** A plan in the least memory that was found. */
export interface Least {
  readonly graph: Graph;
  readonly plan: TilePlan;
  /** Bytes of a tile that the plan needs, slack included. */
  readonly bytes: number;
  readonly recompute: string;
  /** Whether regions of the graph are computed in parts. */
  readonly parts: 'none' | 'samples' | 'regions';
  /** Plans that were made. */
  readonly tried: number;
  readonly bound: Bound;
}

/** What bounds the memory of a tile from below, in bytes. */
export interface Bound {
  /** What is allocated for the whole program (tile-model.md): state, constants, inputs and outputs, shared evenly, and code. */
  readonly always: number;
  /** Operands and results of the op that takes the most where it is cut smallest; of the ops that the plan runs, each of a part where they are computed in parts. */
  readonly vertex: number;
  readonly op: string;
}

/** Memory that no plan needs. */
const plenty = 2 ** 40;
/** What is below this many times the least that is thinkable is not looked at further. */
const near = 1.45;
/** How many regions around the fullest steps are put in parts. */
const rounds = 12;

interface Found { readonly graph: Graph; readonly planned: Planned; readonly recompute: string; readonly bound: number; readonly parts: Least['parts'] }

/**
 * Plans a graph at every level of recomputation under ever tighter bounds on the temporaries of an op, and keeps the smallest plan. Where that is far from what bounds it, the samples are computed
 * one after the other, or few at a time, and then regions around the fullest step in parts.
 */
export function leastMemory(graph: Graph, target: TileTarget): Least {
  const simple = simplified(graph, wasmTarget, {});
  const roomy = withConstants(target, { bytesPerTile: plenty });
  let tried = 0;
  const planAt = (g: Graph, bound: number, alone = true): Planned => {
    tried++;
    return planTiles(g, roomy, { samples: 1, temporary: bound / plenty, alone });
  };
  const usable = (planned: Planned): number => Math.ceil(planned.plan.memory.total / (1 - target.constants.slack));
  const isNear = ({ graph: g, planned }: { graph: Graph; planned: Planned }): boolean => {
    const { always, vertex } = boundOf(g, planned.plan, target);
    return usable(planned) <= near * Math.max(always, vertex);
  };
  const smaller = (a: Found | undefined, b: Found): Found => (a && usable(a.planned) <= usable(b.planned) ? a : b);
  /** The smallest plan under bounds from `from` down. */
  const tightest = (g: Graph, recompute: string, parts: Least['parts']): Found => {
    let own: Found | undefined;
    for (let bound = plenty, worse = 0; bound >= target.constants.grain && worse < 3;) {
      const made: Found = { graph: g, planned: planAt(g, bound), recompute, bound, parts };
      worse = own && usable(made.planned) >= usable(own.planned) ? worse + 1 : 0;
      own = smaller(own, made);
      // One tile gathers nothing that a bound could make smaller.
      if (target.constants.tiles === 1 && worse > 0) break;
      // A bound above what any op takes changes nothing.
      bound = Math.min(bound / 2, 0.75 * mostTemporaries(made.planned.plan));
    }
    return own!;
  };
  const levels = recomputeLevels.map((recompute) => ({ recompute, prepared: prepare(simple, wasmTarget, { recompute }) })).filter(({ prepared }, i, all) => all.findIndex((x) => graphText(x.prepared) === graphText(prepared)) === i);
  let best: Found | undefined;
  for (const { recompute, prepared } of levels) best = smaller(best, tightest(prepared, recompute, 'none'));
  if (!isNear(best!)) {
    for (const count of partsOfSamples(simple)) {
      for (const { recompute, prepared } of levels) {
        for (const again of ['none', 'light', 'all'] as const) {
          const parts = isNear(best!) ? undefined : samplesInParts(prepared, { again, parts: count });
          if (parts) best = smaller(best, tightest(parts, recompute, 'samples'));
        }
      }
    }
  }
  const { graph: wide, recompute: level, bound: narrowest } = best!;
  // Under no bound first: what makes one op small makes its neighbours large.
  for (const under of isNear(best!) ? [] : new Set([plenty, narrowest])) {
    const start = { graph: wide, planned: planAt(wide, under) };
    for (const bandsFirst of [false, true]) {
      if (isNear(best!)) break;
      const narrow = narrowed(start, { planAt: (g) => planAt(g, under), enough: isNear, rounds, bandsFirst });
      if (narrow.graph !== wide) best = smaller(best, tightest(narrow.graph, level, 'regions'));
    }
  }
  // Layouts that are chosen jointly take longer to plan, and about the same memory. Either way the planner has to find the plan again under the limit that it needs.
  const alone = best!;
  const joint: Found = { ...alone, planned: planAt(alone.graph, alone.bound, false) };
  const again = (found: Found): Planned => {
    const bytesPerTile = usable(found.planned);
    return planTiles(found.graph, withConstants(target, { bytesPerTile }), { samples: 1, temporary: found.bound / bytesPerTile });
  };
  const jointly = smaller(alone, joint) === joint ? again(joint) : undefined;
  const [found, { plan }] = jointly?.fits ? [joint, jointly] : [alone, again(alone)];
  return { graph: found.graph, plan, bytes: usable(found.planned), recompute: found.recompute, parts: found.parts, tried, bound: boundOf(found.graph, plan, target) };
}

/** Numbers of equal parts of a graph's samples, one by one first. */
function partsOfSamples(graph: Graph): number[] {
  const size = sampleRegion(graph)?.parts ?? 1;
  return Array.from({ length: size - 1 }, (_, i) => size - i).filter((n) => size % n === 0);
}

/** Bytes of copies, contributions and what receives them at the step where they are most. */
function mostTemporaries({ buffers }: TilePlan): number {
  const at: number[] = [];
  for (const b of buffers) if (b.viewOf === undefined && (b.kind === 'gather' || b.kind === 'partial' || b.kind === 'receive')) for (let s = b.birth; s <= b.death; s++) at[s] = (at[s] ?? 0) + b.bytes;
  return at.reduce((n, bytes) => Math.max(n, bytes), 0);
}

/** What bounds the memory of a tile from below for a plan of a graph: what is allocated throughout, and the op that takes the most where it is cut smallest. */
function boundOf(graph: Graph, plan: TilePlan, target: TileTarget): Bound {
  const always: ReadonlySet<BufferKind> = new Set(['state', 'constant', 'input', 'output']);
  const held = plan.buffers.filter((b) => b.viewOf === undefined && always.has(b.kind)).reduce((n, b) => n + sizeOf(b.shape) * dtypes[b.dtype as DType].bytes, 0);
  let [vertex, op] = [0, 'none'];
  const known = new Set<string>();
  const read = new Set([...graph.ops.flatMap((o) => o.operands), ...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  for (const o of graph.ops) {
    if (o.name === 'constant' || o.name === 'reshape') continue;
    const key = `${o.name} ${[...o.operands, ...o.results].map((v) => `${v.type.dtype}${v.type.shape.join()}`).join(' ')}`;
    if (known.has(key)) continue;
    known.add(key);
    const least = searchSplits(modelOf(walkOf(o)), target, 0, 1)[0]!.estimate;
    const made = o.results.filter((r) => read.has(r)).reduce((n, r) => n + dtypes[r.type.dtype].bytes, 0) / o.results.reduce((n, r) => n + dtypes[r.type.dtype].bytes, 0);
    const bytes = least.operands.reduce((n, b) => n + b, 0) + Math.max(least.result * made, least.partial);
    if (bytes > vertex) [vertex, op] = [bytes, o.source[0] ?? o.name];
  }
  return { always: Math.ceil(held / plan.tiles) + plan.memory.code, vertex, op };
}
