/** Gradient cases of the reductions. */
import fc from 'fast-check';
import { between, distinct, shapes, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';

/** Some axes of a shape, ascending. */
export const someAxes = (rank: number): fc.Arbitrary<number[]> => fc.subarray([...new Array<number>(rank).keys()]);

const reducing = (x: (shape: readonly number[]) => ReturnType<typeof tensors>): fc.Arbitrary<Instance> =>
  shapes(4, 3).chain((s) => fc.tuple(x(s), someAxes(s.length))).map(([t, axes]) => ({ operands: [t], attrs: { axes } }));

export const reductionGradients: readonly GradientCase[] = [
  { op: 'reduceSum', instance: reducing((s) => tensors(s, between(-2, 2))) },
  { op: 'reduceProd', instance: reducing((s) => tensors(s, fc.oneof(between(-1.5, 1.5), fc.constant(0)))), runs: 50 },
  { op: 'reduceMax', instance: reducing(distinct) },
  { op: 'reduceMin', instance: reducing(distinct) },
  { op: 'moments', instance: reducing((s) => tensors(s, between(-2, 2))) },
];
