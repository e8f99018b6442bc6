/** What every op declares, once. Nothing is optional, so silence never means forgotten. */
import type { Axes } from './axes.ts';
import type { Builder } from './builder.ts';
import type { Attr, Attrs, Graph, Op, Value } from './graph.ts';
import type { DType, Tensor, TensorType } from './type.ts';

/**
 * A tensor inside the interpreter. Floats, bool and integers of up to 32 bits are held as float64 (exact); i64 and u64 as bigints.
 * Floats always hold values already rounded to `dtype`.
 */
export interface RefTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Float64Array | BigInt64Array | BigUint64Array;
}

/** The type of an attribute and its default; `required` means there is none. Printing follows the order of the record. */
export interface AttrSpec {
  readonly kind: 'number' | 'bigint' | 'string' | 'boolean' | 'numbers' | 'strings' | 'tensor';
  readonly default: Attr | 'required';
}

/** Thrown by `infer` where operand types or attributes do not fit; the builder and the verifier add which op. */
export class TypeProblem extends Error {}

/** Runs a region on the interpreter. */
export type RunRegion = (region: Graph, inputs: readonly RefTensor[]) => RefTensor[];

export interface OpDef {
  readonly name: string;
  /** One line: what it computes, as a formula. */
  readonly doc: string;
  /** Family of the op; backends keep total tables by family. */
  readonly family: OpFamily;
  /** Names of the operands; one that ends in `...` stands last and may repeat (also zero times). */
  readonly operands: readonly string[];
  readonly attrs: Readonly<Record<string, AttrSpec>>;
  /** Result types. Throws TypeProblem with what was found and what was expected. Attributes arrive with defaults filled in. */
  infer(operands: readonly TensorType[], attrs: Attrs, regions: readonly Graph[]): readonly TensorType[];
  /** How the op walks its operands, or why there is no such description (regions, data-dependent places). */
  axes(operands: readonly TensorType[], attrs: Attrs, results: readonly TensorType[]): Axes | { readonly none: string };
  /** Plain loops, in float64 (bigint for integers where it matters), result rounded to the declared dtype by the caller. Right before fast. */
  reference(operands: readonly RefTensor[], attrs: Attrs, results: readonly TensorType[], regions: readonly Graph[], run: RunRegion): readonly RefTensor[];
  /** The gradient as ordinary ops. */
  readonly grad: Grad;
}

/**
 * `build` gets one cotangent per result (undefined where nothing flows back) and returns one per operand (undefined for operands without a
 * gradient: integers, shapes). A cotangent has exactly the type of its value; use `b.sumTo(g, shape)` to undo broadcasting.
 * `none` says why: only where the function is piecewise constant or integer.
 */
export type Grad =
  | { readonly none: string }
  | { build(b: Builder, op: Op, cotangents: readonly (Value | undefined)[]): readonly (Value | undefined)[] };

export type OpFamily =
  | 'constant' | 'map' | 'reduce' | 'contract' | 'conv' | 'window' | 'resample' | 'move' | 'index' | 'scatter' | 'scan' | 'sort' | 'random' | 'region';

/** Reads an attribute of a known kind; an attribute of another kind is a bug of the caller. */
export const num = (a: Attrs, key: string): number => a[key] as number;
export const nums = (a: Attrs, key: string): readonly number[] => a[key] as readonly number[];
export const str = (a: Attrs, key: string): string => a[key] as string;
export const flag = (a: Attrs, key: string): boolean => a[key] as boolean;
export const tensorAttr = (a: Attrs, key: string): Tensor => a[key] as Tensor;
