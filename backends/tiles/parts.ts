/** Parts of tile space: which tile holds which part of a spread, and the elements of its slice. */
import { InternalError } from '../../ir/diagnostic.ts';
import { digitsOf, elementsOf, type Comb, type Cut, type Spread, type TileDim } from '../../ir/tiles.ts';

/** Anything that lies over tiles: a spread or a division. */
export interface Placed { readonly base: number; readonly dims: readonly TileDim[] }

/** One part: the index of each tile dim. */
export type Part = readonly number[];

/** The elements of one part, an ascending list for each axis. `flat`: one list, of row-major element numbers. */
export interface Slice { readonly lists: readonly Int32Array[]; readonly flat: boolean }

const grids = new WeakMap<Placed, { readonly tiles: number; readonly parts: ReadonlyMap<number, Part> }>();

/** The part that lies on each tile, time dims at 0. Throws where two parts meet on a tile. */
export function partsOf(placed: Placed, tiles: number): ReadonlyMap<number, Part> {
  const known = grids.get(placed);
  if (known?.tiles === tiles) return known.parts;
  const parts = new Map<number, Part>();
  const sizes = placed.dims.map((d) => (d.time ? 1 : d.parts));
  const total = sizes.reduce((n, p) => n * p, 1);
  for (let i = 0; i < total; i++) {
    const part = digitsOf(i, sizes);
    const tile = part.reduce((t, p, d) => t + p * placed.dims[d]!.stride, placed.base) % tiles;
    if (parts.has(tile)) throw new InternalError(`two parts lie on tile ${tile}: dims ${placed.dims.map((d) => `${d.name} ${d.parts}*${d.stride}`).join(', ')} from ${placed.base} over ${tiles} tiles`);
    parts.set(tile, part);
  }
  grids.set(placed, { tiles, parts });
  return parts;
}

/** A part at an iteration of the repeat around it: its time dims are the digits of the iteration, the last one fastest. */
export function atTime(dims: readonly TileDim[], part: Part, iteration: number): Part {
  if (dims.every((d) => !d.time)) return part;
  const time = digitsOf(iteration, dims.map((d) => (d.time ? d.parts : 1)));
  return part.map((p, i) => (dims[i]!.time ? time[i]! : p));
}

const lists = new WeakMap<Comb, Int32Array>();
const wholes = new Map<number, Int32Array>();

/** The elements of a comb; the same array for the same comb. */
export function listOf(comb: Comb): Int32Array {
  const run = comb.base === 0 && comb.levels.length === 1 && comb.levels[0]!.step === 1 ? comb.levels[0]!.n : undefined;
  if (run !== undefined) return wholeList(run);
  let list = lists.get(comb);
  if (!list) lists.set(comb, (list = Int32Array.from(elementsOf(comb))));
  return list;
}

/** 0 up to n. */
export function wholeList(n: number): Int32Array {
  let list = wholes.get(n);
  if (!list) wholes.set(n, (list = Int32Array.from({ length: n }, (_, i) => i)));
  return list;
}

/** What a part sees of an axis. */
export function cutAt(cut: Cut, dims: readonly TileDim[], part: Part): Int32Array {
  return listOf(cut.combs[cut.by.reduce((i, d) => i * dims[d]!.parts + part[d]!, 0)]!);
}

/** The slice of a part. */
export function sliceAt(spread: Spread, part: Part): Slice {
  return { lists: spread.axes.map((cut) => cutAt(cut, spread.dims, part)), flat: spread.flat ?? false };
}

/** Number of elements of a slice. */
export const sliceSize = (s: Slice): number => s.lists.reduce((n, l) => n * l.length, 1);

/** Row-major element numbers of a slice in the whole tensor, in the slice's order. */
export function elementNumbers(s: Slice, shape: readonly number[]): Int32Array {
  if (s.flat) return s.lists[0]!;
  let numbers = Int32Array.of(0);
  s.lists.forEach((list, axis) => {
    const size = shape[axis]!;
    const next = new Int32Array(numbers.length * list.length);
    let at = 0;
    for (let i = 0; i < numbers.length; i++) for (let j = 0; j < list.length; j++) next[at++] = numbers[i]! * size + list[j]!;
    numbers = next;
  });
  return numbers;
}

/** Whether two lists hold the same elements. */
export const sameList = (a: Int32Array, b: Int32Array): boolean => a === b || (a.length === b.length && a.every((x, i) => x === b[i]));
