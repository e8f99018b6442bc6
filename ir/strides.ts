/** Views of memory: what strides describe the same elements in another shape. */
import { invariant } from './diagnostic.ts';
import { rowMajor } from './type.ts';

/**
 * Strides of a view with another shape over the same elements in row-major order of the axes, or undefined where the elements of a merged axis are
 * not equally spaced. Each maximal group of axes with equal products is matched on its own.
 */
export function reshapeStrides(from: readonly number[], strides: readonly number[], to: readonly number[]): number[] | undefined {
  if (from.some((d) => d === 0)) return rowMajor(to);
  const out = new Array<number>(to.length).fill(1);
  for (const group of matchAxes(from, to)) {
    for (const [k, axis] of group.from.entries()) {
      const next = group.from[k + 1];
      if (next !== undefined && strides[axis] !== from[next]! * strides[next]!) return undefined;
    }
    let stride = strides[group.from.at(-1)!]!;
    for (const axis of group.to.toReversed()) {
      out[axis] = stride;
      stride *= to[axis]!;
    }
  }
  // A size-1 axis never moves; give it the stride of its right neighbour's whole extent, so that orders stay readable.
  for (let i = to.length - 1; i >= 0; i--) if (to[i] === 1) out[i] = i + 1 < to.length ? out[i + 1]! * Math.max(1, to[i + 1]!) : 1;
  return out;
}

/** Maximal groups of axes with equal products, in order; source axes of size 1 belong to none. No size is 0. */
export function matchAxes(from: readonly number[], to: readonly number[]): { readonly from: number[]; readonly to: number[] }[] {
  const source = [...from.keys()].filter((axis) => from[axis] !== 1);
  const target = [...to.keys()].filter((axis) => to[axis] !== 1);
  const groups: { from: number[]; to: number[] }[] = [];
  while (source.length > 0) {
    const group = { from: [source.shift()!], to: [target.shift()!] };
    let [left, right] = [from[group.from[0]!]!, to[group.to[0]!]!];
    while (left !== right) {
      const grown = left < right ? source.shift() : target.shift();
      invariant(grown !== undefined, 'a reshape keeps the number of elements');
      if (left < right) {
        group.from.push(grown);
        left *= from[grown]!;
      } else {
        group.to.push(grown);
        right *= to[grown]!;
      }
    }
    groups.push(group);
  }
  return groups;
}
