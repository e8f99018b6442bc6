/** Axes cases of scans, sorting and random tensors. */
import fc from 'fast-check';
import type { Attrs } from '../../ir/graph.ts';
import { rowMajor } from '../../ir/type.ts';
import type { AxesCase } from '../axes-harness.ts';
import { ranked, scans } from '../gradient-cases/sequence.ts';
import { shapes, tensor, tensors, type Instance } from '../gradient-harness.ts';
import { normalElement, uniformElement } from '../philox.ts';

const small = fc.integer({ min: -3, max: 3 });

const random: fc.Arbitrary<Instance> = fc.tuple(shapes(3, 4), fc.nat(1000), fc.nat(9)).map(([shape, seed, stream]) => ({ operands: [tensor('i64', [], [seed])], attrs: { shape, stream, dtype: 'f32' } }));
/** The row-major number of an element, of which every index is known. */
const element = (index: Readonly<Record<string, number>>, attrs: Attrs): number => rowMajor(attrs['shape'] as number[]).reduce((n, stride, axis) => n + stride * index[`d${axis}`]!, 0);

export const sequenceAxesCases: readonly AxesCase[] = [
  { op: 'cumSum', instance: scans((s) => tensors(s, small)), runs: 60 },
  { op: 'cumProd', instance: scans((s) => tensors(s, small)), runs: 60 },
  {
    op: 'topK',
    instance: ranked((s) => tensors(s, small)),
    body([x], index, attrs) {
      const line = x as readonly number[];
      const order = [...line.keys()].sort((p, q) => (attrs['largest'] ? line[q]! - line[p]! : line[p]! - line[q]!) || p - q);
      const t = order[index[`d${attrs['axis'] as number}`]!]!;
      return [line[t]!, t];
    },
    runs: 60,
  },
  { op: 'randomUniform', instance: random, body: ([seed], index, attrs) => uniformElement(BigInt(seed as number), attrs['stream'] as number, element(index, attrs)) },
  { op: 'randomNormal', instance: random, body: ([seed], index, attrs) => Math.fround(normalElement(BigInt(seed as number), attrs['stream'] as number, element(index, attrs))) },
];
