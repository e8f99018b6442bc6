/** Finds batch normalizations by what they compute, in training form, in inference form, or spelled out in single ops. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { isControl, openRegions, placedOps, type Placed } from '../../ir/regions.ts';
import { sizeOf, type Tensor } from '../../ir/type.ts';
import { uniform } from '../rules/pattern.ts';

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
  readonly bias: Value;
  readonly epsilon: number;
  /** In training form the `moments` of x. */
  readonly moments: Op | undefined;
  readonly running: Running | undefined;
  /** The branches and loops in which it stands, outermost first. */
  readonly within: readonly Op[];
}

/** What normalizes in inference. */
export interface Running {
  readonly mean: Value;
  readonly variance: Value;
  /** Share of the old value that an update keeps; undefined in inference form. */
  readonly momentum: number | undefined;
}

/** The batch normalizations of a graph and of its regions, in its order: ops and values are those of the graph with open regions (ir/regions.ts). */
export function findNorms(graph: Graph, statistics: readonly Statistic[] = []): BatchNorm[] {
  const facts = new Structure(openRegions(graph));
  const running = runningByMoments(facts, statistics);
  return facts.placed.flatMap(({ op, within }) => {
    const norm = op.name === 'add' ? (matchNorm(facts, op, 0) ?? matchNorm(facts, op, 1)) : undefined;
    return norm ? [{ ...norm, within, running: norm.running ?? (norm.moments && running.get(norm.moments)) }] : [];
  });
}

/** How errors say where a norm stands: `in a branch of If(x)`. */
export function placeOf({ within }: Pick<BatchNorm, 'within'>): string {
  const around = within.at(-1);
  return around ? `in ${around.name === 'if' ? 'a branch' : 'the body'} of ${around.source[0] ?? around.name}` : 'in the graph itself';
}

/** Values that depend on parameters and constants alone, in a loop also on the number of the iteration; those of regions as they are where regions are open. */
export function parameterValues(graph: Graph): Set<Value> {
  const known = new Set<Value>(graph.state.map((s) => s.value));
  const visit = (ops: readonly Op[]): void => {
    for (const op of ops) {
      const alone = opDef(op.name).family !== 'random' && op.operands.every((v) => known.has(v));
      if (isControl(op)) enter(op, alone);
      else if (alone) op.results.forEach((r) => known.add(r));
    }
  };
  // What a loop carries may be anything after an iteration; a branch gives what both of its regions know.
  const enter = (op: Op, alone: boolean): void => {
    if (op.name === 'loop') known.add(op.regions[0]!.inputs[0]!);
    op.regions.forEach((region) => visit(region.ops));
    if (op.name === 'if' && alone) op.results.forEach((r, i) => op.regions.every((region) => known.has(region.outputs[i]!.value)) && known.add(r));
  };
  visit(openRegions(graph).ops);
  return known;
}

/** Lookups that matching needs, in a graph with open regions. */
class Structure {
  readonly placed: readonly Placed[];
  readonly parameters: Set<Value>;
  readonly #defs: ReadonlyMap<Value, Op>;

  constructor(graph: Graph) {
    this.placed = placedOps(graph);
    this.#defs = new Map(this.placed.flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
    this.parameters = parameterValues(graph);
  }

  def(v: Value): Op | undefined {
    return this.#defs.get(v);
  }

  /** What a value is before reshapes and casts. */
  peel(v: Value): Value {
    const op = this.#defs.get(v);
    return op && (op.name === 'reshape' || op.name === 'cast') ? this.peel(op.operands[0]!) : v;
  }

  /** The number that a constant equals everywhere. */
  number(v: Value): number | undefined {
    const op = this.#defs.get(this.peel(v));
    return op?.name === 'constant' ? uniform(op.attrs['value'] as Tensor) : undefined;
  }
}

/** A product as its factors; a deviation is sqrt(inside)^power. */
interface Product {
  readonly factors: { readonly value: Value; readonly power: 1 | -1 }[];
  readonly deviations: { readonly inside: Value; readonly power: 1 | -1 }[];
}

/** Takes products and quotients apart, down to values that are none. A product of data without a deviation is what is normalized: it stays whole. */
function factorize(s: Structure, v: Value, power: 1 | -1 = 1): Product {
  const bare = s.peel(v);
  const parts = partsOf(s, s.def(bare), power, factorize);
  return parts && (parts.deviations.length > 0 || s.parameters.has(bare)) ? parts : { factors: [{ value: bare, power }], deviations: [] };
}

/** The factors of any product. */
const allFactors = (s: Structure, v: Value, power: 1 | -1 = 1): Product => partsOf(s, s.def(s.peel(v)), power, allFactors) ?? { factors: [{ value: s.peel(v), power }], deviations: [] };

/** What an op multiplies or divides, each part taken apart by `apart`; undefined for other ops. */
function partsOf(s: Structure, op: Op | undefined, power: 1 | -1, apart: (s: Structure, v: Value, power: 1 | -1) => Product): Product | undefined {
  const inverse = power === 1 ? -1 : 1;
  const [p, q] = op?.operands ?? [];
  switch (op?.name) {
    case 'mul':
      return joined(apart(s, p!, power), apart(s, q!, power));
    case 'div':
      return joined(apart(s, p!, power), apart(s, q!, inverse));
    case 'recip':
      return apart(s, p!, inverse);
    case 'sqrt':
    case 'rsqrt':
      return { factors: [], deviations: [{ inside: p!, power: op.name === 'sqrt' ? power : inverse }] };
    default:
      return undefined;
  }
}

const joined = (a: Product, b: Product): Product => ({ factors: [...a.factors, ...b.factors], deviations: [...a.deviations, ...b.deviations] });

type Found = Omit<BatchNorm, 'running' | 'within'> & { readonly running: Running | undefined };

function matchNorm(s: Structure, last: Op, at: 0 | 1): Found | undefined {
  const [product, shift] = [last.operands[at]!, last.operands[1 - at]!];
  const y = last.results[0]!;
  if (y.type.shape.length < 2 || s.parameters.has(y) || !s.parameters.has(shift) || s.parameters.has(product)) return undefined;
  const { factors, deviations } = factorize(s, product);
  const [deviation] = deviations;
  if (deviations.length !== 1 || deviation!.power !== -1) return undefined;
  const variance = varianceOf(s, deviation!.inside);
  const data = factors.filter((f) => !s.parameters.has(f.value));
  const scale = factors.filter((f) => s.parameters.has(f.value));
  if (!variance || data.length !== 1 || factors.some((f) => f.power !== 1)) return undefined;
  const gain = scale.map((f) => f.value);
  const centred = s.def(data[0]!.value);
  const common = { last, y, scale: gain, epsilon: variance.epsilon };
  if (centred?.name === 'sub') {
    const [x, mean] = [centred.operands[0]!, s.peel(centred.operands[1]!)];
    const moments = s.def(mean);
    if (moments?.name === 'moments') {
      const fits = moments.results[0] === mean && moments.operands[0] === x && overBatch(moments) && isVarianceOf(s, variance.value, moments);
      return fits && perChannel(y, gain, shift) ? { ...common, form: 'training', x, bias: s.peel(shift), moments, running: undefined } : undefined;
    }
    if (!s.parameters.has(mean) || !perChannel(y, gain, shift, mean, variance.value)) return undefined;
    return { ...common, form: 'inference', x, bias: s.peel(shift), moments: undefined, running: { mean, variance: variance.value, momentum: undefined } };
  }
  return matchFolded(s, common, data[0]!.value, variance.value, shift);
}

/** x · gain + (bias - mean · gain). */
function matchFolded(s: Structure, common: Pick<Found, 'last' | 'y' | 'scale' | 'epsilon'>, x: Value, variance: Value, shift: Value): Found | undefined {
  const sub = s.def(s.peel(shift));
  if (sub?.name !== 'sub' || !s.parameters.has(variance)) return undefined;
  const { factors, deviations } = factorize(s, sub.operands[1]!);
  const rest = factors.filter((f) => !common.scale.includes(f.value));
  const [mean] = rest;
  const same = deviations.length === 1 && varianceOf(s, deviations[0]!.inside)?.value === variance && rest.length === 1 && factors.length === common.scale.length + 1;
  const bias = s.peel(sub.operands[0]!);
  if (!same || !mean || !perChannel(common.y, common.scale, bias, mean.value, variance)) return undefined;
  return { ...common, form: 'inference', x, bias, moments: undefined, running: { mean: mean.value, variance, momentum: undefined } };
}

/** variance + epsilon. */
function varianceOf(s: Structure, inside: Value): { readonly value: Value; readonly epsilon: number } | undefined {
  const op = s.def(s.peel(inside));
  const epsilon = op?.name === 'add' ? s.number(op.operands[1]!) : undefined;
  return op && epsilon !== undefined ? { value: s.peel(op.operands[0]!), epsilon } : undefined;
}

/** Whether a value is m2 / count of these moments. */
function isVarianceOf(s: Structure, v: Value, moments: Op): boolean {
  const op = s.def(v);
  return op?.name === 'div' && s.peel(op.operands[0]!) === moments.results[1] && s.number(op.operands[1]!) !== undefined;
}

/** Whether moments are taken over all axes but the channels. */
function overBatch(moments: Op): boolean {
  const rank = moments.operands[0]!.type.shape.length;
  const axes = nums(moments.attrs, 'axes');
  return axes.length === rank - 1 && !axes.includes(1);
}

function perChannel(y: Value, scale: readonly Value[], ...others: readonly Value[]): boolean {
  return [...scale, ...others].every((v) => [1, y.type.shape[1]!].includes(sizeOf(v.type.shape)));
}

/** Which running statistics each `moments` op leads to: old · momentum + now · (1 - momentum). Inside regions no run keeps that sum, but it is there. */
function runningByMoments(s: Structure, statistics: readonly Statistic[]): Map<Op, Running> {
  const found = new Map<Op, Partial<Running>>();
  const states = new Set(statistics.map((x) => x.state));
  for (const { op: sum } of s.placed) {
    if (sum.name !== 'add') continue;
    const [kept, added] = sum.operands.map((v) => allFactors(s, v).factors.map((f) => f.value));
    const state = kept!.find((v) => states.has(v));
    if (!state) continue;
    const momentum = kept!.flatMap((v) => s.number(v) ?? [])[0];
    for (const v of added!) {
      const op = s.def(v);
      if (op?.name !== 'moments') continue;
      found.set(op, { ...found.get(op), momentum, [v === op.results[0] ? 'mean' : 'variance']: state });
    }
  }
  return new Map([...found].flatMap(([op, r]) => (r.mean && r.variance ? [[op, { mean: r.mean, variance: r.variance, momentum: r.momentum }]] : [])));
}
