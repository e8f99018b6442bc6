/** Run-time indices: checks, and what an index outside its axis means. */
import type { RefTensor } from '../../op.ts';
import { rowMajor, showType, type TensorType } from '../../type.ts';
import { check, indexValues } from '../helpers.ts';

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
