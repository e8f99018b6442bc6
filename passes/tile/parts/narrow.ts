/** Looks for regions to compute in parts until a plan takes less memory. */
import type { Graph, Op, Value } from '../../../ir/graph.ts';
import type { RegionInParts, TilePlan, TileStep } from '../../../ir/tiles.ts';
import { bytesOf as bytesOfType, sizeOf } from '../../../ir/type.ts';
import type { Planned } from '../plan.ts';
import { totalCycles } from '../report.ts';
import { chainAt, inBands } from './bands.ts';
import { inParts, type PartOptions } from './in-parts.ts';
import { regionOf } from './region.ts';

/** A graph and its plan, and the regions in parts that made it of another, if any did. */
export interface Narrow { readonly graph: Graph; readonly planned: Planned; readonly regions?: readonly RegionInParts[] }

/** A graph with one more region in parts. */
interface Cut { readonly graph: Graph; readonly region: RegionInParts }

/** Values held at the fullest step whose axes are tried. */
const mostValues = 4;
/** Numbers of parts that are tried; the whole axis too where that is a short one. */
const numbers = [2, 4, 8, 16];
const mostParts = 16;
/** Values whose chains are tried in bands, and ops of a chain before and after the one that makes it. */
const mostBanded = 2;
const mostLinks = 4;
/** A region has to save this share of the bytes to be taken, */
const leastSaving = 0.005;
/** or, at no more than this share above, leave fewer steps as full as the fullest: blocks of a network repeat, and each is one step nearer. */
const mostLoss = 0.01;

export interface NarrowOptions {
  /** Plans a graph. */
  planAt(graph: Graph): Planned;
  /** Whether a plan is small enough. */
  enough(found: Narrow): boolean;
  /** Regions that are put in parts, one after the other, at most. */
  readonly rounds: number;
  /** Chains in bands are taken where they help at all, and regions in parts only where they do not: regions win more at once, bands leave less whole that stands in the way later. */
  readonly bandsFirst?: boolean;
  /** Ops of all graphs that are planned, at most. */
  readonly ops?: number;
}

/** Computes regions around the fullest step part by part, as long as that makes the plan smaller and it is not enough; of those that are, the fastest is taken. */
export function narrowed(start: Narrow, { planAt, enough, rounds, bandsFirst = false, ops = Infinity }: NarrowOptions): Narrow {
  let [smallest, best] = [start, start];
  let left = ops;
  const isBetter = (a: Narrow, b: Narrow): boolean => (enough(a) && enough(b) ? totalCycles(a.planned.plan) < totalCycles(b.planned.plan) : bytesOf(a) < bytesOf(b));
  for (let round = 0; round < rounds && !enough(best); round++) {
    const seen = new Set<string>();
    const leastOf = (cuts: Iterable<Cut>, least?: Narrow): Narrow | undefined => {
      let found = least;
      for (const { graph, region } of cuts) {
        const key = `${graph.ops.length} ${graph.ops.map((o) => o.results.map((r) => r.type.shape.join())).join(' ')}`;
        if (seen.has(key) || graph.ops.length > left) continue;
        seen.add(key);
        left -= graph.ops.length;
        const next = { graph, planned: planAt(graph), regions: [...(best.regions ?? []), region] };
        if (isNarrower(next, best) && (!found || isBetter(next, found))) found = next;
      }
      return found;
    };
    const found: Narrow | undefined = bandsFirst ? leastOf(inBandsAt(best)) ?? leastOf(inPartsAt(best)) : leastOf(inBandsAt(best), leastOf(inPartsAt(best)));
    if (!found) break;
    best = found;
    if (bytesOf(best) < bytesOf(smallest)) smallest = best;
  }
  return smallest;
}

const bytesOf = ({ planned }: Narrow): number => planned.plan.memory.total;

function isNarrower(next: Narrow, best: Narrow): boolean {
  if (bytesOf(next) < bytesOf(best) * (1 - leastSaving)) return true;
  const near = best.planned.plan.memory.peak * (1 - leastSaving);
  const full = ({ planned }: Narrow): number => planned.live.filter((bytes) => bytes > near).length;
  return bytesOf(next) <= bytesOf(best) * (1 + mostLoss) && full(next) < full(best);
}

/** The graph with the samples of its first input in parts: all of it that depends on them. Undefined where there are not several, or nothing can be cut. */
export function samplesInParts(graph: Graph, options: PartOptions & { readonly parts?: number } = {}): Graph | undefined {
  const region = sampleRegion(graph, options);
  return region && withRegions(graph, [region]);
}

/** The samples of a graph's first input in parts, one by one unless said. Undefined where there are not several. */
export function sampleRegion(graph: Graph, { parts, again = 'none' }: PartOptions & { readonly parts?: number } = {}): RegionInParts | undefined {
  const input = graph.inputs.findIndex((v) => v.type.shape.length > 0);
  const size = graph.inputs[input]?.type.shape[0] ?? 1;
  return size < 2 ? undefined : { from: { input }, axis: 0, parts: parts ?? size, first: 0, last: graph.ops.length - 1, again };
}

/** The graph with regions in parts, each cut out of what the one before it gave. Undefined where one is none. */
export function withRegions(graph: Graph, regions: readonly RegionInParts[]): Graph | undefined {
  let made: Graph | undefined = graph;
  for (const region of regions) made = made && withRegion(made, region);
  return made;
}

function withRegion(graph: Graph, { from, axis, parts, first, last, again, bands }: RegionInParts): Graph | undefined {
  const value = 'op' in from ? graph.ops[from.op]?.results[from.result] : 'input' in from ? graph.inputs[from.input] : graph.state[from.state]?.value;
  if (!value) return undefined;
  if (bands) {
    const chain = chainAt(graph, value, axis).slice(first, last + 1);
    return chain.length === 0 ? undefined : inBands(graph, chain, axis, parts);
  }
  const region = regionOf(graph, { value, axis, parts }, first, last);
  return region.cuts.size < 2 ? undefined : inParts(graph, region, { again });
}

/** How a region names a value of a graph. */
function nameOf(graph: Graph, value: Value): RegionInParts['from'] {
  const op = graph.ops.findIndex((o) => o.results.includes(value));
  if (op >= 0) return { op, result: graph.ops[op]!.results.indexOf(value) };
  const input = graph.inputs.indexOf(value);
  return input >= 0 ? { input } : { state: graph.state.findIndex((s) => s.value === value) };
}

/** Regions around the fullest step in parts. */
function* inPartsAt({ graph, planned: { plan } }: Narrow): Generator<Cut> {
  const place = new Map(graph.ops.flatMap((op, i) => op.results.map((r): [Value, number] => [r, i])));
  const readers = new Map<Value, number[]>();
  graph.ops.forEach((op, i) => op.operands.forEach((v) => readers.set(v, [...(readers.get(v) ?? []), i])));
  for (const value of valuesAt(graph, plan).slice(0, mostValues)) {
    const from = nameOf(graph, value);
    const at = place.get(value) ?? 0;
    const near = Math.max(at, ...(readers.get(value) ?? []));
    for (const [axis, size] of value.type.shape.entries()) {
      for (const parts of new Set([...numbers.filter((n) => size % n === 0), ...(size > 1 && size <= mostParts ? [size] : [])])) {
        for (const [first, last] of [[0, graph.ops.length - 1], [at, near], [0, near], [at, graph.ops.length - 1]] as const) {
          const region: RegionInParts = { from, axis, parts, first, last, again: 'none' };
          const made = withRegion(graph, region);
          if (made) yield { graph: made, region };
        }
      }
    }
  }
}

/** Chains around the fullest step in bands. */
function* inBandsAt({ graph, planned: { plan } }: Narrow): Generator<Cut> {
  for (const value of valuesAt(graph, plan).slice(0, mostBanded)) yield* banded(graph, value);
}

/** Chains through the op that makes a value, in bands: from its beginning or the op, to where less is left than before. */
function* banded(graph: Graph, value: Value): Generator<Cut> {
  for (let axis = 1; axis < value.type.shape.length; axis++) {
    const chain = chainAt(graph, value, axis);
    const at = chain.findIndex((op) => op.results[0] === value);
    const sizes = chain.map((op) => bytesOfType(op.results[0]!.type));
    for (const first of new Set([Math.max(0, at - mostLinks), Math.max(0, at - 1), at])) {
      for (let last = Math.max(at, first + 1); last < Math.min(chain.length, at + mostLinks); last++) {
        if (sizes[last]! >= Math.max(...sizes.slice(first, last))) continue;
        for (const parts of numbers) {
          const region: RegionInParts = { from: nameOf(graph, value), axis, parts, first, last, again: 'none', bands: true };
          const made = withRegion(graph, region);
          if (made) yield { graph: made, region };
        }
      }
    }
  }
}

/** Values that ops make and that are held at the fullest step, largest first, and those of the op that runs then. */
function valuesAt(graph: Graph, plan: TilePlan): Value[] {
  const made = new Map<number, Value>();
  let running: Op | undefined;
  const visit = (steps: readonly TileStep[]): void => {
    for (const s of steps) {
      if (s.kind === 'repeat') visit(s.body);
      else if (s.kind === 'compute') {
        const op = graph.ops[s.op]!;
        if (s.part !== 'contribute') s.writes.forEach((w, i) => made.set(w.buffer, op.results[i]!));
        if (s.index >= plan.memory.peakStep) running ??= op;
      }
    }
  };
  visit(plan.steps);
  const held = plan.buffers.filter((b) => b.birth <= plan.memory.peakStep && plan.memory.peakStep <= b.death && made.has(b.id)).sort((a, b) => b.bytes - a.bytes).map((b) => made.get(b.id)!);
  const run = running ? [...running.operands, ...running.results] : [];
  return [...new Set([...held, ...run])].sort((a, b) => sizeOf(b.type.shape) - sizeOf(a.type.shape)).filter((v) => v.type.shape.some((d) => d > 1));
}
