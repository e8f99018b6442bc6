/** Gradient cases of the ops that move elements. */
import fc from 'fast-check';
import { between, shapes, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';

const values = between(-2, 2);
const of = (shape: readonly number[], attrs: Instance['attrs'] = {}): fc.Arbitrary<Instance> => tensors(shape, values).map((x) => ({ operands: [x], attrs }));

/** A slice of a random shape: starts, sizes and steps that stay inside, steps of both signs. */
export const slicing: fc.Arbitrary<{ shape: number[]; starts: number[]; sizes: number[]; steps: number[] }> = fc
  .array(fc.integer({ min: 1, max: 6 }).chain((d) => fc.tuple(fc.constant(d), fc.integer({ min: 0, max: d - 1 }), fc.constantFrom(-3, -2, -1, 1, 2, 3), fc.integer({ min: 0, max: 5 }))), { minLength: 1, maxLength: 3 })
  .map((axes) => ({
    shape: axes.map(([d]) => d),
    starts: axes.map(([, start]) => start),
    steps: axes.map(([, , step]) => step),
    sizes: axes.map(([d, start, step, want]) => Math.min(want, 1 + Math.floor((step > 0 ? d - 1 - start : start) / Math.abs(step)))),
  }));

/** A pad of a random shape in any mode; reflections stay within one mirror image, crops leave something. */
export const padding = (modes: readonly string[], value: fc.Arbitrary<number>): fc.Arbitrary<{ shape: number[]; attrs: { lo: number[]; hi: number[]; mode: string; value: number } }> => fc
  .tuple(fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: -2, max: 3 }), fc.integer({ min: -2, max: 3 })), { minLength: 1, maxLength: 3 }), fc.constantFrom(...modes), value)
  .map(([axes, mode, v]) => ({
    shape: axes.map(([d]) => d),
    attrs: { lo: axes.map(([d, lo]) => Math.max(lo, -d)), hi: axes.map(([d, lo, hi]) => Math.max(hi, -(d + Math.max(lo, -d)))), mode, value: v },
  }));

/** A shape, and another of as many elements. */
export const reshaping: fc.Arbitrary<[number[], number[]]> = fc.constantFrom<[number[], number[]][]>(
  [[2, 6], [4, 3]], [[6, 4], [4, 6]], [[2, 3, 4], [6, 4]], [[12], [1, 3, 1, 4]], [[2, 6, 5], [3, 4, 5]], [[1, 1], []], [[8, 4], [4, 8]], [[5, 6, 4, 3], [30, 3, 4]], [[2, 0, 3], [0, 7]],
);

export const movementGradients: readonly GradientCase[] = [
  { op: 'reshape', instance: reshaping.chain(([from, shape]) => of(from, { shape })) },
  { op: 'transpose', instance: shapes(4).chain((s) => fc.shuffledSubarray([...s.keys()], { minLength: s.length, maxLength: s.length }).chain((perm) => of(s, { perm }))) },
  {
    op: 'broadcast',
    instance: shapes(3).chain((shape) => fc.tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: 3, maxLength: 3 })).chain(([from, ones]) => of(shape.slice(from).map((d, i) => (ones[i] ? 1 : d)), { shape }))),
  },
  { op: 'copy', instance: shapes().chain((s) => of(s)) },
  { op: 'slice', instance: slicing.chain(({ shape, ...attrs }) => of(shape, attrs)), runs: 60 },
  { op: 'pad', note: 'constant', instance: padding(['constant'], fc.constantFrom(0, 1.5)).chain(({ shape, attrs }) => of(shape, attrs)), runs: 40 },
  { op: 'pad', note: 'repeating', instance: padding(['edge', 'reflect', 'wrap'], fc.constant(0)).chain(({ shape, attrs }) => of(shape, attrs)), runs: 60 },
  {
    op: 'concat',
    instance: shapes(3, 3).filter((s) => s.length > 0).chain((s) => fc.tuple(fc.nat(s.length - 1), fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 3 }))
      .chain(([axis, sizes]) => fc.tuple(...sizes.map((size) => tensors(s.with(axis, size), values))).map((operands) => ({ operands, attrs: { axis } })))),
  },
];
