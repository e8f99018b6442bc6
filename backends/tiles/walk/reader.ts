/** Indices of tensor axes as sums of dims, and the element that each sum means. */
import type { Index, Piece } from '../../../ir/axes.ts';
import { InternalError } from '../../../ir/diagnostic.ts';
import { wholeList } from '../parts.ts';

/** The values of each dim of the space that a part walks. */
export type Ranges = (piece: Piece, dim: string) => Int32Array;

/** In place of an element: a point outside the tensor. */
export const outside = -1;
/** In place of an element: no element at all, or one that the tile does not hold. */
export const lost = -2;

/** An index of an axis: a sum of dims, and what element it means (`outside` or `lost` for none). `straight`: the value of its one dim is the element. */
export interface Reader {
  readonly terms: readonly (readonly [dim: string, times: number])[];
  readonly plus: number;
  readonly straight: boolean;
  to(raw: number): number;
}

/** Points of a space: values of each dim, the last dim fastest. */
export interface Points {
  readonly names: readonly string[];
  readonly lists: readonly Int32Array[];
  readonly count: number;
}

/** The points of some dims. */
export function pointsOf(names: readonly string[], range: (name: string) => Int32Array): Points {
  const lists = names.map(range);
  return { names, lists, count: lists.reduce((n, l) => n * l.length, 1) };
}

/** Where one axis of an operand of a shape is read. */
export function readerOf(index: Index, indices: readonly Index[], axis: number, sizes: ReadonlyMap<string, number>, shape: readonly number[]): Reader {
  const size = shape[axis]!;
  switch (index.kind) {
    case 'affine': {
      const { over, outside: mode, terms, plus } = index;
      return { terms, plus, straight: isStraight(terms, plus) && over === 1, to: (raw) => inside(over === 1 ? raw : Math.floor(raw / over), size, mode) };
    }
    case 'table': {
      const to = (raw: number): number => (index.at[raw]! >= 0 ? index.at[raw]! : lost);
      return { terms: index.inner === undefined ? [[index.dim, 1]] : [[index.dim, sizes.get(index.inner)!], [index.inner, 1]], plus: 0, straight: false, to };
    }
    case 'span': {
      let stride = 1;
      const terms = [...index.dims].reverse().map((name): [string, number] => {
        const term: [string, number] = [name, stride];
        stride *= sizes.get(name)!;
        return term;
      });
      const digit = indices.reduce((s, r, a) => (a > axis && r.kind === 'span' && r.group === index.group ? s * shape[a]! : s), 1);
      return { terms, plus: 0, straight: false, to: (raw) => Math.floor(raw / digit) % size };
    }
    case 'whole': throw new InternalError('an axis that is read whole is not walked');
  }
}

/** Where results are written: an axis is its sum. */
export function writerOf({ terms, plus }: Piece['writes'][number]): Reader {
  return { terms, plus, straight: isStraight(terms, plus), to: (raw) => (raw >= 0 ? raw : lost) };
}

const isStraight = (terms: Reader['terms'], plus: number): boolean => terms.length === 1 && terms[0]![1] === 1 && plus === 0;

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
    case 'error': return lost;
  }
}

/** The sums of a reader over the points of those dims of a space that it depends on; `dims` are their positions. */
export function sumsOf({ terms }: Reader, points: Points): { readonly dims: readonly number[]; readonly sums: Int32Array } {
  const dims: number[] = [];
  let sums = Int32Array.of(0);
  points.names.forEach((n, d) => {
    const times = terms.reduce((s, [name, t]) => (name === n ? s + t : s), 0);
    if (times === 0) return;
    dims.push(d);
    const values = points.lists[d]!;
    const next = new Int32Array(sums.length * values.length);
    let at = 0;
    for (let i = 0; i < sums.length; i++) for (let j = 0; j < values.length; j++) next[at++] = sums[i]! + times * values[j]!;
    sums = next;
  });
  return { dims, sums };
}

/** The elements of an axis that the points of some ranges read, ascending; all of them for an axis that is read whole. */
export function elementsRead(indices: readonly Index[], axis: number, sizes: ReadonlyMap<string, number>, shape: readonly number[], range: (dim: string) => Int32Array): Int32Array {
  const index = indices[axis]!;
  if (index.kind === 'whole') return wholeList(shape[axis]!);
  const reader = readerOf(index, indices, axis, sizes, shape);
  if (reader.straight) return range(reader.terms[0]![0]);
  const { sums } = sumsOf(reader, pointsOf([...new Set(reader.terms.map(([d]) => d))], range));
  const found = new Set<number>();
  for (const sum of sums) {
    const element = reader.to(sum + reader.plus);
    if (element >= 0) found.add(element);
  }
  if (found.size === shape[axis]!) return wholeList(shape[axis]);
  return Int32Array.from(found).sort();
}
