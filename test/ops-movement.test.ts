/** Values of the ops that move elements, against numpy's definitions worked by index. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import { rowMajor, sizeOf, type Tensor } from '../ir/type.ts';
import { padding, slicing } from './gradient-cases/movement.ts';
import { tensor } from './gradient-harness.ts';
import { run, values } from './run-op.ts';

const counted = (...shape: number[]): Tensor => tensor('i64', shape, [...new Array(sizeOf(shape)).keys()]);

/** Every index of a shape, in row-major order. */
function indices(shape: readonly number[]): number[][] {
  return [...new Array(sizeOf(shape)).keys()].map((k) => shape.map((d, i) => Math.floor(k / sizeOf(shape.slice(i + 1))) % d));
}
const element = (shape: readonly number[], index: readonly number[]): number => index.reduce((sum, i, axis) => sum + i * rowMajor(shape)[axis]!, 0);

it('reshape keeps row-major order', () => {
  const [y] = run('reshape', [counted(2, 6)], { shape: [3, 4] });
  expect(y!.shape).toEqual([3, 4]);
  expect(values([y!])).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});

it('transpose: y[i…] = x[i of perm…]', () => {
  expect(values(run('transpose', [counted(2, 3)], { perm: [1, 0] }))).toEqual([0, 3, 1, 4, 2, 5]);
  const [y] = run('transpose', [counted(2, 3, 4)], { perm: [2, 0, 1] });
  expect(y!.shape).toEqual([4, 2, 3]);
  expect(values([y!])).toEqual(indices([4, 2, 3]).map(([c, a, b]) => element([2, 3, 4], [a!, b!, c!])));
});

it('broadcast repeats axes of size 1 and adds axes on the left', () => {
  expect(values(run('broadcast', [counted(2, 1)], { shape: [2, 2, 3] }))).toEqual([0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]);
});

it('copy is the identity', () => expect(values(run('copy', [counted(2, 2)]))).toEqual([0, 1, 2, 3]));

it('slice: y[i…] = x[starts + i · steps]', () => {
  expect(values(run('slice', [counted(6)], { starts: [5], sizes: [3], steps: [-2] }))).toEqual([5, 3, 1]);
  fc.assert(fc.property(slicing, ({ shape, starts, sizes, steps }) => {
    const want = indices(sizes).map((index) => element(shape, index.map((i, axis) => starts[axis]! + i * steps[axis]!)));
    expect(values(run('slice', [counted(...shape)], { starts, sizes, steps }))).toEqual(want);
  }), { numRuns: 100, seed: 2 });
});

describe('pad', () => {
  const pad = (x: number[], lo: number, hi: number, mode: string, value = 0): number[] => values(run('pad', [tensor('f32', [x.length], x)], { lo: [lo], hi: [hi], mode, value }));
  it('constant', () => expect(pad([1, 2, 3], 2, 1, 'constant', 9)).toEqual([9, 9, 1, 2, 3, 9]));
  it('edge', () => expect(pad([1, 2, 3], 2, 1, 'edge')).toEqual([1, 1, 1, 2, 3, 3]));
  it('reflect', () => expect(pad([1, 2, 3], 2, 1, 'reflect')).toEqual([3, 2, 1, 2, 3, 2]));
  it('reflect more than once', () => expect(pad([1, 2, 3], 5, 0, 'reflect')).toEqual([2, 1, 2, 3, 2, 1, 2, 3]));
  it('wrap', () => expect(pad([1, 2, 3], 2, 4, 'wrap')).toEqual([2, 3, 1, 2, 3, 1, 2, 3, 1]));
  it('negative pads crop', () => expect(pad([1, 2, 3, 4], -1, 2, 'constant', 7)).toEqual([2, 3, 4, 7, 7]));
  it('pads 64-bit integers with integers', () => expect(values(run('pad', [counted(2)], { lo: [1], hi: [0], value: -3 }))).toEqual([-3, 0, 1]));
  it('pads every axis by itself', () => fc.assert(fc.property(padding(['constant', 'edge', 'reflect', 'wrap'], fc.constantFrom(0, 5)), ({ shape, attrs }) => {
    const out = shape.map((d, i) => d + attrs.lo[i]! + attrs.hi[i]!);
    const along = (i: number, d: number): number => {
      if (i >= 0 && i < d) return i;
      if (attrs.mode === 'constant') return NaN;
      if (attrs.mode === 'edge') return i < 0 ? 0 : d - 1;
      if (attrs.mode === 'wrap') return along(i < 0 ? i + d : i - d, d);
      return d === 1 ? 0 : along(i < 0 ? -i : 2 * (d - 1) - i, d);
    };
    const want = indices(out).map((index) => element(shape, index.map((i, axis) => along(i - attrs.lo[axis]!, shape[axis]!)))).map((k) => (k === k ? k : attrs.value));
    expect(values(run('pad', [counted(...shape)], attrs))).toEqual(want);
  }), { numRuns: 150, seed: 4 }));
});

it('concat puts operands one after the other', () => {
  expect(values(run('concat', [counted(2, 1), counted(2, 0), counted(2, 2)], { axis: 1 }))).toEqual([0, 0, 1, 1, 2, 3]);
  expect(values(run('concat', [counted(1, 2), counted(2, 2)], { axis: 0 }))).toEqual([0, 1, 0, 1, 2, 3]);
});

it('iota counts along its axis', () => {
  expect(values(run('iota', [], { shape: [2, 3], axis: 1, dtype: 'f16' }))).toEqual([0, 1, 2, 0, 1, 2]);
  expect(values(run('iota', [], { shape: [2, 3], axis: 0, dtype: 'i64' }))).toEqual([0, 0, 0, 1, 1, 1]);
});

it('constant gives its tensor, decoded', () => expect(values(run('constant', [], { value: tensor('f16', [2], [0x3c00, 0xc000]) }))).toEqual([1, -2]));

it.each([
  ['reshape', [counted(2, 3)], { shape: [4] }, 'i64[2,3] has 6 elements, but the shape [4] has 4'],
  ['transpose', [counted(2, 3)], { perm: [0, 0] }, 'perm=[0,0] is not a permutation of the axes of i64[2,3]'],
  ['broadcast', [counted(2)], { shape: [3] }, 'i64[2] does not broadcast to [3]'],
  ['slice', [counted(4)], { starts: [2], sizes: [3], steps: [1] }, 'axis 0 of i64[4] is read from 2 to 4, outside 0..3'],
  ['pad', [counted(4)], { lo: [-3], hi: [-2] }, '[-1] is not a shape'],
  ['pad', [counted(0)], { lo: [1], hi: [0], mode: 'edge' }, 'axis 0 of i64[0] has nothing to repeat'],
  ['concat', [counted(2, 3), counted(3, 3)], { axis: 1 }, 'i64[2,3] and i64[3,3] differ outside axis 1'],
] as const)('%s refuses what does not fit: case %#', (op, operands, attrs, message) => {
  expect(() => run(op, operands, attrs)).toThrow(message);
  expect(() => run(op, operands, attrs)).toThrow(IllTyped);
});
