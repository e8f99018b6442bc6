/** A graph as layouts are chosen for it: where values lie at the start, the ways of running each op, and where each way leaves values. */
import type { Graph, Op, Value } from '../../../ir/graph.ts';
import type { Division, Spread } from '../../../ir/tiles.ts';
import { dtypes } from '../../../ir/type.ts';
import { Chooser, resultSpreadOf, settled, type Choice } from '../choose.ts';
import { isLocal, largestSlice } from '../divide.ts';
import { evenly, viewed } from '../divisions.ts';
import { Outlook } from '../outlook.ts';
import { toGrain, type TileTarget } from '../target.ts';
import { walkOf } from '../walk.ts';
import { divisionTo, Wishes } from './wishes.ts';

export interface LayoutOptions {
  /** Bytes of temporaries that one op may take on a tile. */
  readonly bound: number;
  /** Those of single ops, by their number. */
  readonly bounds: ReadonlyMap<number, number>;
  /** Whether products may run in serial parts. */
  readonly serial: boolean;
}

/** Where values lie. */
export interface Homes { get(v: Value): Spread | undefined }
/** A value and where it lies. */
export type Place = readonly [value: Value, at: Spread];

/** Everything about a graph that does not change while its layouts are chosen. */
export class Program {
  readonly graph: Graph;
  readonly target: TileTarget;
  readonly options: LayoutOptions;
  readonly chooser: Chooser;
  readonly outlook: Outlook;
  /** Numbers of the ops that read a value, in order. */
  readonly readers = new Map<Value, number[]>();
  /** State by its new value. */
  readonly #updates = new Map<Value, Value[]>();
  /** Constants and inputs, which can be moved to where their first reader wants them. */
  readonly #movable = new Set<Value>();
  readonly #wishes: Wishes;
  /** Divisions that leave a value where its readers would like it. */
  readonly #wished = new Map<Value, readonly Division[]>();

  constructor(graph: Graph, target: TileTarget, options: LayoutOptions) {
    this.graph = graph;
    this.target = target;
    this.options = options;
    this.chooser = new Chooser(target, options.bound);
    this.outlook = new Outlook(graph, target, this.chooser);
    this.#wishes = new Wishes(this);
    graph.ops.forEach((op, i) => {
      for (const v of new Set(op.operands)) this.readers.set(v, [...(this.readers.get(v) ?? []), i]);
      if (op.name === 'constant') op.results.forEach((r) => this.#movable.add(r));
    });
    for (const u of graph.updates) this.#updates.set(u.value, [...(this.#updates.get(u.value) ?? []), u.state]);
    const updated = new Set(graph.updates.map((u) => u.state));
    for (const v of [...graph.inputs, ...graph.state.map((s) => s.value)]) if (!updated.has(v)) this.#movable.add(v);
  }

  /** Where values lie that are there from the start. */
  start(): Map<Value, Spread> {
    const { graph, target } = this;
    const values = [...graph.inputs, ...graph.state.map((s) => s.value), ...graph.ops.flatMap((op) => (op.name === 'constant' ? op.results : []))];
    return new Map(values.map((v) => [v, evenly(v, target)]));
  }

  /** Whether a value still lies as at the start, and can be moved, when op `i` reads it. */
  isFree(v: Value, i: number): boolean {
    return this.#movable.has(v) && this.readers.get(v)![0] === i;
  }

  /** Where the operands of op `i` lie when it comes. `homes` may know where its first reader has moved a value. */
  operandsOf(i: number, homes: Homes): Spread[] {
    return this.graph.ops[i]!.operands.map((v) => (this.isFree(v, i) ? evenly(v, this.target) : homes.get(v)!));
  }

  /** Where op `i` leaves its result without running, as a view of its operand. */
  viewOf(i: number, homes: Homes): Spread | undefined {
    const op = this.graph.ops[i]!;
    return op.name === 'reshape' ? viewed(op, homes.get(op.operands[0]!)!) : undefined;
  }

  /** Ways of running op `i`. */
  optionsOf(i: number, homes: Homes): readonly Choice[] {
    const op = this.graph.ops[i]!;
    // New state lies where the old one does, whole.
    const repeats = this.options.serial && op.results.length === 1 && !this.#updates.has(op.results[0]!);
    return this.chooser.options(op, this.operandsOf(i, homes), this.#freeOf(op, i), repeats, this.boundOf(i), this.#wishedOf(op));
  }

  /** Divisions under which an op leaves its result where readers would like it. */
  #wishedOf(op: Op): readonly Division[] {
    const [result] = op.results;
    if (!result) return [];
    let known = this.#wished.get(result);
    if (!known) this.#wished.set(result, (known = this.#wishes.of(result).flatMap((s) => divisionTo(walkOf(op), s) ?? [])));
    return known;
  }

  /** Bytes that the temporaries of op `i` may take. */
  boundOf(i: number): number {
    return this.options.bounds.get(i) ?? this.options.bound;
  }

  #freeOf(op: Op, i: number): boolean[] {
    // A reshape that moves elements has tried to be a view before.
    return op.operands.map((v) => op.name !== 'reshape' && this.isFree(v, i) && op.operands.indexOf(v) === op.operands.lastIndexOf(v));
  }

  /** Where op `i` leaves its results, and moves operands that nothing has read before. */
  placesAfter(i: number, choice: Choice): Place[] {
    const op = this.graph.ops[i]!;
    const places: Place[] = op.results.map((r, at) => [r, resultSpreadOf(choice, at)]);
    op.operands.forEach((v, k) => {
      const moved = op.name !== 'reshape' && this.isFree(v, i) && op.operands.indexOf(v) === k && settled(choice, k, evenly(v, this.target));
      if (moved) places.push([v, moved]);
    });
    return places;
  }

  /** Cycles at the end of a run of bringing a value that op `i` made home to the state that it replaces: none, where it is made over it. */
  homeCycles([v, at]: Place, i: number): number {
    let bytes = 0;
    for (const state of this.#updates.get(v) ?? []) {
      const home = evenly(state, this.target);
      if (!isLocal(at, home) || (this.readers.get(state)?.at(-1) ?? -1) > i) bytes += toGrain(this.target, largestSlice(home) * dtypes[state.type.dtype].bytes);
    }
    return bytes / this.target.constants.exchange;
  }
}
