/** Values of scans, sorting and random tensors: official cases, published vectors of the generator, moments of the distributions. */
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import type { Attrs } from '../ir/graph.ts';
import { philox } from '../ir/ops/sequence/philox.ts';
import { tensorType, type DType, type Tensor } from '../ir/type.ts';
import { tensor } from './gradient-harness.ts';
import { official, type OfficialCase } from './official.ts';
import { normalElement, philoxWords, uniformElement } from './philox.ts';
import { inferred, run, values } from './run-op.ts';

const first = ([x]: readonly Tensor[]): readonly Tensor[] => [x!];
const scans = ['cumSum', 'cumProd'].flatMap((op): OfficialCase[] => [
  ['1d', { axis: 0 }], ['1d_exclusive', { axis: 0, exclusive: true }], ['1d_int32_exclusive', { axis: 0, exclusive: true }], ['1d_reverse', { axis: 0, reverse: true }],
  ['1d_reverse_exclusive', { axis: 0, exclusive: true, reverse: true }], ['2d_axis_0', { axis: 0 }], ['2d_axis_1', { axis: 1 }], ['2d_int32', { axis: 0 }], ['2d_negative_axis', { axis: 1 }],
].map(([name, attrs]) => ({ name: `${op.toLowerCase()}_${name as string}`, op, attrs: attrs as Attrs, operands: first })));
const top = (name: string, attrs: Attrs): OfficialCase => ({ name, op: 'topK', attrs: { k: 3, ...attrs }, operands: first });

official([
  ...scans,
  ...['top_k', 'top_k_negative_axis', 'top_k_same_values_2d', 'top_k_uint64'].map((name) => top(name, { axis: 1 })),
  ...['top_k_same_values', 'top_k_same_values_largest'].map((name) => top(name, { axis: 0 })),
  top('top_k_smallest', { axis: 1, largest: false }),
]);

describe('scans of integers wrap as their type does', () => {
  it('i32 and u8', () => {
    const x = [65537n, 65539n, 65541n, 65543n];
    expect(values(run('cumProd', [tensor('i32', [4], x.map(Number))], { axis: 0 }))).toEqual(x.map((_, i) => Number(BigInt.asIntN(32, x.slice(0, i + 1).reduce((p, q) => p * q)))));
    expect(values(run('cumSum', [tensor('u8', [3], [200, 100, 1])], { axis: 0 }))).toEqual([200, 44, 45]);
  });
  it('i64', () => {
    const x: Tensor = { dtype: 'i64', shape: [2], data: BigInt64Array.of(2n ** 62n, 2n ** 62n) };
    expect([...run('cumSum', [x], { axis: 0 })[0]!.data]).toEqual([2n ** 62n, -(2n ** 63n)]);
    expect([...run('cumProd', [{ ...x, data: BigInt64Array.of(-(2n ** 62n), 3n) }], { axis: 0 })[0]!.data]).toEqual([-(2n ** 62n), 2n ** 62n]);
  });
});

it('topK ranks NaN above all numbers and breaks ties by the lower index', () => {
  const x = tensor('f32', [6], [1, NaN, 3, 3, -Infinity, NaN]);
  const top = (k: number, largest: boolean): (number | bigint)[] => [...run('topK', [x], { axis: 0, k, largest })[1]!.data];
  expect(top(4, true)).toEqual([1n, 5n, 2n, 3n]);
  expect(top(6, false)).toEqual([4n, 0n, 2n, 3n, 1n, 5n]);
  expect(run('topK', [x], { axis: 0, k: 0 }).map((t) => t.shape)).toEqual([[0], [0]]);
});

// The known answers that Random123, the authors' implementation, publishes for philox4x32 with 10 rounds: counter, key, words.
describe.each([
  ['00000000 00000000 00000000 00000000', '00000000 00000000', '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
  ['ffffffff ffffffff ffffffff ffffffff', 'ffffffff ffffffff', '408f276d 41c83b0e a20bc7c6 6d5451fd'],
  ['243f6a88 85a308d3 13198a2e 03707344', 'a4093822 299f31d0', 'd16cfe09 94fdcceb 5001e420 24126ea1'],
])('Philox 4x32-10 of %s under %s', (counter, key, words) => {
  const parse = (text: string): bigint[] => text.split(' ').map((w) => BigInt(`0x${w}`));
  const [c, k] = [parse(counter).map(Number), parse(key).map(Number)];
  it('in the interpreter', () => {
    const out = new Uint32Array(4);
    philox(c[0]!, c[1]!, c[2]!, c[3]!, k[0]!, k[1]!, out);
    expect([...out]).toEqual(parse(words).map(Number));
  });
  it('in the tests', () => expect(philoxWords(parse(counter), parse(key))).toEqual(parse(words)));
});

describe('random tensors', () => {
  const draw = (op: string, seed: bigint, attrs: Attrs): number[] => values(run(op, [{ dtype: 'i64', shape: [], data: BigInt64Array.of(seed) }], attrs));
  const seed = -0x123456789abcdefn;

  it('take each element from its own counter', () => {
    const uniform = draw('randomUniform', seed, { shape: [3, 7], dtype: 'f32', stream: 5 });
    const normal = draw('randomNormal', seed, { shape: [3, 7], dtype: 'f64', stream: 5 });
    for (let e = 0; e < 21; e++) {
      expect(uniform[e]).toBe(uniformElement(seed, 5, e));
      expect(normal[e]).toBeCloseTo(normalElement(seed, 5, e), 14);
    }
  });
  it('in f64 fill 53 bits', () => {
    const words = philoxWords([0n, 0n, 9n, 0n], [7n, 0n]).map(Number);
    expect(draw('randomUniform', 7n, { shape: [2], dtype: 'f64', stream: 9 })).toEqual([0, 2].map((i) => (Math.floor(words[i]! / 64) * 2 ** 27 + Math.floor(words[i + 1]! / 32)) / 2 ** 53));
  });
  it.each(['f64', 'f32', 'f16', 'bf16'] satisfies DType[])('of %s lie in [0, 1) and have the moments of the distribution', (dtype) => {
    const n = 20000;
    const uniform = draw('randomUniform', 1n, { shape: [n], dtype, stream: 0 });
    const normal = draw('randomNormal', 1n, { shape: [n], dtype, stream: 0 });
    const mean = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0) / n;
    expect(Math.min(...uniform)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...uniform)).toBeLessThan(1);
    // Four standard errors; a uniform cut to p bits is 2^-(p+1) low.
    const bias = dtype === 'bf16' ? 2 ** -9 : 0;
    expect(Math.abs(mean(uniform) - 0.5)).toBeLessThan(4 * Math.sqrt(1 / 12 / n) + bias);
    expect(Math.abs(mean(uniform.map((x) => (x - 0.5) ** 2)) - 1 / 12)).toBeLessThan(4 * Math.sqrt(1 / 180 / n) + bias);
    expect(Math.abs(mean(normal))).toBeLessThan(4 * Math.sqrt(1 / n));
    expect(Math.abs(mean(normal.map((x) => x * x)) - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
    expect(Math.abs(mean(normal.map((x) => x ** 4)) - 3)).toBeLessThan(4 * Math.sqrt(96 / n));
  });
  it('differ by seed and by stream', () => {
    const a = draw('randomUniform', 1n, { shape: [8], dtype: 'f32', stream: 0 });
    expect(draw('randomUniform', 2n, { shape: [8], dtype: 'f32', stream: 0 })).not.toEqual(a);
    expect(draw('randomUniform', 1n + 2n ** 32n, { shape: [8], dtype: 'f32', stream: 0 })).not.toEqual(a);
    expect(draw('randomUniform', 1n, { shape: [8], dtype: 'f32', stream: 1 })).not.toEqual(a);
  });
});

describe('what does not fit is refused with the reason', () => {
  const f = (...shape: number[]) => tensorType('f32', shape);
  it.each([
    ['cumSum', [f(2)], { axis: 1 }, 'axis 1 is not an axis of f32[2]'],
    ['cumProd', [tensorType('bool', [2])], { axis: 0 }, 'is not of a float or integer type'],
    ['topK', [f(2)], { axis: 0, k: 3 }, 'k=3 must be between 0 and 2, the size of axis 0 of f32[2]'],
    ['randomUniform', [tensorType('i32', [])], { shape: [2], stream: 0 }, 'the seed is i32[], expected i64[]'],
    ['randomUniform', [tensorType('i64', [])], { shape: [2], dtype: 'i32', stream: 0 }, 'dtype i32 cannot be drawn'],
    ['randomNormal', [tensorType('i64', [])], { shape: [-2], stream: 0 }, '[-2] is not a shape'],
    ['randomNormal', [tensorType('i64', [])], { shape: [2], stream: -1 }, 'stream=-1 must be an integer'],
  ] as const)('%s %j %j', (op, types, attrs, message) => {
    expect(() => inferred(op, types, attrs)).toThrow(IllTyped);
    expect(() => inferred(op, types, attrs)).toThrow(message);
  });
});
