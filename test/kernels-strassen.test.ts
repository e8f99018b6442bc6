import { describe, test } from 'vitest';
import type { Builder } from '../ir/builder.ts';
import type { Op, Value } from '../ir/graph.ts';
import { rows, type Slot } from '../bench/kernel.ts';
import { tensorType } from '../ir/type.ts';
import { expectKernel, featureSets, fuse, pack, randomArray, randomNumbers } from './contract-harness.ts';

/** Epilogues of each way to run one: none, in registers, and over stored sums. `extra`: a bias, and a tensor of the result's shape. */
const epilogues: readonly { readonly name: string; readonly build: (b: Builder, y: Value, extra: readonly Value[]) => Value; readonly value: (y: number, bias: number, r: number) => number }[] = [
  { name: 'none', build: (_, y) => y, value: (y) => y },
  { name: 'bias, residual, relu', build: (b, y, [bias, r]) => b.unary('relu', b.add(b.add(y, bias!), r!)), value: (y, bias, r) => Math.max(0, y + bias + r) },
  { name: 'bias, tanh, times a tensor', build: (b, y, [bias, r]) => b.mul(b.unary('tanh', b.add(y, bias!)), r!), value: (y, bias, r) => Math.tanh(y + bias) * r },
];

/** The sums of quarters that the product reads, by their definition: the last row of an odd number stands for the one that is missing. */
function sumsOf(a: Float64Array, m: number, k: number): Float64Array {
  const [upper, half] = [Math.ceil(m / 2), k / 2];
  const at = (row: number, i: number): number => a[row * k + i]!;
  return Float64Array.from({ length: upper * 4 * half }, (_, p) => {
    const [row, which, i] = [Math.floor(p / (4 * half)), Math.floor(p / half) % 4, p % half];
    const lower = Math.min(row + upper, m - 1);
    const s1 = at(lower, i) + at(lower, half + i);
    const s2 = s1 - at(row, i);
    return [s1, s2, at(row, i) - at(lower, i), at(row, half + i) - s2][which]!;
  });
}

function product(a: Float64Array, b: Float64Array, m: number, n: number, k: number): Float64Array {
  const y = new Float64Array(m * n);
  for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) for (let j = 0; j < n; j++) y[i * n + j]! += a[i * k + l]! * b[l * n + j]!;
  return y;
}

/** Each result is a sum of up to 7 products of sums of up to 4 elements: some times the error of the plain product. */
const tolerance = 8e-6;

describe.each(featureSets)("product by Strassen's algorithm, %s", (features) => {
  test.each([[1, 16, 8], [2, 16, 8], [3, 32, 16], [12, 16, 8], [13, 48, 24], [24, 32, 40], [33, 160, 16], [101, 64, 72], [130, 16, 128]] as const)('%i x %i, sum over %i', (m, n, k) => {
    const next = randomNumbers(m * 1000 + n * 10 + k);
    const [a, b, bias, residual] = [randomArray(m * k, next), randomArray(k * n, next), randomArray(n, next), randomArray(m * n, next)];
    const plain = product(a, b, m, n, k);
    const packed = pack('packMatmul', tensorType('f32', [k, n]), b, { spec: 'mk,kn->mn' });
    const sums = sumsOf(a, m, k);
    const types = [tensorType('f32', [m, k]), packed.type, tensorType('f32', [sums.length])];
    for (const e of epilogues) {
      const extra = e.name === 'none' ? [] : [tensorType('f32', [n]), tensorType('f32', [m, n])];
      const op = fuse({ name: 'contractPacked', attrs: { spec: 'mk,kn->mn', bShape: [k, n], algorithm: 'strassen' }, operands: types }, extra, e.build);
      const want = plain.map((y, i) => e.value(y, bias[i % n]!, residual[i]!));
      expectKernel(features, op, [...types, ...extra].map(rows), [a, packed.data, sums, ...(extra.length > 0 ? [bias, residual] : [])], rows(tensorType('f32', [m, n])), want, tolerance, plain);
    }
  });

  const wide = (shape: readonly [number, number, number], between: number, row: number): Slot => ({ type: tensorType('f32', shape), strides: [between, row, 1], length: shape[0] * between, offset: 2 });
  test.each([['apart, and evenly', 7 * 40, 40], ['apart, with a gap after each seventh', 300, 40]] as const)('rows of the result that lie %s', (_, between, row) => {
    const next = randomNumbers(5);
    const [p, q, k, n] = [3, 7, 16, 32];
    const [a, b] = [randomArray(p * q * k, next), randomArray(k * n, next)];
    const packed = pack('packMatmul', tensorType('f32', [k, n]), b, { spec: 'pqk,kn->pqn' });
    const sums = sumsOf(a, p * q, k);
    const types = [tensorType('f32', [p, q, k]), packed.type, tensorType('f32', [sums.length])];
    const op = fuse({ name: 'contractPacked', attrs: { spec: 'pqk,kn->pqn', bShape: [k, n], algorithm: 'strassen' }, operands: types }, [], (_, y) => y);
    expectKernel(features, op, [wide([p, q, k], 7 * 19, 19), rows(packed.type), rows(types[2]!)], [a, packed.data, sums], wide([p, q, n], between, row), product(a, b, p * q, n, k), tolerance);
  });

  test.each([[1, 8], [2, 8], [9, 24], [16, 40], [37, 16]] as const)('sums of %i rows of %i', (m, k) => {
    const a = randomArray(m * k, randomNumbers(m + k));
    const want = sumsOf(a, m, k);
    const type = tensorType('f32', [m, k]);
    const op: Op = { name: 'strassenSums', operands: [{ type, name: undefined }], attrs: { rowAxes: 1 }, results: [{ type: tensorType('f32', [want.length]), name: undefined }], regions: [], source: [] };
    const apart: Slot = { type, strides: [k + 3, 1], length: m * (k + 3), offset: 1 };
    for (const slot of [rows(type), apart]) expectKernel(features, op, [slot], [a], rows(tensorType('f32', [want.length])), want, 1e-6);
  });
});
