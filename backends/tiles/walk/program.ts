/** What one vertex does, as addresses: the places of all points of a piece in the slices that it reads and writes. Tiles whose slices are alike share it. */
import type { Piece } from '../../../ir/axes.ts';
import { rowMajor } from '../../../ir/type.ts';
import { NotHeld, type Held } from '../held.ts';
import type { Slice } from '../parts.ts';
import { axisPlaces, isNoPlace, lostPlace, outsidePlace, spreadOver, type AxisPlaces } from './axis.ts';
import { pointsOf, readerOf, writerOf, type Points, type Reader } from './reader.ts';

/** The inner points of one kind of result: where they are read relative to a base, by operand. */
export interface Window {
  /** Points; where `dense`, only those that lie within all operands. */
  readonly count: number;
  /** Places by operand, `outsidePlace` for a point outside the tensor. */
  readonly at: readonly Int32Array[];
  /** Whether a point is read that the tile does not hold. */
  readonly lost: boolean;
}

/** A piece of a stage as addresses: of each result its place, of each operand a base, and the window over it. */
export interface Program {
  readonly count: number;
  readonly target: Int32Array;
  /** By operand. */
  readonly bases: readonly Int32Array[];
  /** The window of each result, by number. */
  readonly kinds: Int32Array;
  window(kind: number): Window;
}

/** How a piece reads and writes, whatever the tile. */
interface Form {
  readonly outer: readonly string[];
  readonly inner: readonly string[];
  readonly writers: readonly Reader[];
  /** By operand that is read, its number and a reader for each axis. */
  readonly readers: readonly { readonly operand: number; readonly axes: readonly Reader[] }[];
}

const forms = new WeakMap<Piece, Form>();

/** The form of a piece whose operands have the given shapes. */
export function formOf(piece: Piece, sizes: ReadonlyMap<string, number>, shapes: readonly (readonly number[])[]): Form {
  let form = forms.get(piece);
  if (!form) {
    const placed = new Set(piece.writes.flatMap((w) => w.terms.map(([name]) => name)));
    const readers = piece.reads.flatMap((indices, k) => (indices === null ? [] : [{ operand: k, axes: indices.map((index, axis) => readerOf(index, indices, axis, sizes, shapes[k]!)) }]));
    // Dims that share an axis with inner ones change slowest, so that neighbouring results have one window.
    const mixed = new Set(readers.flatMap((r) => r.axes).filter((r) => r.terms.some(([d]) => !placed.has(d))).flatMap((r) => r.terms.map(([d]) => d)));
    const outer = piece.dims.filter((d) => placed.has(d)).sort((a, b) => Number(mixed.has(b)) - Number(mixed.has(a)));
    forms.set(piece, (form = { outer, inner: piece.dims.filter((d) => !placed.has(d)), writers: piece.writes.map(writerOf), readers }));
  }
  return form;
}

/** Numbers in all programs that are kept for other tiles. */
const mostKept = 2 ** 22;
const kept = { programs: new WeakMap<Piece, Map<string, Program>>(), numbers: 0 };

/** The program of a piece under the ranges of a part. `dense`: windows leave out points outside any operand, as they add nothing. Throws NotHeld where it writes outside its slice. */
export function programOf(piece: Piece, form: Form, range: (dim: string) => Int32Array, operands: readonly Held[], made: Slice, dense: boolean, what: string): Program {
  const outer = pointsOf(form.outer, range);
  const inner = pointsOf(form.inner, range);
  const writes = form.writers.map((w, axis) => axisPlaces(w, made.lists[axis]!, outer, inner));
  const reads = form.readers.map(({ operand, axes }) => ({ lists: operands[operand]!.lists, places: axes.map((r, axis) => axisPlaces(r, operands[operand]!.lists[axis]!, outer, inner)) }));
  const parts = [{ lists: made.lists, places: writes }, ...reads];
  const key = parts.every((p) => p.places.every((x) => x.key !== undefined))
    ? [dense, lengths(outer.lists), lengths(inner.lists), ...parts.map((p) => `${lengths(p.lists)} ${p.places.map((x) => x.key!).join(';')}`)].join('|')
    : undefined;
  const known = key === undefined ? undefined : kept.programs.get(piece)?.get(key);
  if (known) return known;
  const program = assembled(outer, inner, writes, made.lists, reads, dense, what);
  const numbers = program.count * (program.bases.length + 2) + inner.count * program.bases.length;
  if (key !== undefined && numbers <= mostKept / 16) {
    if (kept.numbers + numbers > mostKept) [kept.programs, kept.numbers] = [new WeakMap(), 0];
    kept.numbers += numbers;
    const own = kept.programs.get(piece) ?? new Map<string, Program>();
    kept.programs.set(piece, own.set(key, program));
  }
  return program;
}

const lengths = (lists: readonly Int32Array[]): string => lists.map((l) => l.length).join();

interface Read { readonly lists: readonly Int32Array[]; readonly places: readonly AxisPlaces[] }

function assembled(outer: Points, inner: Points, writes: readonly AxisPlaces[], made: readonly Int32Array[], reads: readonly Read[], dense: boolean, what: string): Program {
  const stridesOf = (lists: readonly Int32Array[]): number[] => rowMajor(lists.map((l) => l.length));
  const target = new Int32Array(outer.count);
  const strides = stridesOf(made);
  writes.forEach((w, axis) => {
    if (outer.count > 0 && w.patterns.length > 1) throw new NotHeld(`${what} writes an element that is not of its slice`);
    spreadOver(target, outer, w.outer, w.shifts, strides[axis]!);
  });
  const kinds = new Int32Array(outer.count);
  let radix = 1;
  const bases = reads.map(({ lists, places }) => {
    const base = new Int32Array(outer.count);
    const own = stridesOf(lists);
    places.forEach((p, axis) => {
      spreadOver(base, outer, p.outer, p.shifts, own[axis]!);
      if (p.patterns.length > 1) spreadOver(kinds, outer, p.outer, p.kinds, radix);
      radix *= p.patterns.length;
    });
    return base;
  });
  const windows = new Map<number, Window>();
  const window = (kind: number): Window => {
    let found = windows.get(kind);
    if (!found) windows.set(kind, (found = windowOf(kind, inner, reads.map(({ lists, places }) => ({ strides: stridesOf(lists), places })), dense)));
    return found;
  };
  return { count: outer.count, target, bases, kinds, window };
}

function windowOf(kind: number, inner: Points, reads: readonly { readonly strides: readonly number[]; readonly places: readonly AxisPlaces[] }[], dense: boolean): Window {
  let rest = kind;
  const at = reads.map(({ strides, places }) => {
    const sums = new Int32Array(inner.count);
    const marks = new Int32Array(inner.count);
    let marked = false;
    places.forEach((p, axis) => {
      const pattern = p.patterns[rest % p.patterns.length]!;
      rest = Math.floor(rest / p.patterns.length);
      if (pattern.some(isNoPlace)) {
        marked = true;
        // A point outside along one axis is outside, whatever the tile holds along the others.
        spreadOver(marks, inner, p.inner, pattern.map((x) => (x === outsidePlace ? 256 : x === lostPlace ? 1 : 0)), 1);
      }
      spreadOver(sums, inner, p.inner, marked ? pattern.map((x) => (isNoPlace(x) ? 0 : x)) : pattern, strides[axis]!);
    });
    if (marked) for (let i = 0; i < sums.length; i++) if (marks[i]! > 0) sums[i] = marks[i]! >= 256 ? outsidePlace : lostPlace;
    return sums;
  });
  if (at.every((list) => !list.some(isNoPlace))) return { count: inner.count, at, lost: false };
  const within = [...Array(inner.count).keys()].filter((i) => !dense || at.every((list) => list[i] !== outsidePlace));
  const chosen = dense ? at.map((list) => Int32Array.from(within, (i) => list[i]!)) : at;
  return { count: within.length, at: chosen, lost: chosen.some((list) => list.includes(lostPlace)) };
}
