/** Values of reads and writes at run-time indices: official cases, and what the official cases leave open. */
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import type { Attrs } from '../ir/graph.ts';
import { tensorType, type Tensor } from '../ir/type.ts';
import { tensor } from './gradient-harness.ts';
import { official, type OfficialCase } from './official.ts';
import { inferred, run, values } from './run-op.ts';

const of = (op: string, attrs: Attrs) => (name: string): OfficialCase => ({ name, op, attrs });

official([
  ...['gather_0', 'gather_negative_indices'].map(of('gather', { axis: 0 })),
  ...['gather_1', 'gather_2d_indices'].map(of('gather', { axis: 1 })),
  ...['gather_elements_0'].map(of('gatherElements', { axis: 1 })),
  ...['gather_elements_1', 'gather_elements_negative_indices'].map(of('gatherElements', { axis: 0 })),
  ...['gathernd_example_float32', 'gathernd_example_int32'].map(of('gatherNd', { batchDims: 0 })),
  of('gatherNd', { batchDims: 1 })('gathernd_example_int32_batch_dim1'),
  ...['scatter_elements_with_axis', 'scatter_elements_with_negative_indices', 'scatter_with_axis'].map(of('scatterElements', { axis: 1, reduction: 'none' })),
  ...['scatter_elements_without_axis', 'scatter_without_axis'].map(of('scatterElements', { axis: 0, reduction: 'none' })),
  of('scatterElements', { axis: 1, reduction: 'add' })('scatter_elements_with_duplicate_indices'),
  ...['max', 'min', 'mul'].map((reduction) => of('scatterElements', { axis: 1, reduction })(`scatter_elements_with_reduction_${reduction}`)),
  of('scatterNd', { reduction: 'none' })('scatternd'),
  of('scatterNd', { reduction: 'add' })('scatternd_add'),
  of('scatterNd', { reduction: 'mul' })('scatternd_multiply'),
  ...['scatternd_max', 'scatternd_max_with_element_indices'].map(of('scatterNd', { reduction: 'max' })),
  ...['scatternd_min', 'scatternd_min_with_element_indices'].map(of('scatterNd', { reduction: 'min' })),
]);

const f = (shape: readonly number[], ...xs: number[]): Tensor => tensor('f32', shape, xs);
const i32 = (shape: readonly number[], ...xs: number[]): Tensor => tensor('i32', shape, xs);
const i64 = (...xs: number[]): Tensor => tensor('i64', [xs.length], xs);

describe('indices', () => {
  const x = f([4], 10, 11, 12, 13);
  it('count from the end where they are negative, and are clamped where they are outside', () => {
    expect(values(run('gather', [x, i32([6], -1, -4, -5, -100, 4, 100)], { axis: 0 }))).toEqual([13, 10, 10, 10, 13, 13]);
    expect(values(run('gatherElements', [x, i64(-5, 9)], { axis: 0 }))).toEqual([10, 13]);
    expect(values(run('gatherNd', [x, tensor('i64', [2, 1], [-5, 9])]))).toEqual([10, 13]);
    expect(values(run('scatterElements', [x, i64(-9, 9), f([2], 1, 2)]))).toEqual([1, 11, 12, 2]);
    expect(values(run('scatterNd', [x, tensor('i64', [2, 1], [-9, 9]), f([2], 1, 2)]))).toEqual([1, 11, 12, 2]);
  });
  it('may be none at all, also of an empty axis', () => {
    expect(run('gather', [f([0, 2]), i64()], { axis: 0 })[0]!.shape).toEqual([0, 2]);
    expect(run('gather', [x, i32([], 2)], { axis: 0 })[0]).toEqual(f([], 12));
  });
  it('as tuples of none name the whole tensor', () => {
    expect(values(run('gatherNd', [x, tensor('i64', [2, 0], [])]))).toEqual([10, 11, 12, 13, 10, 11, 12, 13]);
    expect(values(run('scatterNd', [x, tensor('i64', [2, 0], []), f([2, 4], 1, 2, 3, 4, 5, 6, 7, 8)], { reduction: 'add' }))).toEqual([16, 19, 22, 25]);
  });
});

describe('scatters', () => {
  it('let the last of several updates win', () => {
    expect(values(run('scatterElements', [f([3], 0, 0, 0), i64(1, 1, 0, 1), f([4], 1, 2, 3, 4)]))).toEqual([3, 4, 0]);
    expect(values(run('scatterNd', [f([2, 2], 0, 0, 0, 0), tensor('i64', [2, 1], [1, 1]), f([2, 2], 1, 2, 3, 4)]))).toEqual([0, 0, 3, 4]);
  });
  it('join every update of an element, NaN included', () => {
    const scatter = (reduction: string): number[] => values(run('scatterElements', [f([3], 2, 3, 1), i64(0, 0, 1, 2), f([4], 5, -1, 7, NaN)], { reduction }));
    expect(scatter('add')).toEqual([6, 10, NaN]);
    expect(scatter('mul')).toEqual([-10, 21, NaN]);
    expect(scatter('max')).toEqual([5, 7, NaN]);
    expect(scatter('min')).toEqual([-1, 3, NaN]);
  });
  it('wrap integers as their type does', () => {
    expect(values(run('scatterElements', [tensor('i32', [1], [65537]), i64(0, 0, 0), tensor('i32', [3], [65537, 65539, 65541])], { reduction: 'mul' }))).toEqual([Number(BigInt.asIntN(32, 65537n * 65537n * 65539n * 65541n))]);
    expect(values(run('scatterElements', [tensor('u8', [1], [200]), i64(0), tensor('u8', [1], [100])], { reduction: 'add' }))).toEqual([44]);
    const big: Tensor = { dtype: 'i64', shape: [1], data: BigInt64Array.of(2n ** 62n) };
    expect([...run('scatterElements', [big, i64(0), big], { reduction: 'add' })[0]!.data]).toEqual([-(2n ** 63n)]);
    expect([...run('scatterElements', [big, i64(0), { ...big, data: BigInt64Array.of(-1n) }], { reduction: 'max' })[0]!.data]).toEqual([2n ** 62n]);
  });
  it('leave their operand as it was', () => {
    const x = tensor('f64', [2], [1, 2]);
    run('scatterElements', [x, i64(0), tensor('f64', [1], [9])]);
    run('dynamicUpdate', [x, tensor('f64', [1], [9]), i64(1)]);
    expect([...x.data]).toEqual([1, 2]);
  });
});

describe('windows at run-time positions', () => {
  const x = f([3, 4], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
  it('are moved inside where they would leave', () => {
    expect(values(run('dynamicSlice', [x, i64(1, 1)], { sizes: [2, 2] }))).toEqual([5, 6, 9, 10]);
    expect(values(run('dynamicSlice', [x, i64(9, -9)], { sizes: [2, 2] }))).toEqual([4, 5, 8, 9]);
    expect(values(run('dynamicUpdate', [x, f([2, 2], 100, 101, 102, 103), i64(9, 9)]))).toEqual([0, 1, 2, 3, 4, 5, 100, 101, 8, 9, 102, 103]);
  });
});

describe('what does not fit is refused with the reason', () => {
  const t = (...shape: number[]) => tensorType('f32', shape);
  const index = (...shape: number[]) => tensorType('i64', shape);
  it.each([
    ['gather', [t(2, 3), tensorType('f32', [2])], { axis: 0 }, 'is not an index tensor'],
    ['gather', [t(2, 3), index(2)], { axis: 2 }, 'axis 2 is not an axis of f32[2,3]'],
    ['gather', [t(0, 3), index(2)], { axis: 0 }, 'axis 0 of f32[0,3] has no element that i64[2] could name'],
    ['gatherElements', [t(2, 3), index(2)], { axis: 0 }, 'has not the rank of f32[2,3]'],
    ['gatherElements', [t(2, 3), index(2, 4)], { axis: 0 }, 'i64[2,4] has 4 elements on axis 1, more than f32[2,3]'],
    ['gatherNd', [t(2, 3), index(2, 3)], { batchDims: 0 }, 'holds tuples of 3 indices, but f32[2,3] has 2 axes for them'],
    ['gatherNd', [t(2, 3), index(3, 1)], { batchDims: 1 }, 'the first 1 axes of f32[2,3] and i64[3,1] differ'],
    ['gatherNd', [t(2, 3), index(2)], { batchDims: 1 }, 'batchDims=1 must be at least 0 and below the rank of i64[2]'],
    ['scatterElements', [t(3), index(2), t(3)], { axis: 0 }, 'f32[3] has not the shape of i64[2]'],
    ['scatterElements', [t(3), index(2), tensorType('f64', [2])], { axis: 0 }, 'differ in element type'],
    ['scatterElements', [t(3), index(2), t(2)], { axis: 0, reduction: 'sub' }, 'reduction="sub" is unknown'],
    ['scatterElements', [tensorType('bool', [3]), index(2), tensorType('bool', [2])], { axis: 0, reduction: 'add' }, 'does not apply to bool[3]'],
    ['scatterNd', [t(3, 2), index(2, 1), t(2)], {}, 'updates are f32[2], expected f32[2,2]'],
    ['dynamicSlice', [t(3, 2), index(2)], { sizes: [4, 1] }, 'sizes=[4,1] do not fit into f32[3,2]'],
    ['dynamicSlice', [t(3, 2), index(3)], { sizes: [1, 1] }, 'starts are i64[3], expected i64[2]'],
    ['dynamicUpdate', [t(3, 2), t(3, 3), index(2)], {}, 'f32[3,3] does not fit into f32[3,2]'],
  ] as const)('%s %j %j', (op, types, attrs, message) => {
    expect(() => inferred(op, types, attrs)).toThrow(IllTyped);
    expect(() => inferred(op, types, attrs)).toThrow(message);
  });
});
