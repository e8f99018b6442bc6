/** Finds batch normalizations by what they compute, in training form, in inference form, or spelled out in single ops. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { openRegions, placedOps } from '../../ir/regions.ts';
import { matchNorm, valuesWithRoots, type MatchedNorm } from './match-norm.ts';
import { Structure } from './structure.ts';

/** Running statistics as the importer lists them. */
export interface Statistic {
  readonly state: Value;
  readonly next: Value | undefined;
}

/** y = (x - mean) / sqrt(variance + epsilon) · scale + bias, the statistics being those of each channel, axis 1. */
export interface BatchNorm {
  /** `training`: normalises by the statistics of the batch; `inference`: by given ones. */
  readonly form: 'training' | 'inference';
  readonly x: Value;
  /** The op that gives y. */
  readonly last: Op;
  readonly y: Value;
  /** Values whose product is the scale, each with one element a channel, or one. Empty: a scale of 1. */
  readonly scale: readonly Value[];
  readonly bias: Bias | undefined;
  readonly epsilon: number;
  /** In training form the values that it normalizes by, before they are reshaped. */
  readonly batch: { readonly mean: Value; readonly variance: Value } | undefined;
  readonly running: Running | undefined;
  /** The branches and loops in which it stands, outermost first. */
  readonly within: readonly Op[];
}

/** A product of values, each with one element a channel, or one, and its sign; no values: 1. */
export interface Bias {
  readonly factors: readonly Value[];
  readonly sign: 1 | -1;
}

/** What normalizes in inference. */
export interface Running {
  readonly mean: Value;
  readonly variance: Value;
  /** Share of the old value that an update keeps; undefined in inference form. */
  readonly momentum: number | undefined;
}

/**
 * The batch normalizations of a graph and of its regions, in its order: ops and values are those of the graph with open regions (ir/regions.ts). One that the scale of a layer follows ends
 * before it.
 */
export function findNorms(graph: Graph, statistics: readonly Statistic[] = []): BatchNorm[] {
  const open = openRegions(graph);
  const facts = new Structure(open);
  const running = runningByStatistic(facts, statistics);
  const rooted = valuesWithRoots(facts);
  const norms: BatchNorm[] = [];
  const inner = new Set<Value>();
  for (const { op, within } of [...facts.placed].reverse()) {
    const found = inner.has(op.results[0]!) ? undefined : matchNorm(facts, op, rooted);
    if (!found) continue;
    norms.push({ ...found, within, running: found.running ?? runningOf(found, running) });
    // What leads from x to the result may look like a normalization without its scale or shift.
    valuesBetween(facts, found).forEach((v) => inner.add(v));
  }
  return norms.reverse();
}

/** Data on the way from x to the result of a normalization. */
function valuesBetween(s: Structure, { x, y }: Pick<BatchNorm, 'x' | 'y'>): Set<Value> {
  const found = new Set<Value>([y]);
  for (const v of found) for (const o of s.def(v)?.operands ?? []) if (s.uncast(o) !== s.uncast(x) && !s.parameters.has(o) && s.def(o)) found.add(o);
  return found;
}

/** How errors say where a norm stands: `in a branch of If(x)`. */
export function placeOf({ within }: Pick<BatchNorm, 'within'>): string {
  const around = within.at(-1);
  return around ? `in ${around.name === 'if' ? 'a branch' : 'the body'} of ${around.source[0] ?? around.name}` : 'in the graph itself';
}

/** The ops of normalizations, from x to what they give, and what makes their parameters. */
export function opsOfNorms(graph: Graph, norms: readonly BatchNorm[]): Set<Op> {
  const found = new Set<Op>(norms.map((n) => n.last));
  const results = new Map(placedOps(graph).flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
  const uncast = (v: Value): Value => (results.get(v)?.name === 'cast' ? uncast(results.get(v)!.operands[0]!) : v);
  for (const norm of norms) {
    const start = uncast(norm.x);
    const queue = norm.last.operands.map((v) => results.get(v));
    while (queue.length > 0) {
      const op = queue.pop();
      if (!op || found.has(op) || op.results.some((r) => uncast(r) === start)) continue;
      found.add(op);
      queue.push(...op.operands.map((v) => results.get(v)));
    }
  }
  return found;
}

/** The running statistic that each statistic of a batch leads to: old · momentum + now · (1 - momentum). Inside regions no run keeps that sum, but it is there. */
function runningByStatistic(s: Structure, statistics: readonly Statistic[]): Map<Value, RunningStatistic> {
  const found = new Map<Value, RunningStatistic>();
  const states = new Set(statistics.map((x) => x.state));
  for (const { op: sum } of s.placed) {
    if (sum.name !== 'add') continue;
    const [p, q] = sum.operands as [Value, Value];
    for (const [kept, added] of [[p, q], [q, p]] as const) {
      const factors = factorsOf(s, kept);
      const state = factors.find((v) => states.has(v));
      const now = state && statisticIn(s, added);
      if (now) found.set(now, { state, momentum: factors.flatMap((v) => s.number(v) ?? [])[0] });
    }
  }
  return found;
}

interface RunningStatistic {
  readonly state: Value;
  readonly momentum: number | undefined;
}

function runningOf({ batch }: MatchedNorm, running: ReadonlyMap<Value, RunningStatistic>): Running | undefined {
  const [mean, variance] = [batch && running.get(batch.mean), batch && running.get(batch.variance)];
  return mean && variance ? { mean: mean.state, variance: variance.state, momentum: variance.momentum } : undefined;
}

/** The factors of any product or quotient, whichever way they count. */
function factorsOf(s: Structure, v: Value): Value[] {
  const bare = s.peel(v);
  const op = s.def(bare);
  return op?.name === 'mul' || op?.name === 'div' ? op.operands.flatMap((o) => factorsOf(s, o)) : [bare];
}

/** The statistic of a batch that a product has as a factor. */
function statisticIn(s: Structure, v: Value): Value | undefined {
  const bare = s.peel(v);
  if (s.statistic(bare)) return bare;
  const op = s.def(bare);
  return op?.name === 'mul' || op?.name === 'div' ? op.operands.map((o) => statisticIn(s, o)).find((o) => o !== undefined) : undefined;
}
