/** Axes cases of the reductions. */
import fc from 'fast-check';
import type { AxesCase } from '../axes-harness.ts';
import { someAxes } from '../gradient-cases/reduction.ts';
import { shapes, tensors, type Instance } from '../gradient-harness.ts';

const small = fc.integer({ min: -3, max: 3 });
const over = (least: number): fc.Arbitrary<Instance> => shapes(4, 3, least).chain((s) => fc.tuple(tensors(s, small), someAxes(s.length))).map(([x, axes]) => ({ operands: [x], attrs: { axes } }));
const along: fc.Arbitrary<Instance> = shapes(3, 4).filter((s) => s.length > 0).chain((s) => fc.tuple(tensors(s, small), fc.nat(s.length - 1), fc.boolean())).map(([x, axis, last]) => ({ operands: [x], attrs: { axis, last } }));

export const reductionAxesCases: readonly AxesCase[] = [
  { op: 'reduceSum', instance: over(0) },
  { op: 'reduceProd', instance: over(0) },
  { op: 'reduceMax', instance: over(0) },
  { op: 'reduceMin', instance: over(0) },
  { op: 'moments', instance: over(1) },
  { op: 'argMax', instance: along },
  { op: 'argMin', instance: along },
];
