/** What the op files share: checks for `infer`, identity elements, dims, and building of results. */
import { plain, put, type Dim, type Index, type Place, type Role } from '../axes.ts';
import { intRange, isBig, refData } from '../number.ts';
import { TypeProblem, type RefTensor } from '../op.ts';
import { isFloat, isInteger, showType, type DType, type TensorType } from '../type.ts';

/** Throws a TypeProblem unless the condition holds. */
export function check(condition: boolean, problem: () => string): asserts condition {
  if (!condition) throw new TypeProblem(problem());
}

/** The operands' types, checked in number. */
export function arity(operands: readonly TensorType[], n: 1): readonly [TensorType];
export function arity(operands: readonly TensorType[], n: 2): readonly [TensorType, TensorType];
export function arity(operands: readonly TensorType[], n: 3): readonly [TensorType, TensorType, TensorType];
export function arity(operands: readonly TensorType[], n: number): readonly TensorType[] {
  check(operands.length === n, () => `has ${operands.length} operands, expected ${n}`);
  return operands;
}

/** The n-th of some operands, results or values that `infer` or the caller has counted before. */
export function nth<T>(xs: readonly T[], n: number): T {
  const x = xs[n];
  if (x === undefined) throw new RangeError(`there is no element ${n} among ${xs.length}`);
  return x;
}

export function requireFloat(t: TensorType): void {
  check(isFloat(t.dtype), () => `${showType(t)} is not of a float type`);
}
export function requireNumeric(t: TensorType): void {
  check(isFloat(t.dtype) || isInteger(t.dtype), () => `${showType(t)} is not of a float or integer type`);
}
export function requireIndex(t: TensorType): void {
  check(t.dtype === 'i32' || t.dtype === 'i64', () => `${showType(t)} is not an index tensor, expected i32 or i64`);
}
export function requireSameDType(a: TensorType, b: TensorType): void {
  check(a.dtype === b.dtype, () => `${showType(a)} and ${showType(b)} differ in element type`);
}
export function requireAxis(axis: number, t: TensorType): void {
  check(Number.isInteger(axis) && axis >= 0 && axis < t.shape.length, () => `axis ${axis} is not an axis of ${showType(t)}`);
}
/** Axes must be of the tensor, ascending, without repeats. */
export function requireAxes(axes: readonly number[], t: TensorType): void {
  axes.forEach((a, i) => {
    requireAxis(a, t);
    check(i === 0 || a > axes[i - 1]!, () => `axes ${axes.join(',')} are not ascending`);
  });
}
/** A list attribute with one integer per axis. */
export function requirePerAxis(name: string, list: readonly number[], rank: number): void {
  check(list.length === rank && list.every(Number.isInteger), () => `${name}=[${list.join(',')}] must hold one integer for each of ${rank} axes`);
}
export function requireShape(shape: readonly number[]): void {
  check(shape.every((d) => Number.isInteger(d) && d >= 0), () => `[${shape.join(',')}] is not a shape`);
}

/** The shape without some axes. */
export const dropAxes = (shape: readonly number[], axes: readonly number[]): number[] => shape.filter((_, i) => !axes.includes(i));

/** -inf, or the lowest integer (false for bool): what `max` starts from. A number, whatever the dtype; see `lowestBig`. */
export const lowest = (dtype: DType): number => (isFloat(dtype) ? -Infinity : Number(intRange(dtype).lo));
/** +inf, or the highest integer (true for bool): what `min` starts from. */
export const highest = (dtype: DType): number => (isFloat(dtype) ? Infinity : Number(intRange(dtype).hi));
/** `lowest` of i64 and u64. */
export const lowestBig = (dtype: DType): bigint => intRange(dtype).lo;
/** `highest` of i64 and u64. */
export const highestBig = (dtype: DType): bigint => intRange(dtype).hi;

/** A result for the interpreter: zeros of a type, to be written. */
export function fresh(type: TensorType): RefTensor {
  return { dtype: type.dtype, shape: type.shape, data: refData(type) };
}
/** Data of a tensor that is not i64 or u64. */
export function numbers(t: RefTensor): Float64Array {
  if (!(t.data instanceof Float64Array)) throw new TypeError(`${t.dtype} is held as bigints`);
  return t.data;
}
/** Data of an i64 or u64 tensor. */
export function bigints(t: RefTensor): BigInt64Array | BigUint64Array {
  if (t.data instanceof Float64Array) throw new TypeError(`${t.dtype} is held as numbers`);
  return t.data;
}
/** Elements as plain numbers, of an index tensor of any integer dtype. */
export function indexValues(t: RefTensor): Float64Array {
  return isBig(t.dtype) ? Float64Array.from(bigints(t), Number) : numbers(t);
}

/** Dims named prefix0, prefix1, … for the axes of a shape. */
export function dimsOf(shape: readonly number[], role: Role = 'parallel', prefix = 'd'): Dim[] {
  return shape.map((size, i) => ({ name: `${prefix}${i}`, size, role }));
}
/** Plain indices of dims, one an axis. */
export const readDims = (dims: readonly Dim[]): Index[] => dims.map((d) => plain(d.name));
/** Plain places of dims, one an axis. */
export const writeDims = (dims: readonly Dim[]): Place[] => dims.map((d) => put(d.name));
export const namesOf = (dims: readonly Dim[]): string[] => dims.map((d) => d.name);
