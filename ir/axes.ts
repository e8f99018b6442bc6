/** How an op walks its operands, as data. One iteration space of named dimensions; operands are read at indices, results written at places. */

export type Role = 'parallel' | 'reduce' | 'scan' | 'whole';
/** `reverse` is of a scan that runs from high to low. */
export interface Dim { readonly name: string; readonly size: number; readonly role: Role; readonly reverse?: true }
/** What a read outside the operand's bounds gives. */
export type Outside = 'error' | '0' | '-inf' | 'edge' | 'reflect' | 'wrap';

/** Where one tensor axis is read. */
export type Index =
  /** floor((Σ times·dim + plus) / over) */
  | { readonly kind: 'affine'; readonly terms: readonly (readonly [dim: string, times: number])[]; readonly plus: number; readonly over: number; readonly outside: Outside }
  /** A static index map over one dim, or over an outer and an inner dim (`at[outer * size(inner) + inner]`). */
  | { readonly kind: 'table'; readonly dim: string; readonly inner?: string; readonly at: readonly number[] }
  /** The body sees the whole axis: sort, run-time index. */
  | { readonly kind: 'whole'; readonly dim: string }
  /** A digit of a linear address: reshape without a refinement. The consecutive axes of a group are the digits of the row-major number of `dims`. */
  | { readonly kind: 'span'; readonly group: number; readonly dims: readonly string[] };

/** One result axis: Σ times·dim + plus. Injective over the piece's dims. */
export interface Place { readonly terms: readonly (readonly [dim: string, times: number])[]; readonly plus: number }

export interface Piece {
  /** Dims of the space that this piece walks; a size of 0 is allowed (a phase without taps). */
  readonly dims: readonly string[];
  /** Per operand, per axis; null: this piece does not read that operand. */
  readonly reads: readonly (readonly Index[] | null)[];
  readonly writes: readonly Place[];
  /** Dims whose index the body uses (masks, divisors of a border, random). */
  readonly indexed: readonly string[];
}

export type CombineName = 'none' | 'sum' | 'prod' | 'max' | 'min' | 'argmax' | 'argmin' | 'moments' | 'topk' | 'softmaxSum';
/** `product`: the body multiplies its operands. */
export interface Stage { readonly pieces: readonly Piece[]; readonly combine: CombineName; readonly product: boolean }
/** A plain op has one stage. */
export interface Axes { readonly space: readonly Dim[]; readonly stages: readonly Stage[] }

/** An affine index without floor. */
export const at = (terms: readonly (readonly [string, number])[], plus = 0, outside: Outside = 'error', over = 1): Index => ({ kind: 'affine', terms, plus, over, outside });
/** The plain index of one dim. */
export const plain = (dim: string): Index => at([[dim, 1]]);
/** A broadcast axis: always read at 0. */
export const zero: Index = at([]);
/** The plain place of one dim. */
export const put = (dim: string): Place => ({ terms: [[dim, 1]], plus: 0 });
