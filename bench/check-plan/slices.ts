/** Which elements of a tensor lie on which tile, from spreads and cuts alone. */
import type { Comb, Cut, Dim, Placed, Plan, Spread } from './plan.ts';

/** The number of elements of a comb. */
export function count(c: Comb): number {
  let n = 1;
  for (let i = 1; i < c.length; i += 2) n *= c[i]!;
  return n;
}

/** The elements of a comb in ascending order. */
function elements(c: Comb): Int32Array {
  let list = [c[0]!];
  for (let i = 1; i < c.length; i += 2) list = list.flatMap((from) => Array.from({ length: c[i]! }, (_, k) => from + k * c[i + 1]!));
  return Int32Array.from(list);
}

const product = (list: readonly number[]): number => list.reduce((n, x) => n * x, 1);
/** Number of elements of a shape. */
export const sizeOf = product;

/** The part of each tile, time dims at `iteration`. A tile that two parts lie on is named by `twice`. */
export interface Parts { readonly byTile: ReadonlyMap<number, readonly number[]>; readonly twice?: number }

/** Slices of a plan: what lies on a tile, and whether slices supply one another. Results are kept, for plans repeat the same spreads. */
export class Slices {
  readonly #plan: Plan;
  readonly #lists = new Map<Comb, Int32Array>();
  readonly #parts = new Map<string, Parts>();
  readonly #sizes = new Map<string, ReadonlyMap<number, number>>();
  readonly #within = new Map<Comb, Map<Comb, boolean>>();

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  /** The part that lies on each tile. */
  parts(placed: Placed, iteration = 0): Parts {
    const timed = placed.dims.some((d) => d.time);
    const key = `${placed.base};${dimsKey(placed.dims)};${timed ? iteration : 0}`;
    let known = this.#parts.get(key);
    if (!known) this.#parts.set(key, (known = this.#place(placed, iteration)));
    return known;
  }

  #place({ base, dims }: Placed, iteration: number): Parts {
    const time = digits(iteration, dims.map((d) => (d.time ? d.parts : 1)));
    const byTile = new Map<number, readonly number[]>();
    let twice: number | undefined;
    const total = product(dims.map((d) => (d.time ? 1 : d.parts)));
    for (let i = 0; i < total; i++) {
      const part = digits(i, dims.map((d) => (d.time ? 1 : d.parts))).map((p, d) => (dims[d]!.time ? time[d]! : p));
      const tile = part.reduce((t, p, d) => t + p * (dims[d]!.time ? 0 : dims[d]!.stride), base) % this.#plan.tiles;
      if (byTile.has(tile)) twice ??= tile;
      byTile.set(tile, part);
    }
    return { byTile, ...(twice !== undefined && { twice }) };
  }

  /** The comb of each axis that a part sees. */
  combs(spread: Spread, part: readonly number[]): readonly Comb[] {
    return spread.axes.map((a) => combOf(this.#plan.cuts[a]!, spread.dims, part));
  }

  /** Elements on each tile: of the largest part where serial parts follow each other. */
  elementsByTile(spread: Spread): ReadonlyMap<number, number> {
    const key = spreadKey(spread);
    const known = this.#sizes.get(key);
    if (known) return known;
    const most = new Map<number, number>();
    const times = product(spread.dims.map((d) => (d.time ? d.parts : 1)));
    for (let t = 0; t < times; t++) for (const [tile, part] of this.parts(spread, t).byTile) most.set(tile, Math.max(most.get(tile) ?? 0, product(this.combs(spread, part).map(count))));
    this.#sizes.set(key, most);
    return most;
  }

  /** The elements of a comb; the same array for the same comb. */
  list(c: Comb): Int32Array {
    let list = this.#lists.get(c);
    if (!list) this.#lists.set(c, (list = elements(c)));
    return list;
  }

  /** Whether every element of a comb is one of another's. */
  within(inner: Comb, outer: Comb): boolean {
    if (inner === outer) return true;
    let known = this.#within.get(inner);
    if (!known) this.#within.set(inner, (known = new Map<Comb, boolean>()));
    let answer = known.get(outer);
    if (answer === undefined) {
      const own = new Set(this.list(outer));
      known.set(outer, (answer = this.list(inner).every((x) => own.has(x))));
    }
    return answer;
  }

  /** Row-major element numbers of a part in the whole tensor, in the slice's order. */
  numbers(spread: Spread, shape: readonly number[], part: readonly number[]): Int32Array {
    const lists = this.combs(spread, part).map((c) => this.list(c));
    if (spread.flat) return lists[0]!;
    let numbers = Int32Array.of(0);
    lists.forEach((list, axis) => {
      const next = new Int32Array(numbers.length * list.length);
      let at = 0;
      for (const from of numbers) for (const x of list) next[at++] = from * shape[axis]! + x;
      numbers = next;
    });
    return numbers;
  }

  /** The first element outside the shape that a spread names, or cut that does not fit its dims; undefined where there is none. */
  fault(spread: Spread, shape: readonly number[]): string | undefined {
    const extents = spread.flat ? [product(shape)] : shape;
    if (spread.axes.length !== extents.length) return `has ${spread.axes.length} axes for the shape [${shape.join(',')}]`;
    for (const [axis, at] of spread.axes.entries()) {
      const cut = this.#plan.cuts[at];
      const wrong = cutFault(cut, spread.dims);
      if (wrong !== undefined) return `axis ${axis}: cut ${at} ${wrong}`;
      for (const c of cut!.combs) {
        let last = c[0]!;
        for (let i = 1; i < c.length; i += 2) last += (c[i]! - 1) * c[i + 1]!;
        if (count(c) > 0 && (c[0]! < 0 || last >= extents[axis]!)) return `axis ${axis} reaches from ${c[0]} to ${last}, its size is ${extents[axis]}`;
      }
    }
    return undefined;
  }
}

/** What is wrong with a cut over some dims. */
function cutFault(cut: Cut | undefined, dims: readonly Dim[]): string | undefined {
  if (!cut) return 'is not in the plan';
  const missing = cut.by.find((d) => d >= dims.length);
  if (missing !== undefined) return `goes by dim ${missing} of ${dims.length}`;
  const expected = product(cut.by.map((d) => dims[d]!.parts));
  if (cut.combs.length !== expected) return `has ${cut.combs.length} combs for ${expected} parts`;
  const even = cut.combs.find((c) => c.length % 2 === 0 || c.some((x, i) => i % 2 === 1 && x < 0));
  return even && `has the comb [${even.join(', ')}], which is no base with pairs of n and step`;
}

/** What a part sees of an axis. */
const combOf = (cut: Cut, dims: readonly Dim[], part: readonly number[]): Comb => cut.combs[cut.by.reduce((i, d) => i * dims[d]!.parts + part[d]!, 0)]!;

function digits(number: number, sizes: readonly number[]): number[] {
  const out = sizes.map(() => 0);
  for (let i = sizes.length - 1, rest = number; i >= 0; i--) {
    out[i] = rest % sizes[i]!;
    rest = Math.floor(rest / sizes[i]!);
  }
  return out;
}

const dimsKey = (dims: readonly Dim[]): string => dims.map((d) => `${d.parts}${d.time ? 't' : `*${d.stride}`}`).join();
/** Spreads of one key hold the same elements on the same tiles. */
export const spreadKey = (s: Spread): string => `${s.base};${dimsKey(s.dims)};${s.axes.join()}${s.flat ? 'f' : ''}`;
