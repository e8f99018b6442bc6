/** One axis of an operand: the place in a slice that each point reads, as a shift that depends on the outer dims and a pattern over the inner ones. */
import { placesIn } from '../held.ts';
import { wholeList } from '../parts.ts';
import { lost, outside, sumsOf, type Points, type Reader } from './reader.ts';

/** Marks within a pattern: a place may be negative there, as it is relative to the shift. */
export const outsidePlace = -(2 ** 31);
export const lostPlace = outsidePlace + 1;
/** Whether a place of a pattern is none. */
export const isNoPlace = (place: number): boolean => place <= lostPlace;

/**
 * Places along one axis of a slice. Rows are the points of the outer dims that it depends on, columns those of the inner ones; the place of a row and a column is `shifts[row] + patterns[kinds[row]][column]`.
 * Rows that differ by their shift alone have one pattern: all but those at a border, mostly.
 */
export interface AxisPlaces {
  readonly outer: readonly number[];
  readonly inner: readonly number[];
  readonly shifts: Int32Array;
  readonly kinds: Int32Array;
  readonly patterns: readonly Int32Array[];
  /** Equal for equal places of equal dims; undefined where it would be too long. */
  readonly key: string | undefined;
}

const one = Int32Array.of(0);
/** Patterns of one column, by kind. */
const single: readonly Int32Array[] = [one, Int32Array.of(outsidePlace), Int32Array.of(lostPlace)];
/** Places that a key has at most. */
const longest = 4096;

/** The places of the points of a space in the slice of an axis that has the elements of `list`. */
export function axisPlaces(reader: Reader, list: Int32Array, outer: Points, inner: Points): AxisPlaces {
  if (reader.straight) {
    const [dim] = reader.terms[0]!;
    const [o, i] = [outer.names.indexOf(dim), inner.names.indexOf(dim)];
    const key = `=${dim} ${list.length}`;
    if (outer.lists[o] === list) return { outer: [o], inner: [], shifts: wholeList(list.length), kinds: new Int32Array(list.length), patterns: [one], key };
    if (inner.lists[i] === list) return { outer: [], inner: [i], shifts: one, kinds: one, patterns: [wholeList(list.length)], key };
  }
  const rows = sumsOf(reader, outer);
  const columns = sumsOf(reader, inner);
  const places = placesIn(list);
  const placeOf = (sum: number): number => {
    const element = reader.to(sum + reader.plus);
    if (element < 0) return element === outside ? outsidePlace : lostPlace;
    const place = places[element] ?? lost;
    return place < 0 ? lostPlace : place;
  };
  return columns.dims.length === 0 ? alone(rows, placeOf) : patterned(rows, columns, placeOf);
}

type Sums = ReturnType<typeof sumsOf>;

/** An axis that no inner dim is read along. */
function alone({ dims, sums }: Sums, placeOf: (sum: number) => number): AxisPlaces {
  const shifts = new Int32Array(sums.length);
  const kinds = new Int32Array(sums.length);
  let whole = true;
  for (let r = 0; r < sums.length; r++) {
    const place = placeOf(sums[r]!);
    if (!isNoPlace(place)) shifts[r] = place;
    else {
      whole = false;
      kinds[r] = place === outsidePlace ? 1 : 2;
    }
  }
  return { outer: dims, inner: [], shifts, kinds, patterns: whole ? single.slice(0, 1) : single, key: sums.length > longest ? undefined : `${dims.join()} ${shifts.join()}${whole ? '' : ` ${kinds.join()}`}` };
}

function patterned(rows: Sums, columns: Sums, placeOf: (sum: number) => number): AxisPlaces {
  const n = columns.sums.length;
  const shifts = new Int32Array(rows.sums.length);
  const kinds = new Int32Array(rows.sums.length);
  const patterns: Int32Array[] = [];
  const known = new Map<string, number>();
  for (let r = 0; r < shifts.length; r++) {
    const row = new Int32Array(n);
    let shift = -1;
    for (let c = 0; c < n; c++) {
      const place = placeOf(rows.sums[r]! + columns.sums[c]!);
      if (shift < 0 && !isNoPlace(place)) shift = place;
      row[c] = isNoPlace(place) ? place : place - shift;
    }
    shifts[r] = Math.max(0, shift);
    const text = shifts.length === 1 ? '' : row.join();
    let kind = known.get(text);
    if (kind === undefined) {
      known.set(text, (kind = patterns.length));
      patterns.push(row);
    }
    kinds[r] = kind;
  }
  const key = shifts.length + n * patterns.length > longest ? undefined : `${rows.dims.join()} ${columns.dims.join()} ${shifts.join()} ${kinds.join()} ${patterns.map((p) => p.join()).join(' ')}`;
  return { outer: rows.dims, inner: columns.dims, shifts, kinds, patterns, key };
}

/** Adds values that depend on some dims of a space, times `times`, to all its points. */
export function spreadOver(into: Int32Array, { lists }: Points, dims: readonly number[], values: Int32Array, times: number): void {
  let stride = 1;
  const steps = lists.map(() => 0);
  for (const d of [...dims].reverse()) {
    steps[d] = stride;
    stride *= lists[d]!.length;
  }
  const last = lists.length - 1;
  let at = 0;
  const visit = (d: number, row: number): void => {
    if (d > last) {
      into[at++]! += times * values[row]!;
      return;
    }
    const [n, step] = [lists[d]!.length, steps[d]!];
    if (d < last) for (let j = 0; j < n; j++) visit(d + 1, row + j * step);
    else if (step === 0) for (let add = times * values[row]!, end = at + n; at < end; at++) into[at]! += add;
    else for (let j = 0; j < n; j++) into[at++]! += times * values[row + j * step]!;
  };
  visit(0, 0);
}
