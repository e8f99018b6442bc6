/** Axes cases of pools and resampling. */
import fc from 'fast-check';
import type { Attrs } from '../../ir/graph.ts';
import type { AxesCase } from '../axes-harness.ts';
import { geometries } from '../gradient-cases/spatial.ts';
import { planes, pooled, tables } from '../gradient-cases/window.ts';
import { tensors, type Instance } from '../gradient-harness.ts';

const small = fc.integer({ min: -9, max: 9 });
const forward: fc.Arbitrary<Instance> = fc.tuple(geometries, planes).chain(([g, p]) => tensors([...p, ...g.input], small).map((x) => ({ operands: [x], attrs: { kernel: g.kernel, ...g.sweep } })));

/** The taps of a stride phase, found by trying all: the kernel position of each tap dim, in row-major order over the kernel. */
function tapOf(index: Readonly<Record<string, number>>, attrs: Attrs): number {
  const list = (name: string): readonly number[] => attrs[name] as readonly number[];
  return Object.entries(index).reduce((tap, [name, j], i) => {
    const phase = Number(name.slice(1));
    const meets = (y: number): boolean => (phase + list('pads')[i]! - y * list('dilations')[i]!) % list('strides')[i]! === 0;
    return tap * list('kernel')[i]! + Array.from({ length: list('kernel')[i]! }, (_, y) => y).filter(meets)[j]!;
  }, 0);
}

export const windowAxesCases: readonly AxesCase[] = [
  { op: 'maxPool', instance: forward, runs: 100 },
  { op: 'maxPoolGrad', instance: pooled(small), body: ([dy, position], index, attrs) => (position === tapOf(index, attrs) ? (dy as number) : 0), runs: 120 },
  { op: 'sumPool', instance: forward, runs: 100 },
  { op: 'sumPoolGrad', instance: pooled(small).map(({ operands, attrs }) => ({ operands: [operands[0]!], attrs: attrs! })), runs: 120 },
  {
    op: 'resample',
    instance: tables.chain(({ shape, attrs }) => tensors(shape, small).map((x) => ({ operands: [x], attrs }))),
    body: ([x], index, attrs) => {
      const weights = attrs['weights'] as readonly number[];
      if (Object.keys(index).length === 0) return x as number;
      return (x as number) * weights[index[`d${attrs['axis'] as number}`]! * (attrs['taps'] as number) + (index['t'] ?? 0)]!;
    },
    runs: 100,
  },
];
