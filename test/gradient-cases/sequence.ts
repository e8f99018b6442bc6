/** Gradient cases of scans and sorting. */
import fc from 'fast-check';
import { between, distinct, shapes, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';
import type { Tensor } from '../../ir/type.ts';

const nonScalar = shapes(3, 4).filter((s) => s.length > 0);

/** A tensor, and an axis with both flags of a scan. */
export const scans = (of: (shape: readonly number[]) => fc.Arbitrary<Tensor>): fc.Arbitrary<Instance> => nonScalar
  .chain((s) => fc.tuple(of(s), fc.nat(s.length - 1), fc.boolean(), fc.boolean()))
  .map(([x, axis, exclusive, reverse]) => ({ operands: [x], attrs: { axis, exclusive, reverse } }));

/** A tensor, an axis and how many of its elements to take. */
export const ranked = (of: (shape: readonly number[]) => fc.Arbitrary<Tensor>): fc.Arbitrary<Instance> => nonScalar
  .chain((s) => fc.tuple(of(s), fc.nat(s.length - 1), fc.nat(3), fc.boolean()))
  .map(([x, axis, k, largest]) => ({ operands: [x], attrs: { axis, k: Math.min(k, x.shape[axis]!), largest } }));

export const sequenceGradients: readonly GradientCase[] = [
  { op: 'cumSum', instance: scans((s) => tensors(s, between(-2, 2))), runs: 40 },
  { op: 'cumProd', instance: scans((s) => tensors(s, between(0.3, 2))), runs: 40 },
  { op: 'cumProd', note: 'with zeros', instance: scans((s) => tensors(s, fc.oneof(between(0.3, 2), between(-2, -0.3), fc.constant(0)))), runs: 80 },
  { op: 'topK', instance: ranked(distinct), runs: 40 },
];
