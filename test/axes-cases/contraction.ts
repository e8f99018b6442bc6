/** Axes cases of contractions and convolutions. */
import fc from 'fast-check';
import type { AxesCase } from '../axes-harness.ts';
import { convolutionOps, convolutions, pairOf, specs } from '../gradient-cases/contraction.ts';

const small = fc.integer({ min: -3, max: 3 });

export const contractionAxesCases: readonly AxesCase[] = [
  { op: 'contract', instance: specs.chain(({ spec, a, b }) => pairOf([a, b], { spec }, small)), runs: 150 },
  ...convolutionOps.map(({ op, of }): AxesCase => ({ op, instance: convolutions.chain((c) => pairOf(of(c).shapes, of(c).attrs, small)), runs: 120 })),
];
