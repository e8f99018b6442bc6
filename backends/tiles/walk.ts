/** One stage of an op on one tile: the points of its piece that a part walks, read through slices and combined as the stage says. */
import type { Axes, Index, Piece, Stage } from '../../ir/axes.ts';
import { InternalError } from '../../ir/diagnostic.ts';
import { isBig, refData } from '../../ir/number.ts';
import { isFloat, type DType } from '../../ir/type.ts';
import { highest, lowest } from '../../ir/ops/helpers.ts';
import { NotHeld, placesIn, slices, type Held } from './held.ts';
import { wholeList, type Slice } from './parts.ts';

/** The values of each dim of the space that a part walks. */
export type Ranges = (piece: Piece, dim: string) => Int32Array;

/** What a walk makes: one array an entry, for results of the stage (or count, mean and sum of squares of moments). */
export type Made = readonly (Float64Array | BigInt64Array | BigUint64Array)[];

/** Elements outside a tensor, and elements that the tile does not hold, as addends of an address. */
const outside = -Infinity;
const missing = NaN;

/** Walks a stage. `made`: the slice that is written; `taps`: combine argmax gives the number of the winning point among the reduced ones beside the value. */
export function walkStage(axes: Axes, stage: Stage, ranges: Ranges, operands: readonly Held[], dtype: DType, made: Slice, what: string): Made {
  const sizes = new Map(axes.space.map((d) => [d.name, d.size]));
  const total = made.lists.reduce((n, l) => n * l.length, 1);
  const count = stage.combine === 'moments' ? 3 : stage.combine === 'argmax' ? 2 : 1;
  const out = Array.from({ length: count }, (_, i) => refData({ dtype: i === 1 && stage.combine === 'argmax' ? 'i32' : dtype, shape: [total] }));
  for (const piece of stage.pieces) walkPiece(piece, stage, sizes, ranges, operands, dtype, made, out, what);
  return out;
}

function walkPiece(piece: Piece, stage: Stage, sizes: ReadonlyMap<string, number>, ranges: Ranges, operands: readonly Held[], dtype: DType, made: Slice, out: Made, what: string): void {
  const placed = new Set(piece.writes.flatMap((w) => w.terms.map(([name]) => name)));
  const range = (name: string): Int32Array => ranges(piece, name);
  const inner = space(piece.dims.filter((d) => !placed.has(d)), range);
  const readers = piece.reads.map((indices, k) => indices?.map((index, axis) => readerOf(index, indices, axis, sizes, operands[k]!.shape)));
  // Dims that share an axis with inner ones change slowest, so that addresses of a window serve all channels that read it.
  const mixed = new Set(readers.flatMap((list) => list ?? []).filter((r) => r.terms.some(([d]) => !placed.has(d))).flatMap((r) => r.terms.map(([d]) => d)));
  const outer = space(piece.dims.filter((d) => placed.has(d)).sort((a, b) => Number(mixed.has(b)) - Number(mixed.has(a))), range);
  if (outer.count === 0) return;
  const target = addressOf(piece.writes.map((w): Reader => ({ terms: w.terms, plus: w.plus, to: (raw) => raw })), made.lists, outer, { names: [], lists: [], count: 1 });
  const reads = piece.reads.flatMap((indices, k) => (indices === null ? [] : [{ data: operands[k]!.data, fill: fillOf(indices), address: addressOf(readers[k]!, operands[k]!.lists, outer, inner) }]));
  const combine = combiner(stage, dtype, inner.count);
  const big = isBig(dtype);
  for (let o = 0; o < outer.count; o++) {
    const place = target(o);
    if (!(place.base >= 0) || place.at[0] !== 0) throw new NotHeld(`${what} writes an element that is not of its slice`);
    const seen = reads.map(({ data, fill, address }): Operand => {
      const { base, at } = address(o);
      return { data: data as Float64Array, base, at, fill };
    });
    if (big) walkBig(stage, seen, out, place.base, inner.count, what);
    else combine(seen[0], seen[1], out, place.base, what);
  }
}

interface Points { readonly names: readonly string[]; readonly lists: readonly Int32Array[]; readonly count: number }

function space(names: readonly string[], range: (name: string) => Int32Array): Points {
  const lists = names.map(range);
  return { names, lists, count: lists.reduce((n, l) => n * l.length, 1) };
}

/** An index of an axis: a sum of dims, and what element it means (outside or NaN for none). */
interface Reader { readonly terms: readonly (readonly [string, number])[]; readonly plus: number; to(raw: number): number }

/** Sums of the terms of a reader over the points of a space. */
function sums(reader: Reader, points: Points): Int32Array | undefined {
  const times = points.names.map((n) => reader.terms.reduce((s, [name, t]) => (name === n ? s + t : s), 0));
  if (times.every((t) => t === 0)) return undefined;
  let list = Int32Array.of(0);
  points.lists.forEach((values, d) => {
    const next = new Int32Array(list.length * values.length);
    let at = 0;
    for (let i = 0; i < list.length; i++) for (let j = 0; j < values.length; j++) next[at++] = list[i]! + times[d]! * values[j]!;
    list = next;
  });
  return list;
}

/** Addresses in a dense slice: `base` (outside or missing, if it is no address) plus, for each inner point, `at` (`out` for a point outside the tensor, `lost` for one that the tile does not hold). */
interface Address { readonly base: number; readonly at: Int32Array }
const out = -1;
const lost = -2;

/** The addresses of the points of `inner` at each point of `outer`. What is returned holds until the next call. */
function addressOf(readers: readonly Reader[], lists: readonly Int32Array[], outer: Points, inner: Points): (o: number) => Address {
  const strides = slices(lists);
  const ofOuter = new Float64Array(outer.count);
  const ofInner = new Float64Array(inner.count);
  const mixed: { readonly outer: Int32Array; readonly inner: Int32Array; readonly table: Float64Array; readonly from: number }[] = [];
  readers.forEach((reader, axis) => {
    const places = placesIn(lists[axis]!);
    const stride = strides[axis]!;
    const one = (raw: number): number => {
      const element = reader.to(raw + reader.plus);
      if (element === outside) return outside;
      const place = element < 0 ? -1 : places[element] ?? -1;
      return place < 0 ? missing : place * stride;
    };
    const [o, i] = [sums(reader, outer), sums(reader, inner)];
    if (o && i) {
      const [low, high] = [least(o) + least(i), most(o) + most(i)];
      const table = new Float64Array(Math.max(0, high - low + 1));
      for (let raw = low; raw <= high; raw++) table[raw - low] = one(raw);
      mixed.push({ outer: o, inner: i, table, from: low });
    } else if (o) for (let p = 0; p < o.length; p++) ofOuter[p]! += one(o[p]!);
    else if (i) for (let p = 0; p < i.length; p++) ofInner[p]! += one(i[p]!);
    else {
      const addend = one(0);
      for (let p = 0; p < ofOuter.length; p++) ofOuter[p]! += addend;
    }
  });
  const at = new Int32Array(inner.count);
  const fill = (o: number): void => {
    for (let i = 0; i < at.length; i++) {
      let sum = ofInner[i]!;
      for (const m of mixed) sum += m.table[m.inner[i]! + m.outer[o]! - m.from]!;
      at[i] = sum >= 0 ? sum : sum === outside ? out : lost;
    }
  };
  let before = -1;
  return (o) => {
    if (before < 0 || mixed.some((m) => m.outer[o] !== m.outer[before])) fill(o);
    before = o;
    return { base: ofOuter[o]!, at };
  };
}

const least = (xs: Int32Array): number => xs.reduce((a, b) => Math.min(a, b), Infinity);
const most = (xs: Int32Array): number => xs.reduce((a, b) => Math.max(a, b), -Infinity);

/** How an index of the walk reads an axis. */
function readerOf(index: Index, indices: readonly Index[], axis: number, sizes: ReadonlyMap<string, number>, shape: readonly number[]): Reader {
  const size = shape[axis]!;
  switch (index.kind) {
    case 'affine': {
      const { over, outside: mode } = index;
      return { terms: index.terms, plus: index.plus, to: (raw) => inside(over === 1 ? raw : Math.floor(raw / over), size, mode) };
    }
    case 'table': return {
      terms: index.inner === undefined ? [[index.dim, 1]] : [[index.dim, sizes.get(index.inner)!], [index.inner, 1]], plus: 0, to: (raw) => index.at[raw]!,
    };
    case 'span': {
      let stride = 1;
      const terms = [...index.dims].reverse().map((name): [string, number] => {
        const term: [string, number] = [name, stride];
        stride *= sizes.get(name)!;
        return term;
      });
      const digit = indices.reduce((s, r, a) => (a > axis && r.kind === 'span' && r.group === index.group ? s * shape[a]! : s), 1);
      return { terms, plus: 0, to: (raw) => Math.floor(raw / digit) % size };
    }
    case 'whole': throw new InternalError('an axis that is read whole is not walked');
  }
}

function inside(i: number, size: number, mode: (Index & { kind: 'affine' })['outside']): number {
  if (i >= 0 && i < size) return i;
  switch (mode) {
    case '0': case '-inf': return outside;
    case 'edge': return i < 0 ? 0 : size - 1;
    case 'wrap': return ((i % size) + size) % size;
    case 'reflect': {
      let r = i;
      while (size > 1 && (r < 0 || r >= size)) r = r < 0 ? -r : 2 * (size - 1) - r;
      return size > 1 ? r : 0;
    }
    case 'error': return missing;
  }
}

const fillOf = (indices: readonly Index[]): number => (indices.some((i) => i.kind === 'affine' && i.outside === '-inf') ? -Infinity : 0);

/** The elements of an axis that the points of some ranges read, ascending; all of them for an axis that is read whole. */
export function elementsRead(indices: readonly Index[], axis: number, sizes: ReadonlyMap<string, number>, shape: readonly number[], range: (dim: string) => Int32Array): Int32Array {
  const index = indices[axis]!;
  if (index.kind === 'whole') return wholeList(shape[axis]!);
  const reader = readerOf(index, indices, axis, sizes, shape);
  const raws = sums(reader, space([...new Set(reader.terms.map(([d]) => d))], range)) ?? Int32Array.of(0);
  const found = new Set<number>();
  for (const raw of raws) {
    const element = reader.to(raw + reader.plus);
    if (element >= 0) found.add(element);
  }
  if (found.size === shape[axis]!) return wholeList(shape[axis]);
  return Int32Array.from(found).sort();
}

interface Operand extends Address { readonly data: Float64Array; readonly fill: number }
type Combiner = (a: Operand | undefined, b: Operand | undefined, out: Made, to: number, what: string) => void;

/** The address of a point: outside the tensor, or in the slice. Throws NotHeld where it is neither. */
function placeOf({ base, at }: Address, i: number, what: string): number {
  const place = base + at[i]!;
  if (base >= 0 && at[i]! >= 0) return place;
  if (base === outside || at[i] === out) return outside;
  throw new NotHeld(`${what} reads an element that the tile does not hold`);
}

/** An element, or what stands for it outside the tensor. */
function elementOf(x: Operand, i: number, what: string): number {
  const place = placeOf(x, i, what);
  return place === outside ? x.fill : x.data[place]!;
}

/** How the points of one result meet, in float64. */
function combiner(stage: Stage, dtype: DType, n: number): Combiner {
  const set = (made: Made, k: number, to: number, x: number): void => void ((made[k] as Float64Array)[to] = x);
  const each = (a: Operand | undefined, b: Operand | undefined, i: number, what: string): number => {
    const x = elementOf(a!, i, what);
    return b ? x * elementOf(b, i, what) : x;
  };
  const folded = (start: number, add: (sum: number, x: number) => number): Combiner => (a, b, made, to, what) => {
    let sum = start;
    for (let i = 0; i < n; i++) sum = add(sum, each(a, b, i, what));
    set(made, 0, to, sum);
  };
  switch (stage.combine) {
    case 'none': return (a, b, made, to, what) => {
      if (n !== 1) throw new InternalError(`${what} walks ${n} points for one result`);
      set(made, 0, to, each(a, b, 0, what));
    };
    case 'sum': return (a, b, made, to, what) => {
      let sum = 0;
      if (a && b && a.base >= 0 && b.base >= 0) {
        const [x, y, p, q, s, t] = [a.data, b.data, a.at, b.at, a.base, b.base];
        for (let i = 0; i < n; i++) {
          if (p[i]! >= 0 && q[i]! >= 0) sum += x[s + p[i]!]! * y[t + q[i]!]!;
          else if (p[i] !== out && q[i] !== out) throw new NotHeld(`${what} reads an element that the tile does not hold`);
        }
      } else for (let i = 0; i < n; i++) sum += each(a, b, i, what);
      if (!isFloat(dtype) && Math.abs(sum) > Number.MAX_SAFE_INTEGER) throw new InternalError(`${what}: a sum of integers leaves the exact range of float64`);
      set(made, 0, to, sum);
    };
    case 'prod': return folded(1, (p, x) => p * x);
    case 'max': return folded(lowest(dtype), Math.max);
    case 'min': return folded(highest(dtype), Math.min);
    case 'moments': return (a, _b, made, to, what) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += elementOf(a!, i, what);
      const mean = n === 0 ? 0 : sum / n;
      let m2 = 0;
      for (let i = 0; i < n; i++) m2 += (elementOf(a!, i, what) - mean) ** 2;
      set(made, 0, to, n);
      set(made, 1, to, mean);
      set(made, 2, to, m2);
    };
    case 'argmax': return (a, _b, made, to, what) => {
      let [best, where] = [lowest(dtype), -1];
      for (let i = 0; i < n; i++) {
        if (placeOf(a!, i, what) === outside) continue;
        const x = elementOf(a!, i, what);
        if (where < 0 || x > best || (Number.isNaN(x) && !Number.isNaN(best))) [best, where] = [x, i];
      }
      set(made, 0, to, best);
      set(made, 1, to, Math.max(0, where));
    };
    default: throw new InternalError(`no walk combines by ${stage.combine}`);
  }
}

/** 64-bit integers: moves, sums and products. */
function walkBig(stage: Stage, seen: readonly Operand[], made: Made, to: number, n: number, what: string): void {
  if (stage.combine !== 'none' && stage.combine !== 'sum') throw new InternalError(`${what}: no walk combines 64-bit integers by ${stage.combine}`);
  let sum = 0n;
  for (let i = 0; i < n; i++) {
    let product = 1n;
    for (const x of seen) {
      const place = placeOf(x, i, what);
      product *= place === outside ? 0n : (x.data as unknown as BigInt64Array)[place]!;
    }
    sum += product;
  }
  made[0]![to] = sum;
}
