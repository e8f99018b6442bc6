/** Number formats: rounding to every dtype, bits of the small floats, and tensors as the interpreter holds them. Independent of any kernel. */
import type { RefTensor } from './op.ts';
import { dtypes, isFloat, sizeOf, type DType, type Tensor, type TensorType } from './type.ts';

/** How a value beyond the largest finite one is treated, as ONNX's Cast says. */
export interface Rounding {
  /** 8-bit floats: clamp to the largest finite value instead of giving infinity or NaN. f4e2m1 always clamps. No effect on wider floats. */
  readonly saturate?: boolean;
  /** f8e8m0 alone: to the nearest power of two (ties up), or always up or down. */
  readonly direction?: 'nearest' | 'up' | 'down';
}

/** The bits of x rounded to a float of 16 bits or fewer: half to even, overflow to infinity where the format has one, else NaN. */
export function encodeFloat(dtype: DType, x: number, rounding: Rounding = {}): number {
  if (dtype === 'f8e8m0') return encodePowerOfTwo(x, rounding);
  return encode(formatOf(dtype), x, rounding.saturate === true);
}

/** `encodeFloat` of many f32 to f16. */
export function encodeHalves(data: Float32Array): Uint16Array {
  const words = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const out = new Uint16Array(data.length);
  for (let i = 0; i < out.length; i++) {
    const word = words[i]!;
    const magnitude = word & 0x7fffffff;
    if (magnitude > 0x7f800000) out[i] = 0x7e00;
    else {
      // From 2^16 on: infinity. Below 2^-14: multiples of 2^-24. Else the exponent changes its bias and 13 bits of the mantissa go, half to even.
      const code = magnitude >= 0x47800000 ? 0x7c00 : magnitude < 0x38800000 ? Math.abs(data[i]!) * 2 ** 24 + integral - integral : (magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
      out[i] = code | ((word >>> 16) & 0x8000);
    }
  }
  return out;
}

/** The value of the bits of a float of 16 bits or fewer. */
export function decodeFloat(dtype: DType, bits: number): number {
  return decodeTable(dtype)[bits]!;
}

/** x rounded to a float dtype. */
export function roundTo(dtype: DType, x: number, rounding: Rounding = {}): number {
  if (dtype === 'f64') return x;
  if (dtype === 'f32') return Math.fround(x);
  return decodeFloat(dtype, encodeFloat(dtype, x, rounding));
}

/** The value that the low bits of x have in an integer dtype (two's complement). */
export function wrapInt(dtype: DType, x: bigint): bigint {
  const { bits, kind } = dtypes[dtype];
  return kind === 'int' ? BigInt.asIntN(bits, x) : BigInt.asUintN(bits, x);
}

/** `wrapInt` for an integer dtype of up to 32 bits and an integral number; NaN and infinities give 0. */
export function wrapNumber(dtype: DType, x: number): number {
  const { bits, kind } = dtypes[dtype];
  return kind === 'int' ? (x << (32 - bits)) >> (32 - bits) : (x << (32 - bits)) >>> (32 - bits);
}

/** The lowest and highest value of an integer dtype or bool. */
export function intRange(dtype: DType): { readonly lo: bigint; readonly hi: bigint } {
  const { bits, kind } = dtypes[dtype];
  return kind === 'int' ? { lo: -(1n << BigInt(bits - 1)), hi: (1n << BigInt(bits - 1)) - 1n } : { lo: 0n, hi: (1n << BigInt(bits)) - 1n };
}

/** Whether the interpreter holds this dtype as bigints. */
export const isBig = (dtype: DType): boolean => dtype === 'i64' || dtype === 'u64';

/** Zeros, as the interpreter holds a tensor of this type. */
export function refData(type: TensorType): RefTensor['data'] {
  const n = sizeOf(type.shape);
  if (type.dtype === 'i64') return new BigInt64Array(n);
  return type.dtype === 'u64' ? new BigUint64Array(n) : new Float64Array(n);
}

/** A tensor as the interpreter holds it. May share memory with `t`; neither is to be written afterwards. */
export function toRef(t: Tensor): RefTensor {
  const { dtype, shape, data } = t;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array || data instanceof Float64Array) return { dtype, shape, data };
  if (!hasBits(dtype)) return { dtype, shape, data: new Float64Array(data) };
  const values = new Float64Array(data.length);
  const table = decodeTable(dtype);
  for (let i = 0; i < values.length; i++) values[i] = table[data[i]!]!;
  return { dtype, shape, data: values };
}

/** The stored form of an interpreter's tensor, rounded to its dtype. May share memory with `r`. */
export function fromRef(r: RefTensor): Tensor {
  const { dtype, shape, data } = r;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array || dtype === 'f64') return { dtype, shape, data };
  const facts = dtypes[dtype];
  const out = new facts.array(data.length);
  if (hasBits(dtype)) for (let i = 0; i < out.length; i++) out[i] = encodeFloat(dtype, data[i]!);
  else if (dtype === 'bool') for (let i = 0; i < out.length; i++) out[i] = data[i] === 0 ? 0 : 1;
  else if (facts.bits < 8) for (let i = 0; i < out.length; i++) out[i] = wrapNumber(dtype, data[i]!);
  else (out as Float32Array | Int32Array).set(data);
  return { dtype, shape, data: out };
}

/** Rounds (or wraps) a result in place to its declared dtype: idempotent, so data that an op shares with its operand stays as it was. */
export function settle(r: RefTensor): RefTensor {
  const { dtype, data } = r;
  if (!(data instanceof Float64Array) || dtype === 'f64') return r;
  const n = data.length;
  if (dtype === 'f32') for (let i = 0; i < n; i++) data[i] = Math.fround(data[i]!);
  else if (dtype === 'bool') for (let i = 0; i < n; i++) data[i] = data[i] === 0 ? 0 : 1;
  else if (isFloat(dtype)) for (let i = 0; i < n; i++) data[i] = roundTo(dtype, data[i]!);
  else for (let i = 0; i < n; i++) data[i] = wrapNumber(dtype, data[i]!);
  return r;
}

/** Whether a dtype is a float whose array elements are bits. */
const hasBits = (dtype: DType): boolean => isFloat(dtype) && dtypes[dtype].bits <= 16;

/** A small binary float: sign, exponent, mantissa. Codes are without the sign bit. */
interface Format {
  readonly bits: number;
  readonly mantissa: number;
  /** Exponent of the smallest normal value. */
  readonly least: number;
  /** Code of the largest finite value. */
  readonly max: number;
  readonly nan: number;
  /** Code of what lies beyond `max`; it takes the sign where `signed`. */
  readonly overflow: number;
  /** Whether the sign bit of zero and of special codes is kept (the fnuz formats use the code of -0 for NaN). */
  readonly signed: boolean;
  /** Clamps whatever `saturate` says, or never. */
  readonly clamp: boolean | undefined;
  /** Distance of neighbouring values, by exponent above `least`. */
  readonly ulp: Float64Array;
}

function format(bits: number, mantissa: number, bias: number, max: number, nan: number, overflow: number, more: { unsignedZero?: true; clamp?: boolean } = {}): Format {
  const count = 1 << (bits - 1 - mantissa);
  const least = 1 - bias;
  return { bits, mantissa, least, max, nan, overflow, signed: !more.unsignedZero, clamp: more.clamp, ulp: Float64Array.from({ length: count }, (_, i) => 2 ** (least - mantissa + i)) };
}

const formats: Readonly<Partial<Record<DType, Format>>> = {
  f16: format(16, 10, 15, 0x7bff, 0x7e00, 0x7c00, { clamp: false }),
  bf16: format(16, 7, 127, 0x7f7f, 0x7fc0, 0x7f80, { clamp: false }),
  f8e4m3fn: format(8, 3, 7, 0x7e, 0x7f, 0x7f),
  f8e4m3fnuz: format(8, 3, 8, 0x7f, 0x80, 0x80, { unsignedZero: true }),
  f8e5m2: format(8, 2, 15, 0x7b, 0x7e, 0x7c),
  f8e5m2fnuz: format(8, 2, 16, 0x7f, 0x80, 0x80, { unsignedZero: true }),
  // No infinity and no NaN: everything clamps, and NaN becomes -0, as in ml_dtypes.
  f4e2m1: format(4, 1, 1, 0x7, 0x8, 0x7, { clamp: true }),
};

function formatOf(dtype: DType): Format {
  const f = formats[dtype];
  if (!f) throw new RangeError(`${dtype} is not a float of 16 bits or fewer`);
  return f;
}

const word = new Float64Array(1);
const halves = new Uint32Array(word.buffer);
/** floor(log2(x)) of a positive normal double; -1023 or less for smaller ones. */
function exponentOf(x: number): number {
  word[0] = x;
  return (halves[1]! >>> 20) - 1023;
}

/** Adding and subtracting it rounds a double in [0, 2^51] to an integer, half to even. */
const integral = 2 ** 52;

function encode(f: Format, x: number, saturate: boolean): number {
  if (x !== x) return f.nan;
  const negative = x < 0 || (x === 0 && 1 / x < 0);
  const magnitude = Math.abs(x);
  const sign = negative ? 1 << (f.bits - 1) : 0;
  const e = Math.max(exponentOf(magnitude), f.least) - f.least;
  // With e relative to the smallest normal exponent, steps + e·2^mantissa is the code itself, for subnormals and across carries too.
  const code = e < f.ulp.length ? (magnitude / f.ulp[e]! + integral - integral) + e * (1 << f.mantissa) : Infinity;
  if (code > f.max) {
    if (f.clamp ?? saturate) return f.max | sign;
    return f.signed ? f.overflow | sign : f.overflow;
  }
  return code === 0 && !f.signed ? 0 : code | sign;
}

/** f8e8m0: code c is 2^(c-127), 255 is NaN; there is no zero, no sign. */
function encodePowerOfTwo(x: number, { saturate = false, direction = 'nearest' }: Rounding): number {
  const nan = 255;
  if (x !== x || x < 0) return nan;
  let e = exponentOf(x);
  const fraction = x / 2 ** e;
  if (fraction > 1 && (direction === 'up' || (direction === 'nearest' && fraction >= 1.5))) e++;
  if (x === Infinity || e > 127) return saturate ? 254 : nan;
  if (x === 0 || e < -127) return saturate ? 0 : nan;
  return e + 127;
}

const tables = new Map<DType, Float64Array>();

/** Values by bits. */
function decodeTable(dtype: DType): Float64Array {
  const known = tables.get(dtype);
  if (known) return known;
  const table = dtype === 'f8e8m0' ? Float64Array.from({ length: 256 }, (_, c) => (c === 255 ? NaN : 2 ** (c - 127))) : decodeAll(formatOf(dtype));
  tables.set(dtype, table);
  return table;
}

function decodeAll(f: Format): Float64Array {
  const table = new Float64Array(1 << f.bits);
  const top = 1 << (f.bits - 1);
  const one = 1 << f.mantissa;
  for (let code = 0; code < top; code++) {
    const e = code >> f.mantissa;
    const m = code & (one - 1);
    const value = e === 0 ? m * f.ulp[0]! : (one + m) * f.ulp[e - 1]!;
    const special = code === f.overflow && f.overflow !== f.nan ? Infinity : NaN;
    const x = code <= f.max ? value : special;
    table[code] = x;
    table[top + code] = -x;
  }
  if (!f.signed) table[top] = NaN;
  return table;
}
