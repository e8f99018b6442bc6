/** Looks for regions to compute in parts until a plan takes less memory. */
import type { Graph, Op, Value } from '../../../ir/graph.ts';
import type { TilePlan, TileStep } from '../../../ir/tiles.ts';
import { bytesOf as bytesOfType, sizeOf } from '../../../ir/type.ts';
import type { Planned } from '../plan.ts';
import { chainAt, inBands } from './bands.ts';
import { inParts, type PartOptions } from './in-parts.ts';
import { regionOf, type Seed } from './region.ts';

/** A graph and its plan. */
export interface Narrow { readonly graph: Graph; readonly planned: Planned }

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
}

/** Computes regions around the fullest step part by part, as long as that makes the plan smaller. */
export function narrowed(start: Narrow, { planAt, enough, rounds, bandsFirst = false }: NarrowOptions): Narrow {
  let [smallest, best] = [start, start];
  for (let round = 0; round < rounds && !enough(best); round++) {
    const seen = new Set<string>();
    const leastOf = (graphs: Iterable<Graph>, least?: Narrow): Narrow | undefined => {
      let found = least;
      for (const graph of graphs) {
        const key = `${graph.ops.length} ${graph.ops.map((o) => o.results.map((r) => r.type.shape.join())).join(' ')}`;
        if (seen.has(key)) continue;
        seen.add(key);
        const next = { graph, planned: planAt(graph) };
        if (isNarrower(next, best) && (!found || bytesOf(next) < bytesOf(found))) found = next;
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
  const value = graph.inputs.find((v) => v.type.shape.length > 0);
  const size = value?.type.shape[0] ?? 1;
  if (!value || size < 2) return undefined;
  const region = regionOf(graph, { value, axis: 0, parts: options.parts ?? size });
  return region.cuts.size < 2 ? undefined : inParts(graph, region, options);
}

/** Regions around the fullest step in parts. */
function* inPartsAt({ graph, planned: { plan } }: Narrow): Generator<Graph> {
  const place = new Map(graph.ops.flatMap((op, i) => op.results.map((r): [Value, number] => [r, i])));
  const readers = new Map<Value, number[]>();
  graph.ops.forEach((op, i) => op.operands.forEach((v) => readers.set(v, [...(readers.get(v) ?? []), i])));
  for (const value of valuesAt(graph, plan).slice(0, mostValues)) {
    const from = place.get(value) ?? 0;
    const near = Math.max(from, ...(readers.get(value) ?? []));
    for (const [axis, size] of value.type.shape.entries()) {
      for (const parts of new Set([...numbers.filter((n) => size % n === 0), ...(size > 1 && size <= mostParts ? [size] : [])])) {
        const seed: Seed = { value, axis, parts };
        for (const [first, last] of [[0, graph.ops.length - 1], [from, near], [0, near], [from, graph.ops.length - 1]] as const) {
          const region = regionOf(graph, seed, first, last);
          if (region.cuts.size > 1) yield inParts(graph, region);
        }
      }
    }
  }
}

/** Chains around the fullest step in bands. */
function* inBandsAt({ graph, planned: { plan } }: Narrow): Generator<Graph> {
  for (const value of valuesAt(graph, plan).slice(0, mostBanded)) yield* banded(graph, value);
}

/** Chains through the op that makes a value, in bands: from its beginning or the op, to where less is left than before. */
function* banded(graph: Graph, value: Value): Generator<Graph> {
  for (let axis = 1; axis < value.type.shape.length; axis++) {
    const chain = chainAt(graph, value, axis);
    const at = chain.findIndex((op) => op.results[0] === value);
    const sizes = chain.map((op) => bytesOfType(op.results[0]!.type));
    for (const from of new Set([Math.max(0, at - mostLinks), Math.max(0, at - 1), at])) {
      for (let to = Math.max(at, from + 1); to < Math.min(chain.length, at + mostLinks); to++) {
        if (sizes[to]! >= Math.max(...sizes.slice(from, to))) continue;
        for (const bands of numbers) {
          const made = inBands(graph, chain.slice(from, to + 1), axis, bands);
          if (made) yield made;
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
