/** Carries an operand of an elementwise op to the other side of a reshape or a transpose. */
import type { Builder } from '../../ir/builder.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { sizeOf } from '../../ir/type.ts';

/** A shape with ones in front, up to a rank. */
export const padded = (shape: readonly number[], rank: number): number[] => [...new Array<number>(Math.max(0, rank - shape.length)).fill(1), ...shape];

/**
 * The value that means for x what `s` means for `move` = reshape(x) or transpose(x): f(move(x), s) = move(f(x, result)). `s` broadcasts to the shape of
 * `move`. A reshape may split or join axes along which s varies only partly; then s is spelled out along them, up to `spelledOut` elements (0: never), and
 * undefined is returned beyond.
 */
export function throughMove(s: Value, move: Op, b: Builder, spelledOut: number): Value | undefined {
  const [from, to] = [move.operands[0]!.type.shape, move.results[0]!.type.shape];
  if (sizeOf(s.type.shape) === 1) return b.reshape(s, []);
  const shape = padded(s.type.shape, to.length);
  if (move.name === 'transpose') {
    const perm = nums(move.attrs, 'perm');
    return b.transpose(b.reshape(s, shape), perm.map((_, axis) => perm.indexOf(axis)));
  }
  return acrossReshape(s, to, from, b, spelledOut);
}

/** What `s`, which broadcasts to the shape of x, means for `move` = reshape(x) or transpose(x): move(f(x, s)) = f(move(x), result). Undefined as for `throughMove`. */
export function pastMove(s: Value, move: Op, b: Builder, spelledOut: number): Value | undefined {
  const [from, to] = [move.operands[0]!.type.shape, move.results[0]!.type.shape];
  if (sizeOf(s.type.shape) === 1) return b.reshape(s, []);
  if (move.name === 'transpose') return b.transpose(b.reshape(s, padded(s.type.shape, from.length)), nums(move.attrs, 'perm'));
  return acrossReshape(s, from, to, b, spelledOut);
}

/** `s`, which broadcasts to `near`, for the shape `far` of the same elements. */
function acrossReshape(s: Value, near: readonly number[], far: readonly number[], b: Builder, spelledOut: number): Value | undefined {
  if (sizeOf(near) === 0) return undefined;
  const shape = padded(s.type.shape, near.length);
  const full = [...shape];
  const other: number[] = [];
  for (const [axes, across] of axisGroups(far, near)) {
    const varies = axes.some((k) => shape[k] !== 1);
    for (const k of axes) full[k] = varies ? near[k]! : 1;
    for (const k of across) other.push(varies ? far[k]! : 1);
  }
  if (sizeOf(full) > sizeOf(shape) && sizeOf(full) > spelledOut) return undefined;
  return b.reshape(b.broadcast(b.reshape(s, shape), full), other);
}

/** The axes of both sides of a reshape in the smallest groups of equal products: [axes of `to`, axes of `from`]. Sizes are not 0. */
export function axisGroups(from: readonly number[], to: readonly number[]): [number[], number[]][] {
  const found: [number[], number[]][] = [];
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    const group: [number[], number[]] = [[], []];
    let [p, q] = [1, 1];
    do {
      if (i < from.length && (p <= q || j === to.length)) {
        group[1].push(i);
        p *= from[i++]!;
      } else {
        group[0].push(j);
        q *= to[j++]!;
      }
    } while (p !== q);
    found.push(group);
  }
  return found;
}
