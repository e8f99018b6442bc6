/** Axes cases of reads at run-time indices. */
import fc from 'fast-check';
import { sizeOf } from '../../ir/type.ts';
import type { AxesCase, Seen } from '../axes-harness.ts';
import { elementwise, indicesFor } from '../gradient-cases/indexing.ts';
import { shapes, tensor, tensors, type Instance } from '../gradient-harness.ts';

const counted = (shape: readonly number[], from = 1) => tensor('f64', shape, Array.from({ length: sizeOf(shape) }, (_, i) => i + from));
const clamp = (i: number, lo: number, hi: number): number => Math.min(Math.max(i, lo), hi);
const resolve = (i: number, size: number): number => clamp(i < 0 ? i + size : i, 0, size - 1);
const list = (s: Seen): readonly number[] => (typeof s === 'number' ? [s] : s!);

/** The element of an axis that an index names. */
const pick = ([x, i]: readonly Seen[]): number => list(x)[resolve(i as number, list(x).length)]!;

/** The element of axes read whole that a tuple of indices names. */
function pickTuple(x: Seen, tuple: Seen, shape: readonly number[]): number {
  return list(x)[shape.reduce((n, size, axis) => n * size + resolve(list(tuple)[axis]!, size), 0)]!;
}

const nd = [2, 3, 2];
const ndCases = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [2, 1]].map(([batch, depth]): AxesCase => ({
  op: 'gatherNd',
  note: `${batch} batch axes, tuples of ${depth}`,
  instance: shapes(2, 2).chain((more) => indicesFor([...nd.slice(0, batch), ...more, depth!], 3)).map((indices): Instance => ({ operands: [counted(nd), indices], attrs: { batchDims: batch! } })),
  body: ([x, tuple]) => (depth === 0 ? (x as number) : pickTuple(x, tuple, nd.slice(batch, batch! + depth!))),
}));

const outer = [3, 4];
const starts = tensors([2], fc.integer({ min: -2, max: 4 }), 'i64');
const sizes = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 4 }));

export const indexingAxesCases: readonly AxesCase[] = [
  {
    op: 'gather',
    instance: fc.tuple(shapes(3, 3).filter((s) => s.length > 0), shapes(2, 3)).chain(([shape, wanted]) => fc.nat(shape.length - 1).chain((axis) => indicesFor(wanted, shape[axis]!)
      .map((indices): Instance => ({ operands: [counted(shape), indices], attrs: { axis } })))),
    body: pick,
  },
  {
    op: 'gatherElements',
    instance: elementwise.chain(({ shape, axis, part }) => indicesFor(part, shape[axis]!).map((indices) => ({ operands: [counted(shape), indices], attrs: { axis } }))),
    body: pick,
  },
  ...ndCases,
  {
    op: 'dynamicSlice',
    instance: fc.tuple(starts, sizes).map(([s, size]) => ({ operands: [counted(outer), s], attrs: { sizes: size } })),
    body([x, s], index, attrs) {
      const [row, column] = outer.map((d, axis) => clamp(list(s)[axis]!, 0, d - (attrs['sizes'] as number[])[axis]!) + index[`d${axis}`]!);
      return list(x)[row! * outer[1]! + column!]!;
    },
  },
  {
    op: 'dynamicUpdate',
    instance: starts.map((s) => ({ operands: [counted(outer), counted([2, 3], 100), s] })),
    body([x, patch, s], index) {
      const [row, column] = [2, 3].map((size, axis) => index[`d${axis}`]! - clamp(list(s)[axis]!, 0, outer[axis]! - size));
      return row! >= 0 && row! < 2 && column! >= 0 && column! < 3 ? list(patch)[row! * 3 + column!]! : (x as number);
    },
  },
];
