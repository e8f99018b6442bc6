/** Values of the elementwise ops, from tables of mathematics and from the definition of each. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import { isInteger, type DType, type Tensor } from '../ir/type.ts';
import { run, values } from './run-op.ts';
import { tensor } from './gradient-harness.ts';

const { PI, E, SQRT2, LN2 } = Math;
const f = (...xs: number[]): Tensor => tensor('f64', [xs.length], xs);
const as = (dtype: DType, ...xs: number[]): Tensor => tensor(dtype, [xs.length], xs);
const bools = (...xs: number[]): Tensor => as('bool', ...xs);

/** op, operand, result. */
const unary: readonly (readonly [string, readonly number[], readonly number[]])[] = [
  ['neg', [1, -2], [-1, 2]], ['abs', [-3, 3, -0], [3, 3, 0]], ['sign', [-7, 0, 2, NaN], [-1, 0, 1, NaN]], ['relu', [-1, 0, 2, NaN, -Infinity], [0, 0, 2, NaN, 0]],
  ['sqrt', [2, 9, -1], [SQRT2, 3, NaN]], ['rsqrt', [4, 0], [0.5, Infinity]], ['recip', [4, -0], [0.25, -Infinity]],
  ['exp', [0, 1, -Infinity], [1, E, 0]], ['expm1', [1e-10, 1], [1.00000000005e-10, E - 1]], ['log', [E, 1, 0], [1, 0, -Infinity]], ['log1p', [1e-10, 1], [9.9999999995e-11, LN2]],
  ['sin', [PI / 6, PI / 2], [0.5, 1]], ['cos', [PI / 3, 0], [0.5, 1]], ['tan', [PI / 4], [1]], ['asin', [0.5], [PI / 6]], ['acos', [0.5], [PI / 3]], ['atan', [1, Infinity], [PI / 4, PI / 2]],
  ['sinh', [LN2], [0.75]], ['cosh', [LN2], [1.25]], ['tanh', [LN2], [0.6]], ['asinh', [0.75], [LN2]], ['acosh', [1.25], [LN2]], ['atanh', [0.6], [LN2]],
  // Abramowitz and Stegun, table 7.1, and Mathematica for the last digits.
  ['erf', [0, 0.5, 1, 2, 3, 4, -1, 7, -Infinity], [0, 0.5204998778130465, 0.8427007929497149, 0.9953222650189527, 0.9999779095030014, 0.9999999845827421, -0.8427007929497149, 1, -1]],
  ['sigmoid', [0, Math.log(3), -Math.log(3), -800, 800], [0.5, 0.75, 0.25, 0, 1]],
  ['floor', [1.5, -1.5], [1, -2]], ['ceil', [1.5, -1.5], [2, -1]], ['trunc', [1.9, -1.9], [1, -1]],
  ['round', [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999999999999994, 2 ** 53 - 1, Infinity], [0, 2, 2, -0, -2, 0, 2 ** 53 - 1, Infinity]],
];

const binary: readonly (readonly [string, readonly number[], readonly number[], readonly number[]])[] = [
  ['add', [1, 2], [10, -2], [11, 0]], ['sub', [1, 2], [10, -2], [-9, 4]], ['mul', [3, 2], [10, -2], [30, -4]], ['div', [1, -1, 0], [4, 0, 0], [0.25, -Infinity, NaN]],
  ['pow', [2, 9, -8, 1, -1, 0, NaN], [10, 0.5, 3, NaN, Infinity, 0, 0], [1024, 3, -512, 1, 1, 1, 1]],
  ['min', [1, NaN, 2, 0], [2, 1, NaN, -0], [1, NaN, NaN, -0]], ['max', [1, NaN, 2, -0], [2, 1, NaN, 0], [2, NaN, NaN, 0]],
  ['mod', [7, -7, 7, -7, 5.5], [3, 3, -3, -3, -2], [1, 2, -2, -1, -0.5]], ['fmod', [7, -7, 7, -7, 5.5], [3, 3, -3, -3, -2], [1, -1, 1, -1, 1.5]],
  ['atan2', [1, -1, 0], [1, -1, -1], [PI / 4, -3 * PI / 4, PI]],
];

const integers: readonly (readonly [string, DType, readonly number[], readonly number[] | undefined, readonly number[]])[] = [
  ['add', 'i8', [127, -128], [1, -1], [-128, 127]], ['add', 'u8', [255], [1], [0]], ['add', 'i32', [2147483647], [1], [-2147483648]], ['sub', 'u32', [0], [1], [4294967295]],
  ['mul', 'i32', [65537], [65537], [131073]], ['mul', 'u32', [4294967295], [4294967295], [1]], ['mul', 'i4', [5], [3], [-1]],
  ['div', 'i32', [7, -7, -2147483648, 5], [2, 2, -1, 0], [3, -3, -2147483648, 0]], ['div', 'i64', [7, -7, 5], [2, 2, 0], [3, -3, 0]],
  ['mod', 'i32', [7, -7, 7, -7, 3], [3, 3, -3, -3, 0], [1, 2, -2, -1, 0]], ['mod', 'i64', [7, -7, 7, -7, 3], [3, 3, -3, -3, 0], [1, 2, -2, -1, 0]],
  ['fmod', 'i32', [7, -7, 7, -7], [3, 3, -3, -3], [1, -1, 1, -1]], ['fmod', 'i64', [7, -7, 7, -7], [3, 3, -3, -3], [1, -1, 1, -1]],
  ['pow', 'i32', [3, 2, -1, 2, -1], [5, 33, 3, -1, -2], [243, 0, -1, 0, 1]], ['pow', 'i64', [3, -1, 2], [5, 3, -1], [243, -1, 0]], ['pow', 'u8', [3], [6], [729 - 512]],
  ['neg', 'i8', [-128, 5], undefined, [-128, -5]], ['abs', 'i32', [-5], undefined, [5]], ['abs', 'i64', [-5], undefined, [5]], ['sign', 'i64', [-5, 0, 5], undefined, [-1, 0, 1]], ['relu', 'i64', [-5, 5], undefined, [0, 5]],
  ['bitNot', 'u8', [0, 5], undefined, [255, 250]], ['bitNot', 'i64', [0], undefined, [-1]],
  ['bitAnd', 'u8', [12], [10], [8]], ['bitOr', 'i32', [12], [10], [14]], ['bitXor', 'i64', [12], [10], [6]], ['bitAnd', 'u32', [4294967295], [4026531840], [4026531840]],
  ['shl', 'u8', [1, 3, 255], [8, 7, 4], [0, 128, 240]], ['shl', 'u32', [3, 1], [31, 32], [2147483648, 0]], ['shr', 'u32', [4294967295, 8], [28, 32], [15, 0]], ['shr', 'i32', [-8, -8], [1, 40], [-4, -1]], ['shr', 'i64', [-8, 8], [1, 64], [-4, 0]],
  ['min', 'i64', [3, -3], [2, 2], [2, -3]], ['max', 'u8', [3, 200], [2, 201], [3, 201]],
];

describe('floats', () => {
  it.each(unary)('%s(%j)', (op, x, want) => closeTo(values(run(op, [f(...x)])), want));
  it.each(binary)('%s(%j, %j)', (op, x, y, want) => closeTo(values(run(op, [f(...x), f(...y)])), want));
  it('erf equals the integral of its derivative by Simpson’s rule', () => {
    for (const x of [0.1, 0.7, 1.3, 2.2, 2.9, 3.1, 4.4]) {
      const n = 4000;
      const g = (i: number): number => Math.exp(-(((i * x) / n) ** 2));
      let sum = g(0) + g(n);
      for (let i = 1; i < n; i++) sum += (i % 2 ? 4 : 2) * g(i);
      // The sum of 4000 terms rounds by up to 1e-14 itself.
      closeTo(values(run('erf', [f(x)])), [((2 / Math.sqrt(PI)) * (sum * x)) / n / 3], 1e-14);
    }
  });
  it('results are rounded to the dtype', () => {
    expect(values(run('add', [as('f32', 1), as('f32', 2 ** -24)]))).toEqual([1]);
    expect(values(run('recip', [as('f32', 3)]))).toEqual([Math.fround(1 / 3)]);
  });
});

describe('integers wrap', () => {
  it.each(integers)('%s %s(%j, %j) = %j', (op, dtype, x, y, want) => {
    expect(isInteger(dtype)).toBe(true);
    expect(values(run(op, y ? [as(dtype, ...x), as(dtype, ...y)] : [as(dtype, ...x)]))).toEqual(want);
  });
  it('64-bit integers keep all bits', () => {
    const big = (...xs: bigint[]): Tensor => ({ dtype: 'i64', shape: [xs.length], data: BigInt64Array.from(xs) });
    expect([...run('add', [big(2n ** 62n, 2n ** 63n - 1n), big(1n, 1n)])[0]!.data]).toEqual([2n ** 62n + 1n, -(2n ** 63n)]);
    expect([...run('mul', [big(3037000500n), big(3037000500n)])[0]!.data]).toEqual([BigInt.asIntN(64, 3037000500n ** 2n)]);
    expect(values(run('gt', [big(2n ** 62n + 1n), big(2n ** 62n)]))).toEqual([1]);
  });
});

describe('questions', () => {
  it('comparisons follow IEEE for NaN and zeros', () => {
    const [x, y] = [f(1, 2, NaN, 0), f(2, 2, NaN, -0)];
    const table = { eq: [0, 1, 0, 1], ne: [1, 0, 1, 0], lt: [1, 0, 0, 0], le: [1, 1, 0, 1], gt: [0, 0, 0, 0], ge: [0, 1, 0, 1] };
    for (const [op, want] of Object.entries(table)) expect(values(run(op, [x, y])), op).toEqual(want);
  });
  it('logic follows its truth tables', () => {
    const [x, y] = [bools(0, 0, 1, 1), bools(0, 1, 0, 1)];
    const table = { and: [0, 0, 0, 1], or: [0, 1, 1, 1], xor: [0, 1, 1, 0], eq: [1, 0, 0, 1], ne: [0, 1, 1, 0] };
    for (const [op, want] of Object.entries(table)) expect(values(run(op, [x, y])), op).toEqual(want);
    expect(values(run('not', [bools(0, 1)]))).toEqual([1, 0]);
  });
  it('isNaN and isInf', () => {
    const x = f(NaN, Infinity, -Infinity, 1);
    expect(values(run('isNaN', [x]))).toEqual([1, 0, 0, 0]);
    expect(values(run('isInf', [x]))).toEqual([0, 1, 1, 0]);
    expect(values(run('isInf', [x], { positive: false }))).toEqual([0, 0, 1, 0]);
    expect(values(run('isInf', [x], { negative: false }))).toEqual([0, 1, 0, 0]);
  });
});

describe('three operands', () => {
  it('select takes a where cond holds, of any dtype', () => {
    expect(values(run('select', [bools(1, 0), f(1, 2), f(3, NaN)]))).toEqual([1, NaN]);
    expect(values(run('select', [bools(1, 0), as('i64', 1, 2), as('i64', 3)]))).toEqual([1, 3]);
  });
  it('clamp is min(max(x, lo), hi): hi wins where the bounds cross', () => {
    expect(values(run('clamp', [f(-5, 5, 1, NaN, 0), f(0, 0, 0, 0, 3), f(2, 2, 2, 2, 1)]))).toEqual([0, 2, 1, NaN, 1]);
    expect(values(run('clamp', [as('i64', -5, 5, 1), as('i64', 0), as('i64', 2)]))).toEqual([0, 2, 1]);
  });
});

describe('cast', () => {
  const cast = (x: Tensor, to: DType, saturate = false): number[] => values(run('cast', [x], { to, saturate }));
  it('float to int truncates and wraps', () => {
    expect(cast(f(1.9, -1.9, 300, -129, NaN, Infinity), 'i8')).toEqual([1, -1, 44, 127, 0, 0]);
    expect(cast(f(1.9, -1.9, 2 ** 32 + 5, NaN), 'i64')).toEqual([1, -1, 2 ** 32 + 5, 0]);
  });
  it('saturating, it rounds half to even and clamps', () => {
    expect(cast(f(1.5, 2.5, 300, -129, NaN, -Infinity), 'i8', true)).toEqual([2, 2, 127, -128, 0, -128]);
    expect(cast(f(2.5, -7, 1e30), 'u64', true)).toEqual([2, 0, 2 ** 64]);
  });
  it('to bool is a test, from bool is 0 and 1', () => {
    expect(cast(f(0, -0, 0.1, NaN), 'bool')).toEqual([0, 0, 1, 1]);
    expect(cast(bools(0, 1), 'f32')).toEqual([0, 1]);
    expect(cast(as('i64', 0, 256), 'bool')).toEqual([0, 1]);
  });
  it('between integers keeps the low bits, or clamps', () => {
    expect(cast(as('i64', 300, -1), 'u8')).toEqual([44, 255]);
    expect(cast(as('i32', -1), 'u64')).toEqual([2 ** 64]);
    expect(cast(as('i64', 300, -1), 'u8', true)).toEqual([255, 0]);
  });
  it('i64 to f32 rounds once', () => {
    // Through f64 this would first round down to the tie 2^60 + 2^36, then to even.
    const x: Tensor = { dtype: 'i64', shape: [1], data: BigInt64Array.of(2n ** 60n + 2n ** 36n + 1n) };
    expect(cast(x, 'f32')).toEqual([2 ** 60 + 2 ** 37]);
  });
  it('bitcast reads bits', () => {
    const bits = (x: Tensor, to: DType): number[] => values(run('bitcast', [x], { to }));
    expect(bits(as('f32', 1, -2), 'u32')).toEqual([0x3f800000, 0xc0000000]);
    expect(bits(as('i32', 0x3f800000), 'f32')).toEqual([1]);
    expect(bits(f(1), 'i64')).toEqual([Number(0x3ff0000000000000n)]);
    expect(bits(tensor('f16', [1], [0x3c00]), 'i16')).toEqual([0x3c00]);
    expect(bits(as('i4', -1), 'u4')).toEqual([15]);
    expect(bits(as('u4', 15), 'i4')).toEqual([-1]);
    expect(bits(bools(1, 0), 'u8')).toEqual([1, 0]);
  });
});

it('operands broadcast as numpy says', () => {
  const shape = fc.array(fc.constantFrom(1, 2, 3), { maxLength: 4 });
  fc.assert(fc.property(shape, fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }), fc.nat(4), (full, ones, drop) => {
    const s = full.map((d, i) => (ones[i] ? 1 : d));
    const t = full.slice(Math.min(drop, full.length)).map((d, i) => (ones[i + 4] ? 1 : d));
    const count = (xs: readonly number[]): number => xs.reduce((n, d) => n * d, 1);
    const [x, y] = [tensor('f64', s, [...new Array(count(s)).keys()]), tensor('f64', t, [...new Array(count(t)).keys()])];
    const [z] = run('sub', [x, y]);
    const want = s.map((d, i) => Math.max(d, t[i - (s.length - t.length)] ?? 1));
    expect(z!.shape).toEqual(want);
    const at = (own: readonly number[], index: readonly number[]): number => own.reduce((n, d, i) => n * d + (d === 1 ? 0 : index[index.length - own.length + i]!), 0);
    z!.data.forEach((got, k) => {
      const index = want.map((d, i) => Math.floor(k / count(want.slice(i + 1))) % d);
      expect(got).toBe(at(s, index) - at(t, index));
    });
  }), { numRuns: 200, seed: 5 });
});

it('large operands, computed block by block, give the same as small ones', () => {
  const wave = (n: number): number[] => Array.from({ length: n }, (_, i) => Math.fround(Math.sin(i)));
  for (const [s, t] of [[[300, 7, 11], [300, 7, 11]], [[1, 300, 7, 11], [300, 1, 1]], [[300, 7, 11], [7, 1]], [[300, 77], []], [[3, 1, 4000], [2, 1]]] as const) {
    const count = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
    const [x, y] = [tensor('f32', s, wave(count(s))), tensor('f32', t, wave(count(t)))];
    const [z] = run('sub', [x, y]);
    const rank = z!.shape.length;
    const at = (own: readonly number[], k: number): number => own.reduce((n, d, i) => {
      const axis = rank - own.length + i;
      return n * d + (d === 1 ? 0 : Math.floor(k / count(z!.shape.slice(axis + 1))) % z!.shape[axis]!);
    }, 0);
    const want = Float32Array.from({ length: z!.data.length }, (_, k) => (x.data[at(s, k)] as number) - (y.data[at(t, k)] as number));
    expect(z!.data).toEqual(want);
  }
});

it.each([
  ['exp', [as('i32', 1)], 'takes float tensors, found i32[1]'],
  ['add', [as('f32', 1), f(1)], 'f32[1] and f64[1] differ in element type'],
  ['add', [f(1, 2), f(1, 2, 3)], 'f64[2] and f64[3] do not broadcast'],
  ['select', [f(1), f(1), f(1)], 'the condition f64[1] is not bool'],
  ['and', [f(1), f(1)], 'takes bool tensors, found f64[1]'],
] as const)('%s refuses operands that do not fit', (op, operands, message) => {
  expect(() => run(op, operands)).toThrow(message);
  expect(() => run(op, operands)).toThrow(IllTyped);
});

/** Equal to within some units in the last place of double precision, or to a relative tolerance. */
function closeTo(got: readonly number[], want: readonly number[], tolerance = 4e-16): void {
  expect(got.length).toBe(want.length);
  got.forEach((x, i) => expect(Object.is(x, want[i]) || Math.abs(x - want[i]!) <= tolerance * Math.max(Math.abs(want[i]!), 1e-300), `${i}: ${x}, expected ${want[i]}`).toBe(true));
}
