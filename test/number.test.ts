/** Number formats against their definitions, and against the official ONNX cast tests. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readTensorFile } from '../frontend/onnx/tensor-file.ts';
import { Builder } from '../ir/builder.ts';
import { evaluateOp } from '../ir/evaluate.ts';
import { decodeFloat, encodeFloat, encodeHalves, fromRef, roundTo, toRef, wrapInt, wrapNumber } from '../ir/number.ts';
import { dtypes, type DType, type Tensor } from '../ir/type.ts';

/** Exponent bits, mantissa bits, bias, largest value, and how infinity and NaN are coded, from the papers that define the formats. */
const formats: readonly { dtype: DType; e: number; m: number; bias: number; max: number; least: number; inf: boolean; nan: boolean }[] = [
  { dtype: 'f16', e: 5, m: 10, bias: 15, max: 65504, least: 2 ** -24, inf: true, nan: true },
  { dtype: 'bf16', e: 8, m: 7, bias: 127, max: 3.3895313892515355e38, least: 2 ** -133, inf: true, nan: true },
  { dtype: 'f8e4m3fn', e: 4, m: 3, bias: 7, max: 448, least: 2 ** -9, inf: false, nan: true },
  { dtype: 'f8e4m3fnuz', e: 4, m: 3, bias: 8, max: 240, least: 2 ** -10, inf: false, nan: true },
  { dtype: 'f8e5m2', e: 5, m: 2, bias: 15, max: 57344, least: 2 ** -16, inf: true, nan: true },
  { dtype: 'f8e5m2fnuz', e: 5, m: 2, bias: 16, max: 57344, least: 2 ** -17, inf: false, nan: true },
  { dtype: 'f4e2m1', e: 2, m: 1, bias: 1, max: 6, least: 0.5, inf: false, nan: false },
];

it('many f32 become f16 as one by one', () => {
  // Borders of rounding: every f16 value, halfway to the next one, and the f32 on either side of each.
  const finite = Array.from({ length: 0x7c00 }, (_, code) => decodeFloat('f16', code));
  const near = finite.flatMap((x, code) => [x, (x + (finite[code + 1] ?? 65536)) / 2]);
  const words = new Uint32Array(new Float32Array(near).buffer);
  const data = new Float32Array([...new Float32Array(Uint32Array.from([...words].flatMap((w) => [w, Math.max(0, w - 1), w + 1])).buffer), Infinity, NaN, 2 ** -149, 3e38]);
  for (const sign of [1, -1]) {
    const signed = data.map((x) => sign * x);
    const made = encodeHalves(signed);
    expect(signed.findIndex((x, i) => made[i] !== encodeFloat('f16', x))).toBe(-1);
  }
});

describe.each(formats)('$dtype', ({ dtype, e, m, bias, max, least, inf, nan }) => {
  const codes = 1 << (e + m);
  /** Value of a code without sign, by the definition of a binary float. */
  const value = (code: number): number => {
    const [exponent, mantissa] = [code >> m, code & ((1 << m) - 1)];
    return exponent === 0 ? (mantissa / (1 << m)) * 2 ** (1 - bias) : (1 + mantissa / (1 << m)) * 2 ** (exponent - bias);
  };
  const finite = Array.from({ length: codes }, (_, c) => value(c)).filter((x) => x <= max);

  it('has the published smallest and largest values', () => {
    expect(finite[1]).toBe(least);
    expect(finite.at(-1)).toBe(max);
  });
  it('decodes every finite code, with both signs, and encodes it back', () => {
    finite.forEach((x, code) => {
      expect(decodeFloat(dtype, code)).toBe(x);
      expect(encodeFloat(dtype, x)).toBe(code);
      if (code > 0) expect(decodeFloat(dtype, code + codes)).toBe(-x);
      if (code > 0) expect(encodeFloat(dtype, -x)).toBe(code + codes);
    });
  });
  it('rounds to the nearest value, ties to the even code', () => {
    const anywhere = fc.integer({ min: 0, max: finite.length - 2 }).chain((c) => fc.oneof(fc.constant(0.5), fc.integer({ min: 0, max: 1000 }).map((k) => k / 1000)).map((t) => ({ c, x: finite[c]! + t * (finite[c + 1]! - finite[c]!) })));
    fc.assert(fc.property(anywhere, fc.boolean(), ({ c, x }, negative) => {
      const [below, above] = [x - finite[c]!, finite[c + 1]! - x];
      const code = below < above ? c : above < below ? c + 1 : c % 2 === 0 ? c : c + 1;
      expect(Math.abs(roundTo(dtype, negative ? -x : x))).toBe(finite[code]);
    }), { numRuns: 300, seed: 3 });
  });
  it('beyond the largest value gives infinity where there is one, else NaN, or clamps', () => {
    const step = max - finite.at(-2)!;
    expect(roundTo(dtype, max + step * 0.49)).toBe(max);
    const beyond = nan ? (inf ? Infinity : NaN) : max;
    for (const x of [max + step, Infinity]) {
      expect(roundTo(dtype, x)).toBe(beyond);
      expect(roundTo(dtype, -x)).toBe(-beyond);
      if (dtypes[dtype].bits <= 8) expect(roundTo(dtype, -x, { saturate: true })).toBe(-max);
    }
    expect(roundTo(dtype, NaN)).toBe(nan ? NaN : -0);
  });
});

describe('f8e8m0', () => {
  it('holds powers of two from 2^-127 to 2^127, and NaN', () => {
    expect([0, 127, 128, 254, 255].map((c) => decodeFloat('f8e8m0', c))).toEqual([2 ** -127, 1, 2, 2 ** 127, NaN]);
  });
  it('rounds as asked, and saturates or gives NaN', () => {
    const code = (x: number, rounding = {}): number => encodeFloat('f8e8m0', x, rounding);
    expect([1, 1.4, 1.5, 1.6].map((x) => code(x))).toEqual([127, 127, 128, 128]);
    expect([1, 1.1, 1.9].map((x) => code(x, { direction: 'up' }))).toEqual([127, 128, 128]);
    expect([1, 1.1, 1.9].map((x) => code(x, { direction: 'down' }))).toEqual([127, 127, 127]);
    expect([0, Infinity, 2 ** 128, 2 ** -130].map((x) => code(x))).toEqual([255, 255, 255, 255]);
    expect([0, Infinity, 2 ** 128, 2 ** -130].map((x) => code(x, { saturate: true }))).toEqual([0, 254, 254, 0]);
  });
});

describe('integers wrap as two’s complement', () => {
  it.each([['i8', 200n, -56n], ['u8', -1n, 255n], ['i4', 9n, -7n], ['u2', 7n, 3n], ['i32', 2n ** 31n, -(2n ** 31n)], ['u32', -1n, 2n ** 32n - 1n], ['i64', 2n ** 63n, -(2n ** 63n)]] as const)('%s(%s) = %s', (dtype, x, want) => {
    expect(wrapInt(dtype, x)).toBe(want);
    if (dtype !== 'i64') expect(BigInt(wrapNumber(dtype, Number(x)))).toBe(want);
  });
});

it('toRef and fromRef are inverse for every dtype', () => {
  for (const dtype of Object.keys(dtypes) as DType[]) {
    const data = new dtypes[dtype].array(6);
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data.set([0n, 1n, 2n, 3n, 2n ** 62n, 5n]);
    else data.set(dtype === 'bool' || dtype === 'u2' ? [0, 1, 1, 0, 1, 0] : dtype === 'i2' ? [0, 1, -1, -2, 1, 0] : [0, 1, 2, 3, 4, 5]);
    const t: Tensor = { dtype, shape: [2, 3], data };
    expect(fromRef(toRef(t)), dtype).toEqual(t);
  }
});

const official = join(import.meta.dirname, '../../shared/onnx-backend/node');
const onnxNames: Readonly<Record<string, DType>> = {
  FLOAT: 'f32', DOUBLE: 'f64', FLOAT16: 'f16', BFLOAT16: 'bf16', FLOAT8E4M3FN: 'f8e4m3fn', FLOAT8E4M3FNUZ: 'f8e4m3fnuz', FLOAT8E5M2: 'f8e5m2', FLOAT8E5M2FNUZ: 'f8e5m2fnuz',
  FLOAT8E8M0: 'f8e8m0', FLOAT4E2M1: 'f4e2m1', INT2: 'i2', INT4: 'i4', INT8: 'i8', UINT2: 'u2', UINT4: 'u4', UINT8: 'u8',
};
describe.skipIf(!existsSync(official))('official cast tests (skipped without ../shared)', () => {
  const cases = existsSync(official) ? readdirSync(official).filter((d) => /^test_cast_/.test(d)) : [];
  it.each(cases)('%s', (name) => {
    const to = onnxNames[name.split('_to_')[1]!]!;
    const [input, want] = ['input_0.pb', 'output_0.pb'].map((f) => readTensorFile(join(official, name, 'test_data_set_0', f)).tensor);
    const b = new Builder('cast');
    b.op('cast', [b.input(input!)], { to, saturate: to.startsWith('f8') && !name.includes('no_saturate') });
    const [found] = evaluateOp(b.ops[0]!, [input!]);
    expect(found!.dtype).toBe(want!.dtype);
    expect([...toRef(found!).data]).toEqual([...toRef(want!).data]);
  });
});
