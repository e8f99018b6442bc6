/** Which elements the parts of a spread hold together, and whether they supply the slices of another. */
import type { Plan, Spread } from './plan.ts';
import { sizeOf, spreadKey, type Slices } from './slices.ts';

/** An element that a tile needs and no part supplies; how many there are on that tile. */
export interface Missing { readonly tile: number; readonly element: number; readonly count: number }

/** Contributions by element: by axis, where axes are cut apart from each other, else by row-major number. */
type Held = { readonly whole: boolean; readonly most: number } & ({ readonly axes: readonly Int32Array[] } | { readonly numbers: Int32Array });

/** Coverage of a plan's spreads; answers are kept, for plans repeat them. */
export class Coverage {
  readonly #plan: Plan;
  readonly #slices: Slices;
  readonly #held = new Map<string, Held>();
  readonly #missing = new Map<string, Missing | undefined>();

  constructor(plan: Plan, slices: Slices) {
    this.#plan = plan;
    this.#slices = slices;
  }

  /** Whether every element of the tensor is on some tile. */
  isWhole(spread: Spread, shape: readonly number[], iteration: number): boolean {
    return this.#of(spread, shape, iteration).whole;
  }

  /** The most parts that hold one element. */
  contributors(spread: Spread, shape: readonly number[], iteration: number): number {
    return this.#of(spread, shape, iteration).most;
  }

  /** The first element of a part of `to` that no part of `from` holds. */
  missing(from: Spread, to: Spread, shape: readonly number[], iteration: number): Missing | undefined {
    const held = this.#of(from, shape, iteration);
    if (held.whole) return undefined;
    const key = `${spreadKey(from)}>${spreadKey(to)}[${shape.join()}]${iteration}`;
    if (!this.#missing.has(key)) this.#missing.set(key, this.#search(held, from, to, shape, iteration));
    return this.#missing.get(key);
  }

  #search(held: Held, from: Spread, to: Spread, shape: readonly number[], iteration: number): Missing | undefined {
    const alike = !from.flat === !to.flat || shape.length === 1;
    const numbered = 'numbers' in held ? held.numbers : undefined;
    const byNumber = numbered ?? (alike ? undefined : this.#numbers(from, shape, iteration));
    for (const [tile, part] of this.#slices.parts(to, iteration).byTile) {
      if (!byNumber && 'axes' in held && this.#slices.combs(to, part).every((c, axis) => this.#slices.list(c).every((x) => held.axes[axis]![x]! > 0))) continue;
      const counts = byNumber ?? this.#numbers(from, shape, iteration);
      const absent = this.#slices.numbers(to, shape, part).filter((n) => counts[n] === 0);
      if (absent.length > 0) return { tile, element: absent[0]!, count: absent.length };
    }
    return undefined;
  }

  #of(spread: Spread, shape: readonly number[], iteration: number): Held {
    const key = `${spreadKey(spread)}[${shape.join()}]${spread.dims.some((d) => d.time) ? iteration : 0}`;
    let held = this.#held.get(key);
    if (!held) this.#held.set(key, (held = this.#count(spread, shape, iteration)));
    return held;
  }

  #count(spread: Spread, shape: readonly number[], iteration: number): Held {
    const named = spread.axes.flatMap((a) => this.#plan.cuts[a]!.by);
    const apart = new Set(named).size === named.length && !spread.dims.some((d) => d.time);
    if (!apart) {
      const numbers = this.#numbers(spread, shape, iteration);
      return { numbers, whole: numbers.every((n) => n > 0), most: numbers.reduce((a, n) => Math.max(a, n), 0) };
    }
    const extents = spread.flat ? [sizeOf(shape)] : shape;
    const axes = spread.axes.map((a, axis) => {
      const counts = new Int32Array(extents[axis]!);
      for (const c of this.#plan.cuts[a]!.combs) for (const x of this.#slices.list(c)) counts[x]!++;
      return counts;
    });
    const copies = spread.dims.reduce((n, d, i) => (named.includes(i) ? n : n * d.parts), 1);
    return { axes, whole: axes.every((counts) => counts.every((n) => n > 0)), most: axes.reduce((n, counts) => n * counts.reduce((a, x) => Math.max(a, x), 0), copies) };
  }

  #numbers(spread: Spread, shape: readonly number[], iteration: number): Int32Array {
    const counts = new Int32Array(sizeOf(shape));
    for (const part of this.#slices.parts(spread, iteration).byTile.values()) for (const n of this.#slices.numbers(spread, shape, part)) counts[n]!++;
    return counts;
  }
}
