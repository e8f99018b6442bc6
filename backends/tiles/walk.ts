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
  const outer = space(piece.dims.filter((d) => placed.has(d)), range);
  const inner = space(piece.dims.filter((d) => !placed.has(d)), range);
  if (outer.count === 0) return;
  const target = address(piece.writes.map((w) => axisOf({ terms: w.terms, plus: w.plus, to: (raw) => raw })), made.lists, outer, undefined);
  const reads = piece.reads.flatMap((indices, k) => {
    if (indices === null) return [];
    const held = operands[k]!;
    return [{ held, fill: fillOf(indices), address: address(indices.map((index, axis) => axisOf(readerOf(index, indices, axis, sizes, held.shape))), held.lists, outer, inner) }];
  });
  const places = new Float64Array(1);
  const combine = combiner(stage, dtype, inner.count);
  const big = isBig(dtype);
  const [a, b] = reads;
  const at = [new Float64Array(inner.count), new Float64Array(inner.count)];
  for (let o = 0; o < outer.count; o++) {
    const to = target(o, places)[0]!;
    if (!(to >= 0)) throw new NotHeld(`${what} writes an element that is not of its slice`);
    const first = a?.address(o, at[0]!);
    const second = b?.address(o, at[1]!);
    if (big) walkBig(stage, reads, [first, second], out, to, inner.count, what);
    else combine(a && first && { data: a.held.data as Float64Array, at: first, fill: a.fill }, b && second && { data: b.held.data as Float64Array, at: second, fill: b.fill }, out, to, what);
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

const axisOf = (reader: Reader): Reader => reader;

/** Addresses, in a dense slice, of the points of `inner` at a point of `outer`. The array that comes back is `into`, or one that is the same for every call. */
function address(readers: readonly Reader[], lists: readonly Int32Array[], outer: Points, inner: Points | undefined): (o: number, into: Float64Array) => Float64Array {
  const strides = slices(lists);
  const ofOuter = new Float64Array(outer.count);
  const ofInner = new Float64Array(inner?.count ?? 1);
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
    const [o, i] = [sums(reader, outer), inner && sums(reader, inner)];
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
  return (o, into) => {
    const base = ofOuter[o]!;
    if (!inner) {
      into[0] = base;
      return into;
    }
    for (let i = 0; i < inner.count; i++) into[i] = base + ofInner[i]!;
    for (const m of mixed) {
      const shift = m.outer[o]! - m.from;
      for (let i = 0; i < inner.count; i++) into[i]! += m.table[m.inner[i]! + shift]!;
    }
    return into;
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

interface Operand { readonly data: Float64Array; readonly at: Float64Array; readonly fill: number }
type Combiner = (a: Operand | undefined, b: Operand | undefined, out: Made, to: number, what: string) => void;

/** An element, or what stands for it outside the tensor. */
function elementOf(x: Operand, i: number, what: string): number {
  const at = x.at[i]!;
  if (at >= 0) return x.data[at]!;
  if (at === outside) return x.fill;
  throw new NotHeld(`${what} reads an element that the tile does not hold`);
}

/** How the points of one result meet, in float64. */
function combiner(stage: Stage, dtype: DType, n: number): Combiner {
  const set = (out: Made, k: number, to: number, x: number): void => void ((out[k] as Float64Array)[to] = x);
  const each = (a: Operand | undefined, b: Operand | undefined, i: number, what: string): number => {
    const x = elementOf(a!, i, what);
    return b ? x * elementOf(b, i, what) : x;
  };
  const folded = (start: number, add: (sum: number, x: number) => number): Combiner => (a, b, out, to, what) => {
    let sum = start;
    for (let i = 0; i < n; i++) sum = add(sum, each(a, b, i, what));
    set(out, 0, to, sum);
  };
  switch (stage.combine) {
    case 'none': return (a, b, out, to, what) => {
      if (n !== 1) throw new InternalError(`${what} walks ${n} points for one result`);
      set(out, 0, to, each(a, b, 0, what));
    };
    case 'sum': return (a, b, out, to, what) => {
      let sum = 0;
      if (a && b) {
        const [x, y, p, q] = [a.data, b.data, a.at, b.at];
        for (let i = 0; i < n; i++) {
          const [s, t] = [p[i]!, q[i]!];
          if (s >= 0 && t >= 0) sum += x[s]! * y[t]!;
          else if (s !== outside && t !== outside) throw new NotHeld(`${what} reads an element that the tile does not hold`);
        }
      } else for (let i = 0; i < n; i++) sum += each(a, b, i, what);
      if (!isFloat(dtype) && Math.abs(sum) > Number.MAX_SAFE_INTEGER) throw new InternalError(`${what}: a sum of integers leaves the exact range of float64`);
      set(out, 0, to, sum);
    };
    case 'prod': return folded(1, (p, x) => p * x);
    case 'max': return folded(lowest(dtype), Math.max);
    case 'min': return folded(highest(dtype), Math.min);
    case 'moments': return (a, _b, out, to, what) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += elementOf(a!, i, what);
      const mean = n === 0 ? 0 : sum / n;
      let m2 = 0;
      for (let i = 0; i < n; i++) m2 += (elementOf(a!, i, what) - mean) ** 2;
      set(out, 0, to, n);
      set(out, 1, to, mean);
      set(out, 2, to, m2);
    };
    case 'argmax': return (a, _b, out, to, what) => {
      let [best, where] = [lowest(dtype), -1];
      for (let i = 0; i < n; i++) {
        if (a!.at[i] === outside) continue;
        const x = elementOf(a!, i, what);
        if (where < 0 || x > best || (Number.isNaN(x) && !Number.isNaN(best))) [best, where] = [x, i];
      }
      set(out, 0, to, best);
      set(out, 1, to, Math.max(0, where));
    };
    default: throw new InternalError(`no walk combines by ${stage.combine}`);
  }
}

/** 64-bit integers: moves, sums and products. */
function walkBig(stage: Stage, reads: readonly { readonly held: Held; readonly fill: number }[], at: readonly (Float64Array | undefined)[], out: Made, to: number, n: number, what: string): void {
  if (stage.combine !== 'none' && stage.combine !== 'sum') throw new InternalError(`${what}: no walk combines 64-bit integers by ${stage.combine}`);
  let sum = 0n;
  for (let i = 0; i < n; i++) {
    let product = 1n;
    reads.forEach(({ held }, k) => {
      const p = at[k]![i]!;
      if (!(p >= 0) && p !== outside) throw new NotHeld(`${what} reads an element that the tile does not hold`);
      product *= p >= 0 ? (held.data[p] as bigint) : 0n;
    });
    sum += product;
  }
  out[0]![to] = sum;
}
