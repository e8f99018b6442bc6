/** Turns the indices of a piece (ir/axes.ts) into address arithmetic: linear steps per dim, tables of byte offsets, and ranges of reduce dims. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Dim, Index, Place } from '../../ir/axes.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes } from '../../ir/type.ts';

/** Marks an entry of a table that lies outside the operand. */
export const outsideMark = -0x80000000;

/** Byte offsets that one or two dims choose; `at[outer * size(inner) + inner]`. */
export interface OffsetTable {
  readonly outer: string;
  readonly inner: string | undefined;
  readonly at: Int32Array;
  /** Whether some entries are `outsideMark`. */
  readonly outside: boolean;
}

/** Σ times·dim + plus must be at least 0 and below size: the range of `reduce`, the one reduce dim in it, is narrowed to where that holds. */
export interface Clip { readonly terms: readonly (readonly [string, number])[]; readonly plus: number; readonly size: number; readonly reduce: string }

/** How an operand's address follows from the dims, in bytes. */
export interface Access {
  readonly fixed: number;
  readonly steps: ReadonlyMap<string, number>;
  readonly tables: readonly OffsetTable[];
  readonly clips: readonly Clip[];
}

/** The address of the element that a piece reads. Reads outside are left out (clips) where a reduce dim can be narrowed, which suits sums and maxima. */
export function accessOf(index: readonly Index[], placed: Placed, dims: ReadonlyMap<string, Dim>): Access {
  const { bytes } = dtypes[placed.type.dtype];
  const steps = new Map<string, number>();
  const tables: OffsetTable[] = [];
  const clips: Clip[] = [];
  let fixed = 0;
  const linear = (terms: readonly (readonly [string, number])[], plus: number, stride: number): void => {
    fixed += plus * stride;
    for (const [dim, times] of terms) steps.set(dim, (steps.get(dim) ?? 0) + times * stride);
  };
  index.forEach((ix, axis) => {
    const stride = placed.strides[axis]! * bytes;
    const size = placed.type.shape[axis]!;
    switch (ix.kind) {
      case 'affine': {
        const reach = (sign: 1 | -1): number => ix.terms.reduce((n, [d, t]) => n + (t * sign > 0 ? t * (dims.get(d)!.size - 1) : 0), ix.plus);
        const inside = ix.outside === 'error' || (reach(-1) >= 0 && reach(1) < size * ix.over);
        if (ix.over === 1 && inside) {
          linear(ix.terms, ix.plus, stride);
          return;
        }
        const reduced = ix.terms.filter(([d]) => dims.get(d)!.role === 'reduce');
        if (ix.over === 1 && (ix.outside === '0' || ix.outside === '-inf') && reduced.length === 1) {
          linear(ix.terms, ix.plus, stride);
          clips.push({ terms: ix.terms, plus: ix.plus, size, reduce: reduced[0]![0] });
          return;
        }
        tables.push(tableOf(ix, size, stride, dims));
        return;
      }
      case 'table': {
        const at = Int32Array.from(ix.at, (v) => v * stride);
        tables.push({ outer: ix.dim, inner: ix.inner, at, outside: false });
        return;
      }
      case 'whole':
      case 'span': invariant(false, `an index of kind ${ix.kind} has an emitter of its own`);
    }
  });
  return { fixed, steps, tables, clips };
}

/** The steps of a result, from its places. */
export function placeAccess(places: readonly Place[], placed: Placed): Access {
  const { bytes } = dtypes[placed.type.dtype];
  const steps = new Map<string, number>();
  let fixed = 0;
  places.forEach((p, axis) => {
    const stride = placed.strides[axis]! * bytes;
    fixed += p.plus * stride;
    for (const [dim, times] of p.terms) steps.set(dim, (steps.get(dim) ?? 0) + times * stride);
  });
  return { fixed, steps, tables: [], clips: [] };
}

function tableOf(ix: Index & { kind: 'affine' }, size: number, stride: number, dims: ReadonlyMap<string, Dim>): OffsetTable {
  const [first, second, ...more] = ix.terms;
  invariant(first !== undefined && more.length === 0, 'an index that is not linear depends on one or two dims');
  const outer = dims.get(first[0])!;
  const inner = second && dims.get(second[0])!;
  const at = new Int32Array(outer.size * (inner?.size ?? 1));
  let outside = false;
  for (let i = 0; i < outer.size; i++) {
    for (let j = 0; j < (inner?.size ?? 1); j++) {
      const p = foldIndex(Math.floor((first[1] * i + (second?.[1] ?? 0) * j + ix.plus) / ix.over), size, ix.outside);
      if (p === undefined) outside = true;
      at[i * (inner?.size ?? 1) + j] = p === undefined ? outsideMark : p * stride;
    }
  }
  return { outer: outer.name, inner: inner?.name, at, outside };
}

/** The element that an index stands for, or undefined outside. */
function foldIndex(i: number, n: number, outside: string): number | undefined {
  if (i >= 0 && i < n) return i;
  if (outside === 'edge') return Math.min(Math.max(i, 0), n - 1);
  if (outside === 'wrap') return ((i % n) + n) % n;
  if (outside !== 'reflect') return undefined;
  if (n === 1) return 0;
  const period = 2 * (n - 1);
  const p = ((i % period) + period) % period;
  return p < n ? p : period - p;
}
