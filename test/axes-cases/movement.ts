/** Axes cases of the ops that move elements. */
import fc from 'fast-check';
import { sizeOf, type Tensor } from '../../ir/type.ts';
import type { AxesCase } from '../axes-harness.ts';
import { padding, reshaping, slicing } from '../gradient-cases/movement.ts';
import { shapes, tensor, type Instance } from '../gradient-harness.ts';

/** 1, 2, 3, …: every element can be told from every other, and from padding. */
const counted = (shape: readonly number[], from = 1): Tensor => tensor('f64', shape, Array.from({ length: sizeOf(shape) }, (_, i) => i + from));
const of = (shape: readonly number[], attrs: NonNullable<Instance['attrs']>): Instance => ({ operands: [counted(shape)], attrs });

/** Two shapes made by cutting one list of factors in two ways, with ones strewn in. */
const factored: fc.Arbitrary<[number[], number[]]> = fc.array(fc.constantFrom(1, 2, 2, 3, 4, 5), { minLength: 1, maxLength: 5 }).chain((factors) => {
  const cut = fc.array(fc.boolean(), { minLength: factors.length, maxLength: factors.length }).map((joins) => {
    const shape: number[] = [];
    factors.forEach((f, i) => (joins[i] && shape.length > 0 ? (shape[shape.length - 1]! *= f) : shape.push(f)));
    return shape;
  });
  return fc.tuple(cut, fc.oneof(cut, fc.shuffledSubarray(factors, { minLength: factors.length, maxLength: factors.length })));
});

export const movementAxesCases: readonly AxesCase[] = [
  { op: 'reshape', note: 'chosen shapes', instance: reshaping.map(([from, shape]) => of(from, { shape })) },
  { op: 'reshape', note: 'random shapes', instance: factored.map(([from, shape]) => of(from, { shape })), runs: 200 },
  { op: 'transpose', instance: shapes(4, 3, 0).chain((s) => fc.shuffledSubarray([...s.keys()], { minLength: s.length, maxLength: s.length }).map((perm) => of(s, { perm }))) },
  {
    op: 'broadcast',
    instance: shapes(3, 3).chain((shape) => fc.tuple(fc.nat(shape.length), fc.array(fc.boolean(), { minLength: 3, maxLength: 3 })).map(([from, ones]) => of(shape.slice(from).map((d, i) => (ones[i] ? 1 : d)), { shape }))),
  },
  { op: 'copy', instance: shapes(3, 3, 0).map((s) => of(s, {})) },
  { op: 'slice', instance: slicing.map(({ shape, ...attrs }) => of(shape, attrs)), runs: 100 },
  {
    op: 'pad',
    note: 'constant',
    instance: padding(['constant'], fc.constantFrom(0, -Infinity, 2.5)).map(({ shape, attrs }) => of(shape, attrs)),
    body: ([x], _index, attrs) => (x === undefined ? (attrs['value'] as number) : (x)),
    runs: 150,
  },
  { op: 'pad', note: 'repeating', instance: padding(['edge', 'reflect', 'wrap'], fc.constant(0)).map(({ shape, attrs }) => of(shape, attrs)), runs: 100 },
  {
    op: 'concat',
    instance: shapes(3, 3).filter((s) => s.length > 0).chain((s) => fc.tuple(fc.nat(s.length - 1), fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 3 }))
      .map(([axis, sizes]): Instance => ({ operands: sizes.map((size, k) => counted(s.with(axis, size), 100 * k + 1)), attrs: { axis } }))),
  },
  {
    op: 'iota',
    instance: shapes(3, 3).filter((s) => s.length > 0).chain((shape) => fc.nat(shape.length - 1).map((axis): Instance => ({ operands: [], attrs: { shape, axis, dtype: 'i64' } }))),
    body: (_seen, index) => Object.values(index)[0]!,
  },
];
