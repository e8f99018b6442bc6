/**
 * Random tensors, keyed by a run-time seed, a static stream and the element's index; nothing depends on the order in which elements are made.
 *
 * Words come from Philox 4x32-10. Its key is (low word of the seed, high word); its counter is (block, 0, stream, 0). Counting elements row-major:
 * - uniform, up to 32 bits: element e takes word e mod 4 of block floor(e / 4); its value is the word's highest p bits times 2^-p, where p is the
 *   precision of the dtype (f32: 24, f16: 11, bf16: 8 bits), so that every value is exact and below 1.
 * - uniform, f64: element e takes words i = 2 (e mod 2) and i + 1 of block floor(e / 2); its value is (26 highest bits of word i, then 27 highest
 *   bits of word i + 1) · 2^-53.
 * - normal, every dtype: element e takes the same two words; with u = ((word i >>> 8) + 1) · 2^-24 in (0, 1] and v = (word i+1 >>> 8) · 2^-24 in
 *   [0, 1) its value is sqrt(-2 ln u) · cos(2πv) (Box and Muller).
 */
import { num, nums, str, type OpDef } from '../../op.ts';
import { showType, sizeOf, tensorType, type DType } from '../../type.ts';
import { arity, bigints, check, dimsOf, namesOf, requireShape, writeDims } from '../helpers.ts';
import { philox } from './philox.ts';

/** A distribution: how many elements one block of four words makes, and the value that the i-th of them has. */
interface Distribution {
  readonly perBlock: number;
  readonly value: (words: Uint32Array, i: number) => number;
}

/** Bits of the significand of the dtypes that can be drawn. */
const precisions: Readonly<Partial<Record<DType, number>>> = { f64: 53, f32: 24, f16: 11, bf16: 8 };

function uniform(dtype: DType): Distribution {
  const bits = precisions[dtype]!;
  if (dtype === 'f64') return { perBlock: 2, value: (w, i) => ((w[2 * i]! >>> 6) * 2 ** 27 + (w[2 * i + 1]! >>> 5)) * 2 ** -53 };
  return { perBlock: 4, value: (w, i) => (w[i]! >>> (32 - bits)) * 2 ** -bits };
}

const normal: Distribution = {
  perBlock: 2,
  value(w, i) {
    const u = ((w[2 * i]! >>> 8) + 1) * 2 ** -24;
    const v = (w[2 * i + 1]! >>> 8) * 2 ** -24;
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v);
  },
};

export const randomUniform: OpDef = {
  ...random(uniform),
  name: 'randomUniform',
  doc: 'y[e] uniform in [0, 1), from Philox 4x32-10 keyed by (seed, stream, e); ir/ops/sequence/random.ts has the exact rule',
};

export const randomNormal: OpDef = {
  ...random(() => normal),
  name: 'randomNormal',
  doc: 'y[e] standard normal, from Philox 4x32-10 keyed by (seed, stream, e); ir/ops/sequence/random.ts has the exact rule',
};

function random(distribution: (dtype: DType) => Distribution): Omit<OpDef, 'name' | 'doc'> {
  return {
    family: 'random',
    operands: ['seed'],
    attrs: {
      shape: { kind: 'numbers', default: 'required' },
      dtype: { kind: 'string', default: 'f32' },
      stream: { kind: 'number', default: 'required' },
    },
    infer(operands, a) {
      const [seed] = arity(operands, 1);
      const stream = num(a, 'stream');
      check(seed.dtype === 'i64' && seed.shape.length === 0, () => `the seed is ${showType(seed)}, expected i64[]`);
      requireShape(nums(a, 'shape'));
      check(str(a, 'dtype') in precisions, () => `dtype ${str(a, 'dtype')} cannot be drawn, expected ${Object.keys(precisions).join(', ')}`);
      check(Number.isInteger(stream) && stream >= 0 && stream < 2 ** 32, () => `stream=${stream} must be an integer from 0 to 2^32 - 1`);
      return [tensorType(str(a, 'dtype') as DType, nums(a, 'shape'))];
    },
    axes(_, a) {
      const space = dimsOf(nums(a, 'shape'));
      const piece = { dims: namesOf(space), reads: [[]], writes: writeDims(space), indexed: namesOf(space) };
      return { space, stages: [{ pieces: [piece], combine: 'none', product: false }] };
    },
    reference([seed], a, [y]) {
      const key = BigInt.asUintN(64, bigints(seed!)[0]!);
      const [low, high] = [Number(key & 0xffffffffn), Number(key >> 32n)];
      const { perBlock, value } = distribution(y!.dtype);
      const words = new Uint32Array(4);
      const data = new Float64Array(sizeOf(y!.shape));
      for (let e = 0; e < data.length; e++) {
        if (e % perBlock === 0) philox(e / perBlock, 0, num(a, 'stream'), 0, low, high, words);
        data[e] = value(words, e % perBlock);
      }
      return [{ ...y!, data }];
    },
    grad: { none: 'the only operand is an integer seed' },
  };
}
