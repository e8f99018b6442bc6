/** Which way of cutting an op is taken, given where its operands lie. */
import type { Op, Value } from '../../ir/graph.ts';
import { countOf, type Cut, type Division, type Spread, type TileDim } from '../../ir/tiles.ts';
import { contributorsOf } from './contributors.ts';
import { divisionFrom, equalParts, isLocal, isShare, largestSlice, operandSpread, resultSpread } from './divide.ts';
import { estimate, modelOf, type Estimate, type Model } from './estimate.ts';
import type { Way } from './outlook.ts';
import { searchSplits, wholeSplit, type Split } from './search.ts';
import { changes, inSerial, overTime, serialOptions, timesOf } from './serial.ts';
import type { TileTarget } from './target.ts';
import { walkOf, type Walk } from './walk.ts';

/** How an op is run. */
export interface Choice {
  readonly walk: Walk;
  readonly division: Division;
  readonly estimate: Estimate;
  /** Slices of the operands that are read, and whether each lies where it is read. */
  readonly needs: readonly Spread[];
  /** Slices of the results that are made. */
  readonly made: Spread;
  readonly local: readonly boolean[];
  /** How many tiles contribute to each element of the result, at most. */
  readonly contributors: number;
  /** Estimated, exchange included. */
  readonly cycles: number;
  readonly temporary: number;
}

/** Searches by target, bound and what an op computes: blocks of a network repeat, and plans at other levels of recomputation have the same ops. */
const searches = new WeakMap<TileTarget, Map<string, { readonly model: Model; readonly splits: readonly Split[] }>>();

/** Splits of an op's own that are considered: of an op that moves or maps elements the best alone. */
const ownOf = ({ kind }: Walk): number => (kind === 'map' || kind === 'move' ? 1 : 4);

/** Chooses among splits that were searched. */
export class Chooser {
  readonly #target: TileTarget;
  readonly #bound: number;
  readonly #searched: Map<string, { readonly model: Model; readonly splits: readonly Split[] }>;
  readonly #ways = new Map<string, readonly Way[]>();
  /** Ops whose temporaries do not fit under the bound. */
  readonly relaxed: { readonly op: Op; readonly bytes: number }[] = [];

  constructor(target: TileTarget, bound: number) {
    this.#target = target;
    this.#bound = bound;
    this.#searched = searches.get(target) ?? new Map();
    searches.set(target, this.#searched);
  }

  /**
   * `homes`: where the operands lie. `free`: operands that can still be moved to where this op reads them, if their parts are shares of the tiles. `repeats`: the op may be split in time. `bound`: bytes of
   * temporaries for this op, where they are fewer than for others. `after`: cycles that a choice costs the ops that come.
   */
  choose(op: Op, homes: readonly Spread[], free: readonly boolean[], repeats: boolean, bound = this.#bound, after: (choice: Choice) => number = () => 0): Choice {
    const walk = walkOf(op);
    const key = keyOf(op);
    const searched = this.#search(walk, key, bound, false);
    const model: Model = { ...searched.model, walk };
    const bytes = op.operands.map((v, k) => model.operandBytes[k]! * v.type.shape.reduce((n, d) => n * d, 1));
    const inherited = [...bytes.keys()].filter((k) => bytes[k]! >= 64).sort((a, b) => bytes[b]! - bytes[a]!).slice(0, 3);
    const candidates: Division[] = [];
    for (const k of inherited) {
      const d = inheritedDivision(walk, key, k, homes[k]!);
      if (d) candidates.push(d);
    }
    const own = searched.splits.map((s) => divisionOf(walk, s));
    const options = [...candidates, ...own].map((d) => this.#judge(model, d, homes, free));
    let fitting = options.filter((o) => o.temporary <= bound);
    if (fitting.length === 0 && repeats) {
      const serial = this.#search(walk, key, bound, true).splits.map((s) => divisionOf(walk, s));
      options.push(...serial.flatMap((d) => (overTime(resultOf(walk, d, op.results[0]!.type.shape)) ? [this.#judge(model, d, homes, free)] : [])));
      fitting = options.filter((o) => o.temporary <= bound);
    }
    const best = fitting.length > 0 ? leastInAll(fitting, after) : options.reduce((a, b) => (b.temporary < a.temporary ? b : a));
    if (fitting.length === 0) this.relaxed.push({ op, bytes: best.temporary });
    return best;
  }

  /** The ways of running an op that were searched, the fastest first, operands apart. */
  waysOf(op: Op): readonly Way[] {
    const key = `${this.#bound} ${keyOf(op)}`;
    const known = this.#ways.get(key);
    if (known) return known;
    const walk = walkOf(op);
    const { model, splits } = this.#search(walk, keyOf(op), this.#bound, false);
    const found = splits.map((s): Way => {
      const division = divisionOf(walk, s);
      return { needs: this.#read({ ...model, walk }, division).needs, cycles: this.#inPlace({ ...model, walk }, division) };
    });
    this.#ways.set(key, found);
    return found;
  }

  /** Cycles of an op under a division, its operands apart. */
  cyclesOf(op: Op, division: Division): number {
    const walk = walkOf(op);
    return this.#inPlace({ ...this.#search(walk, keyOf(op), this.#bound, false).model, walk }, division);
  }

  /** Cycles under a division, as if every operand lay where it is read. */
  #inPlace(model: Model, division: Division): number {
    const { estimate: e, contributors } = this.#cut(model, division);
    const { exchange, sync, control } = this.#target.constants;
    return e.compute + e.merge + e.partial / exchange + (contributors > 1 ? 2 : 1) * (sync + control);
  }

  #search(walk: Walk, op: string, bound: number, serial: boolean): { readonly model: Model; readonly splits: readonly Split[] } {
    const key = `${bound} ${serial} ${op}`;
    const known = this.#searched.get(key);
    if (known) return known;
    const model = modelOf(walk);
    const splits = serial
      ? serialOptions(model).flatMap((s) => searchSplits(model, this.#target, bound, 2, s)).sort((a, b) => Number(a.temporary > bound) - Number(b.temporary > bound) || a.cycles - b.cycles).slice(0, 4)
      : walk.vars.length === 0 ? [wholeSplit(model, this.#target)] : searchSplits(model, this.#target, bound, ownOf(walk));
    const found = { model, splits };
    this.#searched.set(key, found);
    return found;
  }

  /** What a division makes of an op, wherever its operands lie. */
  #cut(model: Model, division: Division): CutOp {
    const done = cuts.get(division);
    if (done) return done;
    const { walk } = model;
    const { op } = walk;
    const sizes = walk.vars.map((v) => {
      const cut = division.ranges[v.name];
      return cut ? largestOf(cut) : v.size;
    });
    const made = resultOf(walk, division, op.results[0]!.type.shape);
    const contributors = contributorsOf(made, division);
    const found: CutOp = { estimate: division.flat ? flatEstimate(model, this.#target, largestOf(division.ranges['flat']!)) : estimate(model, this.#target, sizes, contributors), made, contributors };
    cuts.set(division, found);
    return found;
  }

  /** What a division reads of the operands of an op. */
  #read({ walk, operandBytes }: Model, division: Division): ReadOp {
    const done = reads.get(division);
    if (done) return done;
    // What stays the same in all serial parts has no dim in time.
    const needs = walk.op.operands.map((v, k) => {
      const need = operandSpread(walk, division, k, v.type.shape);
      return changes(need) ? need : overTime(need)!;
    });
    const found: ReadOp = { needs, overall: needs.map(overTime), held: needs.map((need, k) => largestSlice(need) * operandBytes[k]!) };
    reads.set(division, found);
    return found;
  }

  #judge(model: Model, division: Division, homes: readonly Spread[], free: readonly boolean[]): Choice {
    const { walk } = model;
    const { op } = walk;
    const t = this.#target;
    const times = timesOf(division);
    const { estimate: e, made, contributors } = this.#cut(model, division);
    const { needs, overall, held } = this.#read(model, division);
    const local = needs.map((need, k) => {
      const all = overall[k];
      return all !== undefined && (isLocal(all, homes[k]!) || (free[k]! && !changes(need) && isShare(need, op.operands[k]!.type.shape, t.constants.tiles)));
    });
    const received = held.reduce((n, b, k) => n + (local[k] ? 0 : b), 0);
    const sent = op.operands.reduce((n, _, k) => (local[k] ? n : Math.max(n, largestSlice(homes[k]!) * model.operandBytes[k]!)), 0);
    const steps = contributors > 1 ? 2 : 1;
    const arriving = held.reduce((n, b, k) => n + (local[k] ? 0 : b * (changes(needs[k]!) ? times : 1)), 0);
    const cycles = (e.compute + e.merge) * times + (Math.max(arriving, sent) + e.partial * times) / t.constants.exchange + times * steps * (t.constants.sync + t.constants.control);
    const temporary = Math.max(received + e.partial, 2 * e.partial);
    return { walk, division, estimate: e, needs, made, local, contributors, cycles, temporary };
  }
}

/** The choice of the fewest cycles, those after it included: choices that take more by themselves than the best so far in all are not looked at. */
function leastInAll(choices: readonly Choice[], after: (choice: Choice) => number): Choice {
  const sorted = [...choices].sort((a, b) => a.cycles - b.cycles);
  let best = sorted[0]!;
  if (sorted.length === 1) return best;
  let least = best.cycles + after(best);
  for (const o of sorted.slice(1)) {
    if (o.cycles >= least) break;
    const cycles = o.cycles + after(o);
    if (cycles < least) [best, least] = [o, cycles];
  }
  return best;
}

/** What depends on a division and its op alone. */
interface CutOp {
  readonly estimate: Estimate;
  readonly made: Spread;
  readonly contributors: number;
}
interface ReadOp {
  readonly needs: readonly Spread[];
  /** What each tile reads when all serial parts have passed; undefined where that is no product of combs. */
  readonly overall: readonly (Spread | undefined)[];
  /** Bytes of the largest slice of each operand. */
  readonly held: readonly number[];
}

/** A division is made for one op, or for ops that compute the same: it is taken up again in every plan, with other operands elsewhere. */
const cuts = new WeakMap<Division, CutOp>();
const reads = new WeakMap<Division, ReadOp>();
const ofSplits = new WeakMap<Split, Division>();
const ofSpreads = new WeakMap<Spread, Map<string, Division | undefined>>();

/** The division under which operand `k` of an op is read where it lies. `op`: what the op computes. */
export function inheritedDivision(walk: Walk, op: string, k: number, home: Spread): Division | undefined {
  let known = ofSpreads.get(home);
  if (!known) ofSpreads.set(home, (known = new Map()));
  const key = `${k} ${op}`;
  if (!known.has(key)) known.set(key, divisionFrom(walk, k, home));
  return known.get(key);
}

const ofDivisions = new WeakMap<Division, Map<string, Spread>>();

/** Where a division that was made for an op leaves a result of the given shape: the same object every time, so that what is known of it is found again. */
export function resultOf(walk: Walk, division: Division, shape: readonly number[]): Spread {
  let known = ofDivisions.get(division);
  if (!known) ofDivisions.set(division, (known = new Map()));
  const key = shape.join();
  let made = known.get(key);
  if (!made) known.set(key, (made = resultSpread(walk, division, shape)));
  return made;
}

/** Elements of the largest comb of a cut. */
const largestOf = (cut: Cut): number => cut.combs.reduce((n, c) => Math.max(n, countOf(c)), 0);

/** The estimate of an elementwise op on flattened slices. */
function flatEstimate(model: Model, t: TileTarget, elements: number): Estimate {
  const whole: Model = { ...model, walk: { ...model.walk, vars: [{ name: 'flat', size: elements, role: 'parallel', grain: 1 }] }, resultVars: [{ at: 0 }], fixedResult: 1, pieces: [] };
  return estimate(whole, t, [elements], 1);
}

/** A division by numbers of parts, serial ones too: columns and then reduced dims lie on neighbouring tiles. */
export function divisionOf(walk: Walk, split: Split): Division {
  let made = ofSplits.get(split);
  if (!made) {
    const { serial } = split;
    const v = serial && walk.vars[serial.at]!;
    made = divided(walk, split);
    if (v) made = inSerial(made, v.name, v.size, serial.times);
    ofSplits.set(split, made);
  }
  return made;
}

function divided(walk: Walk, split: Split): Division {
  const order = walk.vars.map((_, i) => i).filter((i) => split.parts[i]! > 1).sort((a, b) => rank(walk, a) - rank(walk, b) || a - b);
  const dims: TileDim[] = [];
  const ranges: Record<string, Cut> = {};
  let stride = split.parts.reduce((n, p) => n * p, 1);
  order.forEach((i) => {
    const v = walk.vars[i]!;
    const parts = split.parts[i]!;
    stride /= parts;
    const grain = split.sizes[i]! * parts >= v.size && split.sizes[i]! % 16 === 0 && Math.ceil(v.size / 16) >= parts && walk.kind === 'contract' ? grainOfSize(v.size, parts, split.sizes[i]!) : v.grain;
    ranges[v.name] = { by: [dims.length], combs: equalParts(v.size, parts, grain) };
    dims.push({ name: v.name, parts, stride });
  });
  return { base: 0, dims, ranges };
}

/** The grain under which equal parts have the size that was judged. */
function grainOfSize(size: number, parts: number, largest: number): number {
  for (const grain of [16, 8]) if (largest % grain === 0 && Math.ceil(Math.ceil(size / grain) / parts) * grain === largest) return grain;
  return 1;
}

const rank = (walk: Walk, i: number): number => (walk.vars[i]!.role === 'reduce' ? 2 : walk.vars[i]!.name === 'o' || walk.vars[i]!.name === 'i' ? 1 : 0);

const keys = new WeakMap<Op, string>();

/** What an op computes: equal for ops that differ in the names of their values alone. */
export function keyOf(op: Op): string {
  let key = keys.get(op);
  if (key === undefined) keys.set(op, (key = `${[...op.operands, ...op.results].map(typeOf).join(' ')} ${bodyOf(op)}`));
  return key;
}

const typeOf = (v: Value): string => `${v.type.dtype}[${v.type.shape.join()}]`;

function bodyOf(op: Op): string {
  const attrs = JSON.stringify(Object.entries(op.attrs).filter(([, v]) => typeof v !== 'object' || !('data' in v)), (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v));
  const regions = op.regions.map((r) => {
    const number = new Map<Value, number>();
    for (const v of [...r.inputs, ...r.ops.flatMap((o) => o.results)]) number.set(v, number.size);
    const numbers = (list: readonly Value[]): string => list.map((v) => number.get(v)).join();
    return `{${r.ops.map((o) => `${o.results.map(typeOf).join()}=${bodyOf(o)}(${numbers(o.operands)})`).join(';')} return ${numbers(r.outputs.map((o) => o.value))}}`;
  });
  return `${op.name} ${attrs} ${regions.join(' ')}`;
}
