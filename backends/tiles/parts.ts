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

/** Elements of a slice as runs of neighbours in the whole tensor: run i is `length` elements from `starts[i]`, in the slice's order. */
export interface Runs { readonly starts: Int32Array; readonly length: number }

/** The runs of a slice of a tensor, as long as its combs allow. */
export function runsOf(s: Slice, shape: readonly number[]): Runs {
  if (s.flat) {
    const list = s.lists[0]!;
    return isRun(list) ? { starts: list.subarray(0, 1), length: list.length } : { starts: list, length: 1 };
  }
  let [length, stride, axis] = [1, 1, s.lists.length - 1];
  let starts = Int32Array.of(0);
  // Axes from the last one on, as long as they are whole, and the first that is not if it is a run.
  for (let whole = true; whole && axis >= 0 && isRun(s.lists[axis]!); axis--) {
    const list = s.lists[axis]!;
    whole = list.length === shape[axis]!;
    starts[0]! += list[0]! * stride;
    length *= list.length;
    stride *= shape[axis]!;
  }
  for (; axis >= 0; axis--) {
    const list = s.lists[axis]!;
    const next = new Int32Array(list.length * starts.length);
    let at = 0;
    for (let i = 0; i < list.length; i++) for (let j = 0; j < starts.length; j++) next[at++] = list[i]! * stride + starts[j]!;
    starts = next;
    stride *= shape[axis]!;
  }
  return { starts, length };
}

const isRun = (list: Int32Array): boolean => list.length > 0 && list.at(-1)! - list[0]! === list.length - 1;

/** Row-major element numbers of a slice in the whole tensor, in the slice's order. */
export function elementNumbers(s: Slice, shape: readonly number[]): Int32Array {
  if (s.flat) return s.lists[0]!;
  const { starts, length } = runsOf(s, shape);
  if (length === 1) return starts;
  const numbers = new Int32Array(starts.length * length);
  let at = 0;
  for (let i = 0; i < starts.length; i++) for (let j = 0; j < length; j++) numbers[at++] = starts[i]! + j;
  return numbers;
}

/** Whether two lists hold the same elements. */
export const sameList = (a: Int32Array, b: Int32Array): boolean => a === b || (a.length === b.length && a.every((x, i) => x === b[i]));
