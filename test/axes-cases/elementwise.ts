/** Axes cases of elementwise ops: all share one function, so these stand for it. */
import fc from 'fast-check';
import { between, tensors } from '../gradient-harness.ts';
import { broadcasting } from '../gradient-cases/elementwise.ts';
import type { AxesCase, Seen } from '../axes-harness.ts';

const of = (n: number): AxesCase['instance'] => broadcasting(n).chain((shapes) => fc.tuple(...shapes.map((s) => tensors(s, between(-2, 2))))).map((operands) => ({ operands }));
const all = (seen: readonly Seen[]): number[] => seen.map(Number);

export const elementwiseAxesCases: readonly AxesCase[] = [
  { op: 'exp', instance: of(1), body: (seen) => Math.exp(all(seen)[0]!) },
  { op: 'mul', instance: of(2) },
  { op: 'sub', instance: of(2), body: (seen) => all(seen)[0]! - all(seen)[1]! },
  { op: 'clamp', instance: of(3), body: (seen) => Math.min(Math.max(all(seen)[0]!, all(seen)[1]!), all(seen)[2]!) },
];
