/** Values of contractions and convolutions: official cases, the definition as plain loops, exact integers. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IllTyped } from '../ir/builder.ts';
import type { Attrs } from '../ir/graph.ts';
import { rowMajor, sizeOf, tensorType, type DType, type Tensor } from '../ir/type.ts';
import { convolutionOps, convolutions, pairOf, specs } from './gradient-cases/contraction.ts';
import { between, tensor } from './gradient-harness.ts';
import { official, type OfficialCase } from './official.ts';
import { inferred, run, values } from './run-op.ts';

const conv = (name: string, strides: number[], pads: number[]): OfficialCase => ({ name, op: 'conv', attrs: { strides, pads, dilations: strides.map(() => 1), groups: 1 } });
const transposed = (name: string, strides: number[], pads: number[], size: number[], more: Attrs = {}): OfficialCase => ({ name, op: 'convData', attrs: { strides, pads, dilations: strides.map(() => 1), groups: 1, size, ...more } });

official([
  conv('basic_conv_with_padding', [1, 1], [1, 1, 1, 1]),
  conv('basic_conv_without_padding', [1, 1], [0, 0, 0, 0]),
  conv('conv_with_autopad_same', [2, 2], [1, 1, 1, 1]),
  conv('conv_with_strides_and_asymmetric_padding', [2, 2], [1, 0, 1, 0]),
  conv('conv_with_strides_no_padding', [2, 2], [0, 0, 0, 0]),
  conv('conv_with_strides_padding', [2, 2], [1, 1, 1, 1]),
  transposed('convtranspose', [1, 1], [0, 0, 0, 0], [5, 5]),
  transposed('convtranspose_1d', [1], [0, 0], [5]),
  transposed('convtranspose_3d', [1, 1, 1], [0, 0, 0, 0, 0, 0], [5, 6, 7]),
  transposed('convtranspose_autopad_same', [2, 2], [0, 0, 1, 1], [6, 6]),
  transposed('convtranspose_dilations', [1, 1], [0, 0, 0, 0], [5, 5], { dilations: [2, 2] }),
  transposed('convtranspose_group_2', [1, 1], [0, 0, 0, 0], [5, 5], { groups: 2 }),
  transposed('convtranspose_group_2_image_3', [1, 1], [0, 0, 0, 0], [5, 5], { groups: 2 }),
  transposed('convtranspose_pad', [3, 2], [0, 0, 0, 0], [10, 8]),
  transposed('convtranspose_pads', [3, 2], [1, 2, 1, 2], [7, 3]),
  { name: 'matmul_2d', op: 'contract', attrs: { spec: 'mk,kn->mn' } },
  { name: 'matmul_3d', op: 'contract', attrs: { spec: 'bmk,bkn->bmn' } },
  { name: 'matmul_4d', op: 'contract', attrs: { spec: 'abmk,abkn->abmn' } },
  { name: 'einsum_batch_matmul', op: 'contract', attrs: { spec: 'bij,bjk->bik' } },
  { name: 'einsum_inner_prod', op: 'contract', attrs: { spec: 'i,i->' } },
]);

/** Calls `visit` with an element of x, of w and of y for every product of a convolution, from its definition. */
function eachProduct(x: readonly number[], w: readonly number[], y: readonly number[], a: Attrs, visit: (xAt: number, wAt: number, yAt: number) => void): void {
  const list = (key: string): readonly number[] => a[key] as readonly number[];
  const groups = a['groups'] as number;
  const [inputs, outputs] = [w[1]!, w[0]! / groups];
  const dot = (strides: readonly number[], at: readonly number[]): number => strides.reduce((n, s, i) => n + s * at[i]!, 0);
  const [xs, ws, ys] = [rowMajor(x), rowMajor(w), rowMajor(y)];
  for (const [n, o, ...h] of places(y)) {
    for (const [i, ...tap] of places(w.slice(1))) {
      const p = h.map((v, d) => v * list('strides')[d]! + tap[d]! * list('dilations')[d]! - list('pads')[d]!);
      if (p.some((v, d) => v < 0 || v >= x[d + 2]!)) continue;
      visit(dot(xs, [n!, Math.floor(o! / outputs) * inputs + i!, ...p]), dot(ws, [o!, i!, ...tap]), dot(ys, [n!, o!, ...h]));
    }
  }
}
function* places(shape: readonly number[]): Generator<number[]> {
  for (let i = 0; i < sizeOf(shape); i++) yield rowMajor(shape).map((s, d) => Math.floor(i / s) % shape[d]!);
}

const expectNear = (got: readonly number[], want: ArrayLike<number>): void => got.forEach((x, i) => expect(Math.abs(x - want[i]!), `element ${i} is ${x}, expected ${want[i]}`).toBeLessThan(1e-9));

describe('convolutions equal their definition', () => {
  // By op: which of x, w, y it makes from which others.
  const roles = { conv: [0, 1, 2], convData: [2, 1, 0], convWeight: [0, 2, 1] } as const;
  for (const { op, of } of convolutionOps) {
    it(op, () => fc.assert(fc.property(convolutions.chain((c) => pairOf(of(c).shapes, of(c).attrs, between(-1, 1))), ({ operands, attrs = {} }) => {
      const [result] = run(op, operands, attrs);
      const [p, q, r] = roles[op as keyof typeof roles];
      const all: Tensor[] = [];
      [all[p], all[q], all[r]] = [operands[0]!, operands[1]!, result!];
      const want = new Float64Array(sizeOf(result!.shape));
      eachProduct(all[0]!.shape, all[1]!.shape, all[2]!.shape, attrs, (...at) => {
        want[at[r]]! += (operands[0]!.data[at[p]] as number) * (operands[1]!.data[at[q]] as number);
      });
      expectNear(values([result!]), want);
    }), { numRuns: 80, seed: 3 }));
  }

  it('conv over planes larger than one block of columns, with rows left over', () => {
    const x = tensor('f64', [1, 3, 31, 37], Array.from({ length: 3 * 31 * 37 }, (_, i) => Math.sin(i)));
    const w = tensor('f64', [6, 3, 3, 2], Array.from({ length: 108 }, (_, i) => Math.cos(i)));
    const attrs = { strides: [1, 1], pads: [1, 0, 2, 1], dilations: [1, 1], groups: 1 };
    const [y] = run('conv', [x, w], attrs);
    const want = new Float64Array(sizeOf(y!.shape));
    eachProduct(x.shape, w.shape, y!.shape, attrs, (xAt, wAt, yAt) => (want[yAt]! += (x.data[xAt] as number) * (w.data[wAt] as number)));
    expectNear(values([y!]), want);
  });
});

it('contract sums every product that its letters name', () => fc.assert(fc.property(specs.chain(({ spec, a, b }) => pairOf([a, b], { spec }, between(-1, 1))), ({ operands, attrs }) => {
  const [a, b, result] = (attrs!['spec'] as string).split(/,|->/) as [string, string, string];
  const size = new Map([...a, ...b].map((l, i) => [l, [...operands[0]!.shape, ...operands[1]!.shape][i]!]));
  const letters = [...size.keys()];
  const offset = (of: string, at: readonly number[]): number => [...of].reduce((n, l) => n * size.get(l)! + at[letters.indexOf(l)]!, 0);
  const want = new Float64Array(sizeOf([...result].map((l) => size.get(l)!)));
  for (const at of places([...size.values()])) want[offset(result, at)]! += (operands[0]!.data[offset(a, at)] as number) * (operands[1]!.data[offset(b, at)] as number);
  expectNear(values(run('contract', operands, attrs)), want);
}), { numRuns: 150, seed: 5 }));

describe('integers are exact and wrap', () => {
  const dot = (dtype: DType, a: readonly bigint[], b: readonly bigint[]): bigint => {
    const make = (xs: readonly bigint[]): Tensor => dtype === 'i64' ? { dtype, shape: [xs.length], data: BigInt64Array.from(xs) } : dtype === 'u64' ? { dtype, shape: [xs.length], data: BigUint64Array.from(xs) } : tensor(dtype, [xs.length], xs.map(Number));
    return BigInt(run('contract', [make(a), make(b)], { spec: 'k,k->' })[0]!.data[0]!);
  };
  const ranges = { i8: [-128n, 127n], u8: [0n, 255n], i32: [-(2n ** 31n), 2n ** 31n - 1n], u32: [0n, 2n ** 32n - 1n], i64: [-(2n ** 63n), 2n ** 63n - 1n], u64: [0n, 2n ** 64n - 1n] } as const;
  for (const [dtype, [min, max]] of Object.entries(ranges)) {
    const bits = Number(dtype.slice(1));
    const wrap = dtype.startsWith('i') ? BigInt.asIntN : BigInt.asUintN;
    it(dtype, () => fc.assert(fc.property(fc.array(fc.tuple(fc.bigInt({ min, max }), fc.bigInt({ min, max })), { minLength: 1, maxLength: 5 }), (pairs) => {
      const exact = pairs.reduce((sum, [p, q]) => sum + p * q, 0n);
      expect(dot(dtype as DType, pairs.map(([p]) => p), pairs.map(([, q]) => q))).toBe(wrap(bits, exact));
    }), { numRuns: 40, seed: 2 }));
  }
});

describe('what does not fit is refused with the reason', () => {
  const f = (...shape: number[]) => tensorType('f32', shape);
  const unit = { strides: [1, 1], pads: [0, 0, 0, 0], dilations: [1, 1], groups: 1 };
  it.each([
    ['conv', [f(1, 3, 4, 4), f(8, 4, 3, 3)], unit, 'f32[1,3,4,4] has 3 channels, expected 4'],
    ['conv', [f(1, 3, 2, 4), f(8, 3, 3, 3)], unit, 'a window that reaches over 3 elements does not fit into 2 with padding 0 and 0'],
    ['conv', [f(1, 4, 4, 4), f(6, 2, 3, 3)], { ...unit, groups: 4 }, '6 outputs, which 4 groups do not divide'],
    ['conv', [f(1, 3, 4, 4), f(8, 3, 3, 3)], { ...unit, strides: [1, 0] }, 'strides=[1,0] must hold a positive integer'],
    ['conv', [f(1, 3, 4, 4), f(8, 3, 3, 3)], { ...unit, pads: [1, 1] }, 'pads=[1,1] must hold 4 integers'],
    ['conv', [f(1, 3, 4, 4), f(8, 3, 3)], unit, 'must have one rank'],
    ['conv', [f(1, 3, 0, 4), f(8, 3, 1, 1)], unit, 'has an axis without elements'],
    ['conv', [f(1, 3, 4, 4), tensorType('f16', [8, 3, 3, 3])], unit, 'differ in element type'],
    ['convData', [f(1, 8, 4, 4), f(8, 3, 3, 3)], { ...unit, size: [5, 6] }, 'the windows give spatial sizes [3,4], but the operand has [4,4]'],
    ['convData', [f(1, 7, 4, 4), f(8, 3, 3, 3)], { ...unit, size: [6, 6] }, '7 channels, expected 8'],
    ['convWeight', [f(1, 3, 4, 4), f(2, 8, 2, 2)], { ...unit, kernel: [3, 3] }, 'differ in batch size'],
    ['contract', [f(2, 3), f(4, 5)], { spec: 'mk,kn->mn' }, 'axis k has 3 elements in f32[2,3] and 4 in f32[4,5]'],
    ['contract', [f(2, 3), f(3, 5)], { spec: 'mkx,kn->mn' }, 'names 3 axes, but f32[2,3] has 2'],
    ['contract', [f(2, 2), f(2)], { spec: 'ii,i->i' }, 'repeats a letter'],
    ['contract', [f(2), f(2)], { spec: 'i,i->z' }, 'z of the result is in no operand'],
    ['contract', [f(2), f(2)], { spec: 'i,i' }, 'is not of the form'],
  ] as const)('%s %j %j', (op, types, attrs, message) => {
    expect(() => inferred(op, types, attrs)).toThrow(IllTyped);
    expect(() => inferred(op, types, attrs)).toThrow(message);
  });
});
