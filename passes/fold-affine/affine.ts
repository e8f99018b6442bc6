/** Factors and shifts by fixed values: what they are, and how they are laid out for weights. */
import type { Builder } from '../../ir/builder.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Facts } from '../../ir/rewrite.ts';
import { broadcastShapes, sameShape, sizeOf } from '../../ir/type.ts';
import { padded } from '../rules/through.ts';
import type { Shared } from './shared.ts';

/** Factors and shifts of up to this many elements are spelled out along axes that a reshape splits or joins. */
export const spelledOut = 4096;

export interface Walk {
  readonly b: Builder;
  readonly facts: Facts;
  /** Whether a value depends on constants and never-updated state alone. */
  fixed(v: Value): boolean;
  readonly shared: Shared;
}

/** x * by or x + by, with `by` fixed and x of the result's shape. */
export interface Affine { readonly kind: 'scale' | 'shift'; readonly x: Value; by(): Value }

/** An op of floats as a factor or shift of one operand; undefined for other ops, and where both operands vary. */
export function affineOf(op: Op, { b, fixed }: Walk): Affine | undefined {
  const [p, q] = op.operands;
  const type = op.results[0]!.type;
  if (!p || !q || (type.dtype !== 'f32' && type.dtype !== 'f64') || !['add', 'sub', 'mul', 'div'].includes(op.name)) return undefined;
  const swap = fixed(p) && (op.name === 'add' || op.name === 'mul');
  const [x, by] = swap ? [q, p] : [p, q];
  if (fixed(x) || !fixed(by) || !sameShape(x.type.shape, type.shape)) return undefined;
  switch (op.name) {
    case 'mul': return { kind: 'scale', x, by: () => by };
    case 'div': return { kind: 'scale', x, by: () => b.unary('recip', by) };
    case 'add': return { kind: 'shift', x, by: () => by };
    default: return { kind: 'shift', x, by: () => b.neg(by) };
  }
}

/** `s`, which varies along `letters` (in its order), laid out for the axes `target`: 1 where it does not vary. `sized` has the sizes, by `axes`. */
export function alongLetters(s: Value, letters: readonly string[], target: string, sized: Value, b: Builder, axes = target): Value {
  const size = (l: string): number => sized.type.shape[axes.indexOf(l)]!;
  const order = [...target].filter((l) => letters.includes(l));
  const dense = b.transpose(b.reshape(s, letters.map(size)), order.map((l) => letters.indexOf(l)));
  return b.reshape(dense, [...target].map((l) => (letters.includes(l) ? size(l) : 1)));
}

/**
 * w[(g o), i, kernel...] times a factor of channel (g, i): the input channels of a conv, the output channels of its data gradient. `perChannel` is undefined
 * where `s` is one number.
 */
export function scaledInputs(w: Value, perChannel: Value | undefined, s: Value, groups: number, b: Builder): Value {
  const [o, i, ...kernel] = w.type.shape as [number, number, ...number[]];
  if (!perChannel) return b.mul(w, b.reshape(s, []));
  const split = b.reshape(w, [groups, o / groups, i, ...kernel]);
  return b.reshape(b.mul(split, b.reshape(perChannel, [groups, 1, i, ...kernel.map(() => 1)])), w.type.shape);
}

/** The axes of v along which s varies. */
export const axesOf = (s: Value, v: Value): number[] => padded(s.type.shape, v.type.shape.length).flatMap((d, i) => (d === 1 ? [] : [i]));

/** Whether p and q broadcast to no more elements than the larger has. */
export function compact(p: Value, q: Value): boolean {
  const shape = broadcastShapes([p.type.shape, q.type.shape]);
  return shape !== undefined && sizeOf(shape) <= Math.max(sizeOf(p.type.shape), sizeOf(q.type.shape));
}
