/** What a layout costs the ops that read it, so that layouts are chosen jointly along the graph. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import type { Spread } from '../../ir/tiles.ts';
import { bytesOf, dtypes } from '../../ir/type.ts';
import type { Chooser } from './choose.ts';
import { isLocal, largestSlice, signature } from './divide.ts';
import { inheritedDivision, resultOf } from './divisions.ts';
import { keyOf } from './op-key.ts';
import type { TileTarget } from './target.ts';
import { walkOf } from './walk.ts';

/** A way of running an op, as if all its operands lay where it reads them. */
export interface Way {
  readonly needs: readonly Spread[];
  readonly cycles: number;
}

/** Readers of values whose operands take fewer bytes than this are of no account. */
const leastBytes = 1024;
/** Cycles that come after a layout: of each op that reads it, what the best of its ways costs more from there than from where it would like it. */
export class Outlook {
  readonly #target: TileTarget;
  readonly #chooser: Chooser;
  readonly #readers = new Map<Value, { readonly op: Op; readonly at: number; readonly k: number }[]>();
  readonly #known = new Map<string, number>();
  readonly #numbers = new WeakMap<Op, number>();
  #next = 0;

  constructor(graph: Graph, target: TileTarget, chooser: Chooser) {
    this.#target = target;
    this.#chooser = chooser;
    graph.ops.forEach((op, at) => op.operands.forEach((v, k) => {
      if (bytesOf(v.type) >= leastBytes) this.#readers.set(v, [...(this.#readers.get(v) ?? []), { op, at, k }]);
    }));
  }

  /** Cycles on the worst tile that the readers of a value pay for its layout, those after op number `index`. */
  cyclesAfter(v: Value, spread: Spread, index = -1): number {
    let sum = 0;
    for (const { op, at, k } of this.#readers.get(v) ?? []) if (at > index) sum += this.cyclesOf(op, k, spread);
    return sum;
  }

  /** Cycles on the worst tile that an op pays for the layout of operand `k`. */
  cyclesOf(op: Op, k: number, spread: Spread): number {
    if (bytesOf(op.operands[k]!.type) < leastBytes) return 0;
    // A reshape is what its readers are; other ops are alike where they compute the same.
    const key = `${op.name === 'reshape' ? this.#number(op) : keyOf(op)} ${k} ${signature(spread)}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const cycles = this.#worked(op, k, spread);
    this.#known.set(key, cycles);
    return cycles;
  }

  #worked(op: Op, k: number, spread: Spread): number {
    const walk = walkOf(op);
    // It gathers all of its operands on one tile, wherever they are.
    if (walk.kind === 'single') return 0;
    if (op.name === 'reshape') {
      const division = spread.flat ? undefined : inheritedDivision(walk, keyOf(op), 0, spread);
      const [result] = op.results;
      if (division) return this.cyclesAfter(result!, resultOf(walk, division, result!.type.shape));
      if (spread.flat) return 0;
    }
    const ways = this.#chooser.waysOf(op);
    const least = ways.reduce((n, w) => Math.min(n, w.cycles), Infinity);
    const cycles = ways.reduce((n, way) => Math.min(n, way.cycles - least + this.#move(op.operands[k]!, spread, way.needs[k]!)), Infinity);
    const own = cycles > 0 ? inheritedDivision(walk, keyOf(op), k, spread) : undefined;
    return own ? Math.min(cycles, Math.max(0, this.#chooser.cyclesOf(op, own) - least)) : cycles;
  }

  /** Exchange from one layout to another. */
  #move(v: Value, from: Spread, to: Spread): number {
    if (isLocal(to, from)) return 0;
    return (Math.max(largestSlice(to), largestSlice(from)) * dtypes[v.type.dtype].bytes) / this.#target.constants.exchange;
  }

  #number(x: Op): number {
    let n = this.#numbers.get(x);
    if (n === undefined) this.#numbers.set(x, (n = this.#next++));
    return n;
  }
}
