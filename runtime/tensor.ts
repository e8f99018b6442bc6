/** Tensors as they enter and leave a session, and their element types. */
import type { DTypeName } from './manifest.ts';

export type TypedArray =
  | Float64Array | Float32Array
  | BigInt64Array | Int32Array | Int16Array | Int8Array
  | BigUint64Array | Uint32Array | Uint16Array | Uint8Array;

/**
 * A row-major tensor. f16 and bf16 hold their bits in a Uint16Array, smaller floats in a Uint8Array; 4- and 2-bit integers take an element each; bool is 0 or 1
 * in a Uint8Array.
 */
export interface Tensor {
  readonly dtype: DTypeName;
  readonly shape: readonly number[];
  readonly data: TypedArray;
}

type ArrayOf<D extends DTypeName> =
  D extends 'f64' ? Float64Array : D extends 'f32' ? Float32Array
  : D extends 'i64' ? BigInt64Array : D extends 'u64' ? BigUint64Array
  : D extends 'i32' ? Int32Array : D extends 'u32' ? Uint32Array
  : D extends 'i16' ? Int16Array : D extends 'u16' | 'f16' | 'bf16' ? Uint16Array
  : D extends 'i8' | 'i4' | 'i2' ? Int8Array : Uint8Array;

/** A tensor of a known dtype, with the typed array that goes with it. */
export interface TensorOf<D extends DTypeName> extends Tensor {
  readonly dtype: D;
  readonly data: ArrayOf<D>;
}

/** Type of an input or output. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DTypeName;
  readonly shape: readonly number[];
}

interface DTypeFacts {
  readonly bytes: 1 | 2 | 4 | 8;
  readonly array: { new (length: number): TypedArray; new (buffer: ArrayBuffer, offset: number, length: number): TypedArray; readonly name: string };
  /** Smallest and largest value of an integer type. */
  readonly range?: readonly [number, number];
}

export const dtypeFacts: Readonly<Record<DTypeName, DTypeFacts>> = {
  f64: { bytes: 8, array: Float64Array },
  f32: { bytes: 4, array: Float32Array },
  f16: { bytes: 2, array: Uint16Array },
  bf16: { bytes: 2, array: Uint16Array },
  f8e4m3fn: { bytes: 1, array: Uint8Array },
  f8e4m3fnuz: { bytes: 1, array: Uint8Array },
  f8e5m2: { bytes: 1, array: Uint8Array },
  f8e5m2fnuz: { bytes: 1, array: Uint8Array },
  f8e8m0: { bytes: 1, array: Uint8Array },
  f4e2m1: { bytes: 1, array: Uint8Array },
  i64: { bytes: 8, array: BigInt64Array },
  i32: { bytes: 4, array: Int32Array, range: [-0x80000000, 0x7fffffff] },
  i16: { bytes: 2, array: Int16Array, range: [-0x8000, 0x7fff] },
  i8: { bytes: 1, array: Int8Array, range: [-128, 127] },
  i4: { bytes: 1, array: Int8Array, range: [-8, 7] },
  i2: { bytes: 1, array: Int8Array, range: [-2, 1] },
  u64: { bytes: 8, array: BigUint64Array },
  u32: { bytes: 4, array: Uint32Array, range: [0, 0xffffffff] },
  u16: { bytes: 2, array: Uint16Array, range: [0, 0xffff] },
  u8: { bytes: 1, array: Uint8Array, range: [0, 255] },
  u4: { bytes: 1, array: Uint8Array, range: [0, 15] },
  u2: { bytes: 1, array: Uint8Array, range: [0, 3] },
  bool: { bytes: 1, array: Uint8Array, range: [0, 1] },
};

/** Number of elements of a shape. */
export const elementCount = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

/** Bytes of a tensor in memory. */
export const byteLength = (t: Pick<Tensor, 'dtype' | 'shape'>): number => elementCount(t.shape) * dtypeFacts[t.dtype].bytes;

/** `f32[1,3,224,224]`. */
export const describe = (t: Pick<Tensor, 'dtype' | 'shape'>): string => `${t.dtype}[${t.shape.join(',')}]`;

/** The bytes of a typed array, without a copy. */
export const bytesOf = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

/** A tensor over a copy of its bytes. */
export const tensorFromBytes = (info: Pick<Tensor, 'dtype' | 'shape'>, bytes: Uint8Array): Tensor => tensorOver(info, new Uint8Array(bytes));

/** A tensor that takes over an array of bytes which starts its own buffer. */
export function tensorOver(info: Pick<Tensor, 'dtype' | 'shape'>, bytes: Uint8Array<ArrayBuffer>): Tensor {
  const { array } = dtypeFacts[info.dtype];
  return { dtype: info.dtype, shape: [...info.shape], data: new array(bytes.buffer, 0, elementCount(info.shape)) };
}

const scratch = new DataView(new ArrayBuffer(4));

/** Bits of the bfloat16 nearest to x, ties to even. */
export function toBFloat16(x: number): number {
  scratch.setFloat32(0, x);
  const bits = scratch.getUint32(0);
  if (Number.isNaN(x)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Bits of the IEEE half nearest to x, ties to even. */
export function toFloat16(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const a = Math.abs(x);
  if (a >= 65520) return sign | 0x7c00;
  // Below 2^-14 halves are spaced by 2^-24; above, by 2^(exponent - 10).
  const exponent = Math.max(-14, Math.floor(Math.log2(a || 2 ** -14)));
  const exact = a < 2 ** exponent ? exponent - 1 : exponent;
  const e = Math.max(-14, exact);
  const units = roundHalfEven(a / 2 ** (e - 10));
  return sign | (units + ((e + 14) << 10));
}

function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}
