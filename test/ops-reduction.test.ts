/** Values of the reductions, against sums worked out by hand and naive loops. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { someAxes } from './gradient-cases/reduction.ts';
import { shapes, tensor, tensors } from './gradient-harness.ts';
import { run, values } from './run-op.ts';

const f = (shape: readonly number[], ...xs: number[]): Tensor => tensor('f64', shape, xs);

describe('each reduction equals a naive loop', () => {
  const folds: Readonly<Record<string, (xs: number[]) => number>> = {
    reduceSum: (xs) => xs.reduce((a, b) => a + b, 0),
    reduceProd: (xs) => xs.reduce((a, b) => a * b, 1),
    reduceMax: (xs) => Math.max(...xs),
    reduceMin: (xs) => Math.min(...xs),
  };
  for (const [op, fold] of Object.entries(folds)) {
    it(op, () => fc.assert(fc.property(shapes(4, 3, 0).chain((s) => fc.tuple(tensors(s, fc.integer({ min: -4, max: 4 })), someAxes(s.length))), ([x, axes]) => {
      const groups = new Map<string, number[]>();
      const kept = x.shape.flatMap((d, i) => (axes.includes(i) ? [] : [d]));
      for (let k = 0; k < sizeOf(kept); k++) groups.set(String(k), []);
      x.data.forEach((v, k) => {
        const index = x.shape.map((d, i) => Math.floor(k / sizeOf(x.shape.slice(i + 1))) % d);
        const key = index.filter((_, i) => !axes.includes(i)).reduce((n, i, j) => n * kept[j]! + i, 0);
        groups.get(String(key))!.push(v as number);
      });
      const [y] = run(op, [x], { axes });
      expect(y!.shape).toEqual(kept);
      expect(values([y!]).map((v) => v + 0)).toEqual([...groups.values()].map((xs) => fold(xs) + 0));
    }), { numRuns: 100, seed: 9 }));
  }
});

describe('edges', () => {
  it('empty reductions give the identity', () => {
    const empty = (dtype: Tensor['dtype']): Tensor => tensor(dtype, [2, 0], []);
    const table: readonly (readonly [string, Tensor['dtype'], number])[] = [
      ['reduceSum', 'f32', 0], ['reduceProd', 'f32', 1], ['reduceMax', 'f32', -Infinity], ['reduceMin', 'f32', Infinity],
      ['reduceMax', 'i8', -128], ['reduceMin', 'u8', 255], ['reduceMax', 'bool', 0], ['reduceMin', 'bool', 1], ['reduceSum', 'i64', 0], ['reduceMax', 'i64', -(2 ** 63)],
    ];
    for (const [op, dtype, want] of table) expect(values(run(op, [empty(dtype)], { axes: [1] })), `${op} ${dtype}`).toEqual([want, want]);
  });
  it('NaN wins', () => {
    expect(values(run('reduceMax', [f([3], 1, NaN, 2)], { axes: [0] }))).toEqual([NaN]);
    expect(values(run('reduceMin', [f([3], 1, NaN, 2)], { axes: [0] }))).toEqual([NaN]);
  });
  it('integers wrap', () => {
    expect(values(run('reduceSum', [tensor('u8', [3], [200, 100, 1])], { axes: [0] }))).toEqual([45]);
    expect(values(run('reduceProd', [tensor('i32', [3], [65536, 65536, 3])], { axes: [0] }))).toEqual([0]);
    expect(values(run('reduceSum', [tensor('i32', [2], [2147483647, 1])], { axes: [0] }))).toEqual([-2147483648]);
    expect([...run('reduceSum', [{ dtype: 'i64', shape: [2], data: BigInt64Array.of(2n ** 62n, 1n) }], { axes: [0] })[0]!.data]).toEqual([2n ** 62n + 1n]);
  });
  it('of bool, max is any and min is all', () => {
    const x = tensor('bool', [3, 2], [0, 0, 0, 1, 1, 1]);
    expect(values(run('reduceMax', [x], { axes: [1] }))).toEqual([0, 1, 1]);
    expect(values(run('reduceMin', [x], { axes: [1] }))).toEqual([0, 0, 1]);
  });
  it('a sum of f32 is accumulated in double and rounded once', () => {
    expect(values(run('reduceSum', [tensor('f32', [3], [2 ** 24, 1, 1])], { axes: [0] }))).toEqual([2 ** 24 + 2]);
  });
});

it('argMax and argMin: the first among equals, or the last; NaN wins', () => {
  const x = f([2, 4], 1, 3, 3, 0, -1, 5, -1, 5);
  expect(values(run('argMax', [x], { axis: 1 }))).toEqual([1, 1]);
  expect(values(run('argMax', [x], { axis: 1, last: true }))).toEqual([2, 3]);
  expect(values(run('argMin', [x], { axis: 1 }))).toEqual([3, 0]);
  expect(values(run('argMin', [x], { axis: 1, last: true }))).toEqual([3, 2]);
  expect(values(run('argMax', [x], { axis: 0 }))).toEqual([0, 1, 0, 1]);
  expect(values(run('argMax', [f([4], 1, NaN, 7, NaN)], { axis: 0 }))).toEqual([1]);
  expect(values(run('argMin', [f([4], 1, NaN, 7, NaN)], { axis: 0, last: true }))).toEqual([3]);
  expect(values(run('argMax', [tensor('i64', [3], [-1, 4, 2])], { axis: 0 }))).toEqual([1]);
});

it('moments: the mean, and the sum of squared deviations without cancellation', () => {
  const [mean, m2] = run('moments', [f([2, 3], 1, 2, 3, 1e8, 1e8 + 1, 1e8 + 2)], { axes: [1] });
  expect(values([mean!])).toEqual([2, 1e8 + 1]);
  expect(values([m2!])).toEqual([2, 2]);
  const [all, spread] = run('moments', [f([2, 2], 1, 2, 3, 6)], { axes: [0, 1] });
  expect([values([all!]), values([spread!])]).toEqual([[3], [14]]);
});

it.each([
  ['reduceSum', f([2, 3]), { axes: [2] }, 'axis 2 is not an axis of f64[2,3]'],
  ['reduceSum', f([2, 3]), { axes: [1, 0] }, 'axes 1,0 are not ascending'],
  ['reduceSum', tensor('bool', [1], [1]), { axes: [0] }, 'does not reduce bool[1]'],
  ['argMax', f([2, 0]), { axis: 1 }, 'axis 1 of f64[2,0] is empty'],
  ['moments', tensor('i32', [1], [1]), { axes: [0] }, 'i32[1] is not of a float type'],
] as const)('%s refuses what does not fit', (op, x, attrs, message) => {
  expect(() => run(op, [x], attrs)).toThrow(message);
  expect(() => run(op, [x], attrs)).toThrow(IllTyped);
});
