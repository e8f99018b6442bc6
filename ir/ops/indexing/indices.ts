/** Run-time indices: checks, and what an index outside its axis means. */
import type { RefTensor } from '../../op.ts';
import { rowMajor, showType, type TensorType } from '../../type.ts';
import { check, indexValues, requireAxis, requireIndex } from '../helpers.ts';

/** Index values along axes of the given sizes: `sizes[j]` is the axis of value i·sizes.length + j. Negative ones count from the end, the rest is clamped into range. */
export function resolveIndices(indices: RefTensor, sizes: readonly number[]): Float64Array {
  const values = Float64Array.from(indexValues(indices));
  for (let i = 0; i < values.length; i++) values[i] = resolveIndex(values[i]!, sizes[i % sizes.length]!);
  return values;
}

function resolveIndex(index: number, size: number): number {
  const fromStart = index < 0 ? index + size : index;
  return Math.min(Math.max(fromStart, 0), size - 1);
}

/** Checks that an axis that indices point into has an element to point at, unless there is no index. */
export function requireTarget(x: TensorType, axis: number, indices: TensorType): void {
  check(x.shape[axis]! > 0 || indices.shape.includes(0), () => `axis ${axis} of ${showType(x)} has no element that ${showType(indices)} could name`);
}

/** Checks the operands of gatherElements and scatterElements. */
export function requireElementIndices(x: TensorType, indices: TensorType, axis: number): void {
  requireAxis(axis, x);
  requireIndex(indices);
  check(indices.shape.length === x.shape.length, () => `${showType(indices)} has not the rank of ${showType(x)}`);
  indices.shape.forEach((d, i) => check(i === axis || d <= x.shape[i]!, () => `${showType(indices)} has ${d} elements on axis ${i}, more than ${showType(x)}`));
  requireTarget(x, axis, indices);
}

/** Checks that tuples of `depth` indices fit the axes of x from `batch` on. */
export function requireTuples(x: TensorType, indices: TensorType, batch: number, depth: number): void {
  check(batch + depth <= x.shape.length, () => `${showType(indices)} holds tuples of ${depth} indices, but ${showType(x)} has ${x.shape.length - batch} axes for them`);
  for (let axis = batch; axis < batch + depth; axis++) requireTarget(x, axis, indices);
}

/** For each element of indices in row-major order, the element of a tensor of this shape that it names. */
export function elementOffsets(shape: readonly number[], indices: RefTensor, axis: number): Float64Array {
  const at = resolveIndices(indices, [shape[axis]!]);
  const strides = rowMajor(shape);
  const place = indices.shape.map(() => 0);
  for (let i = 0; i < at.length; i++) {
    let offset = 0;
    for (let d = 0; d < place.length; d++) offset += strides[d]! * (d === axis ? at[i]! : place[d]!);
    at[i] = offset;
    for (let d = place.length - 1; d >= 0 && ++place[d]! === indices.shape[d]; d--) place[d] = 0;
  }
  return at;
}

/** First element of each of the slices that coordinate tuples name: tuples of `depth` values over the axes of `shape` from `first` on. */
export function tupleOffsets(indices: RefTensor, shape: readonly number[], first: number, depth: number): Float64Array {
  const strides = rowMajor(shape).slice(first, first + depth);
  const values = depth === 0 ? new Float64Array(0) : resolveIndices(indices, shape.slice(first, first + depth));
  const count = indices.shape.slice(0, -1).reduce((n, d) => n * d, 1);
  return Float64Array.from({ length: count }, (_, i) => strides.reduce((sum, stride, j) => sum + stride * values[i * depth + j]!, 0));
}

/** Where `dynamicSlice` and `dynamicUpdate` start: clamped so that the whole window lies inside. */
export function clampStarts(starts: RefTensor, shape: readonly number[], sizes: readonly number[]): readonly number[] {
  return Array.from(indexValues(starts), (s, i) => Math.min(Math.max(s, 0), shape[i]! - sizes[i]!));
}
