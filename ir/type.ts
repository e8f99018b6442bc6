/** Element types, tensor types, and tensors held by the compiler. */

/** Logical element type. f32 and f64 compute; f16, bf16 and the 8- and 4-bit floats are storage (ops on them compute in f32 and round). */
export type DType =
  | 'f64' | 'f32' | 'f16' | 'bf16'
  | 'f8e4m3fn' | 'f8e4m3fnuz' | 'f8e5m2' | 'f8e5m2fnuz' | 'f8e8m0' | 'f4e2m1'
  | 'i64' | 'i32' | 'i16' | 'i8' | 'i4' | 'i2'
  | 'u64' | 'u32' | 'u16' | 'u8' | 'u4' | 'u2'
  | 'bool';

/** A tensor's static type. Dimensions are concrete, non-negative integers; a scalar has rank 0; a dimension may be 0. */
export interface TensorType {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

export type TypedArray =
  | Float64Array | Float32Array
  | BigInt64Array | Int32Array | Int16Array | Int8Array
  | BigUint64Array | Uint32Array | Uint16Array | Uint8Array;

/**
 * A tensor's elements in row-major order, one array element each. f16 and bf16 hold their bits in a Uint16Array; 8-bit floats and f4e2m1
 * hold theirs in a Uint8Array; i4, i2 (u4, u2) hold one value per Int8Array (Uint8Array) element; bool is a Uint8Array of 0 and 1.
 */
export interface Tensor extends TensorType {
  readonly data: TypedArray;
}

interface DTypeFacts {
  /** Bytes of one element in memory. Sub-byte types take a byte each. */
  readonly bytes: 1 | 2 | 4 | 8;
  readonly kind: 'float' | 'int' | 'uint' | 'bool';
  /** Value bits (int, uint) or storage bits (float). */
  readonly bits: number;
  readonly array: new (length: number) => TypedArray;
}

export const dtypes: Readonly<Record<DType, DTypeFacts>> = {
  f64: { bytes: 8, kind: 'float', bits: 64, array: Float64Array },
  f32: { bytes: 4, kind: 'float', bits: 32, array: Float32Array },
  f16: { bytes: 2, kind: 'float', bits: 16, array: Uint16Array },
  bf16: { bytes: 2, kind: 'float', bits: 16, array: Uint16Array },
  f8e4m3fn: { bytes: 1, kind: 'float', bits: 8, array: Uint8Array },
  f8e4m3fnuz: { bytes: 1, kind: 'float', bits: 8, array: Uint8Array },
  f8e5m2: { bytes: 1, kind: 'float', bits: 8, array: Uint8Array },
  f8e5m2fnuz: { bytes: 1, kind: 'float', bits: 8, array: Uint8Array },
  f8e8m0: { bytes: 1, kind: 'float', bits: 8, array: Uint8Array },
  f4e2m1: { bytes: 1, kind: 'float', bits: 4, array: Uint8Array },
  i64: { bytes: 8, kind: 'int', bits: 64, array: BigInt64Array },
  i32: { bytes: 4, kind: 'int', bits: 32, array: Int32Array },
  i16: { bytes: 2, kind: 'int', bits: 16, array: Int16Array },
  i8: { bytes: 1, kind: 'int', bits: 8, array: Int8Array },
  i4: { bytes: 1, kind: 'int', bits: 4, array: Int8Array },
  i2: { bytes: 1, kind: 'int', bits: 2, array: Int8Array },
  u64: { bytes: 8, kind: 'uint', bits: 64, array: BigUint64Array },
  u32: { bytes: 4, kind: 'uint', bits: 32, array: Uint32Array },
  u16: { bytes: 2, kind: 'uint', bits: 16, array: Uint16Array },
  u8: { bytes: 1, kind: 'uint', bits: 8, array: Uint8Array },
  u4: { bytes: 1, kind: 'uint', bits: 4, array: Uint8Array },
  u2: { bytes: 1, kind: 'uint', bits: 2, array: Uint8Array },
  bool: { bytes: 1, kind: 'bool', bits: 1, array: Uint8Array },
};

export const isFloat = (d: DType): boolean => dtypes[d].kind === 'float';
export const isInteger = (d: DType): boolean => dtypes[d].kind === 'int' || dtypes[d].kind === 'uint';
/** Number of elements of a shape (1 for a scalar). */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);
export const bytesOf = (t: TensorType): number => sizeOf(t.shape) * dtypes[t.dtype].bytes;
export const tensorType = (dtype: DType, shape: readonly number[]): TensorType => ({ dtype, shape: [...shape] });
export const sameShape = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((d, i) => d === b[i]);
export const sameType = (a: TensorType, b: TensorType): boolean => a.dtype === b.dtype && sameShape(a.shape, b.shape);
/** `f32[8,64,56,56]`; a scalar prints as `f32[]`. */
export const showType = (t: TensorType): string => `${t.dtype}[${t.shape.join(',')}]`;

/** Row-major strides in elements. */
export function rowMajor(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1]! * shape[i + 1]!;
  return strides;
}

/** The shape that numpy-style broadcasting of the operands gives, or undefined where they do not broadcast. */
export function broadcastShapes(shapes: readonly (readonly number[])[]): number[] | undefined {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  const out = new Array<number>(rank).fill(1);
  for (const s of shapes) {
    for (let i = 0; i < s.length; i++) {
      const at = rank - s.length + i;
      const d = s[i]!;
      if (d === 1) continue;
      if (out[at] === 1) out[at] = d;
      else if (out[at] !== d) return undefined;
    }
  }
  return out;
}
