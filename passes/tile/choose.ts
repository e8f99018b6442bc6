/** Which way of cutting an op is taken, given where its operands lie. */
import type { Op } from '../../ir/graph.ts';
import { countOf, type Cut, type Division, type Spread } from '../../ir/tiles.ts';
import { sameShape } from '../../ir/type.ts';
import { contributorsOf } from './contributors.ts';
import { isLocal, isShare, largestSlice, operandSpread } from './divide.ts';
import { divisionOf, inheritedDivision, resultOf } from './divisions.ts';
import { estimate, modelOf, type Estimate, type Model } from './estimate.ts';
import { contributes } from './lower/contributing.ts';
import { mergeSpread } from './lower/merge-spread.ts';
import { keyOf } from './op-key.ts';
import type { Way } from './outlook.ts';
import { searchSplits, wholeSplit, type Split } from './search.ts';
import { changes, overTime, serialOptions } from './serial.ts';
import { stepCycles } from './step-cycles.ts';
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
  /** Where contributions meet, if there are several to an element. */
  readonly meet: Spread | undefined;
  /** Of all its steps, exchange included. */
  readonly cycles: number;
  readonly temporary: number;
}

/** Searches by target, bound and what an op computes: blocks of a network repeat, and plans at other levels of recomputation have the same ops. */
const searches = new WeakMap<TileTarget, Map<string, { readonly model: Model; readonly splits: readonly Split[] }>>();

/** Splits of an op's own that are considered: of an op that moves or maps elements the best alone. */
const ownOf = ({ kind }: Walk): number => (kind === 'map' || kind === 'move' ? 1 : 12);

/** Knows the ways of cutting each op, and what they cost. */
export class Chooser {
  readonly #target: TileTarget;
  readonly #bound: number;
  readonly #searched: Map<string, { readonly model: Model; readonly splits: readonly Split[] }>;
  readonly #ways = new Map<string, readonly Way[]>();

  constructor(target: TileTarget, bound: number) {
    this.#target = target;
    this.#bound = bound;
    this.#searched = searches.get(target) ?? new Map();
    searches.set(target, this.#searched);
  }

  /**
   * Ways of running an op whose temporaries fit under the bound; where there is none, the smallest. `homes`: where the operands lie. `free`: operands that can still be moved to where this op reads them, if their parts are
   * shares of the tiles. `repeats`: the op may be split in time, where nothing else fits. `bound`: bytes of temporaries for this op, where they are fewer than for others. `wished`: further
   * divisions that are considered.
   */
  options(op: Op, homes: readonly Spread[], free: readonly boolean[], repeats: boolean, bound = this.#bound, wished: readonly Division[] = []): readonly Choice[] {
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
    const all = [...candidates, ...own, ...wished].map((d) => this.#judge(model, d, homes, free));
    const fitting = all.filter((o) => o.temporary <= bound);
    if (fitting.length > 0) return fitting;
    if (repeats) {
      const serial = this.#search(walk, key, bound, true).splits.map((s) => divisionOf(walk, s)).filter((d) => overTime(resultOf(walk, d, op.results[0]!.type.shape)));
      all.push(...serial.map((d) => this.#judge(model, d, homes, free)));
    }
    const later = all.filter((o) => o.temporary <= bound);
    return later.length > 0 ? later : [all.reduce((a, b) => (b.temporary < a.temporary ? b : a))];
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
    const { estimate: e, made, contributors } = this.#cut(model, division);
    const { needs, overall, held } = this.#read(model, division);
    const local = needs.map((need, k) => {
      const all = overall[k];
      return all !== undefined && (isLocal(all, homes[k]!) || (free[k]! && !changes(need) && isShare(need, op.operands[k]!.type.shape, t.constants.tiles)));
    });
    const received = held.reduce((n, b, k) => n + (local[k] ? 0 : b), 0);
    const cut = { walk, division, estimate: e, needs, made, local, contributors };
    const meet = contributors > 1 ? mergeSpread(cut, homes, t.constants.tiles) : undefined;
    return { ...cut, meet, cycles: stepCycles(t, cut, homes, meet), temporary: Math.max(received + e.partial, 2 * e.partial) };
  }
}

/** Where a choice leaves result `i` of its op. */
export function resultSpreadOf(choice: Choice, i: number): Spread {
  const { walk: { op }, walk, division, made, meet } = choice;
  const { shape } = op.results[i]!.type;
  // Results of control flow differ in shape.
  return overTime(meet ?? (i === 0 || sameShape(shape, op.results[0]!.type.shape) ? made : resultOf(walk, division, shape)))!;
}

/** Where operand `k` of an op, which nothing has read before, is moved to from `home`: to where the op reads it, if that is a share for each tile. */
export function settled({ walk, needs, local, contributors }: Choice, k: number, home: Spread): Spread | undefined {
  const need = needs[k]!;
  if (!local[k] || (contributors > 1 && !contributes(walk.op, walk.root, k)) || changes(need) || isLocal(need, home)) return undefined;
  return need;
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

/** Elements of the largest comb of a cut. */
const largestOf = (cut: Cut): number => cut.combs.reduce((n, c) => Math.max(n, countOf(c)), 0);

/** The estimate of an elementwise op on flattened slices. */
function flatEstimate(model: Model, t: TileTarget, elements: number): Estimate {
  const whole: Model = { ...model, walk: { ...model.walk, vars: [{ name: 'flat', size: elements, role: 'parallel', grain: 1 }] }, resultVars: [{ at: 0 }], fixedResult: 1, pieces: [] };
  return estimate(whole, t, [elements], 1);
}
