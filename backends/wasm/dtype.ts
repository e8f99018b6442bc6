/** How each dtype lies in memory and in which wasm type it is computed. */
import { dtypes, type DType } from '../../ir/type.ts';
import type { Asm, E, Ty } from './asm.ts';
import { decodeNarrow, encodeNarrow, isNarrow } from './narrow.ts';

/** The wasm type that holds an element: f64; f32 for all other floats; i64; i32 for all other integers (wrapped to their width) and bool (0 or 1). */
export function computeType(d: DType): 'f64' | 'f32' | 'i64' | 'i32' {
  if (d === 'f64') return 'f64';
  const facts = dtypes[d];
  if (facts.kind === 'float') return 'f32';
  return facts.bytes === 8 ? 'i64' : 'i32';
}

export const isUnsigned = (d: DType): boolean => dtypes[d].kind === 'uint' || d === 'bool';

/** Loads one element as its compute type. */
export function loadElement(asm: Asm, d: DType, ptr: E, offset = 0): E {
  const { m } = asm;
  const { bytes } = dtypes[d];
  if (isNarrow(d)) return decodeNarrow(asm, d, bytes === 2 ? m.i32.load16_u(offset, 2, ptr) : m.i32.load8_u(offset, 1, ptr));
  const type = computeType(d);
  if (type !== 'i32') return m[type].load(offset, bytes, ptr);
  if (bytes === 4) return m.i32.load(offset, 4, ptr);
  if (bytes === 2) return isUnsigned(d) ? m.i32.load16_u(offset, 2, ptr) : m.i32.load16_s(offset, 2, ptr);
  return isUnsigned(d) ? m.i32.load8_u(offset, 1, ptr) : m.i32.load8_s(offset, 1, ptr);
}

/** Stores one element given as its compute type; narrow floats are rounded. */
export function storeElement(asm: Asm, d: DType, ptr: E, value: E, offset = 0): E {
  const { m } = asm;
  const { bytes } = dtypes[d];
  const e = isNarrow(d) ? encodeNarrow(asm, d, m.f64.promote(value)) : value;
  const type: Ty = isNarrow(d) ? 'i32' : computeType(d);
  if (type !== 'i32') return m[type].store(offset, bytes, ptr, e);
  if (bytes === 4) return m.i32.store(offset, 4, ptr, e);
  return bytes === 2 ? m.i32.store16(offset, 2, ptr, e) : m.i32.store8(offset, 1, ptr, e);
}

/** Brings a computed value back into the range and precision of its dtype. */
export function normalize(asm: Asm, d: DType, e: E): E {
  const { m } = asm;
  if (isNarrow(d)) return decodeNarrow(asm, d, encodeNarrow(asm, d, m.f64.promote(e)));
  const { bits, kind } = dtypes[d];
  if (kind === 'float' || kind === 'bool' || bits >= 32) return e;
  if (kind === 'uint') return m.i32.and(e, m.i32.const(2 ** bits - 1));
  if (bits === 8) return m.i32.extend8_s(e);
  if (bits === 16) return m.i32.extend16_s(e);
  return m.i32.shr_s(m.i32.shl(e, m.i32.const(32 - bits)), m.i32.const(32 - bits));
}

/** A constant of a dtype, as its compute type. */
export function constantOf(asm: Asm, d: DType, x: number | bigint): E {
  const { m } = asm;
  switch (computeType(d)) {
    case 'f64': return m.f64.const(Number(x));
    case 'f32': return m.f32.const(Number(x));
    case 'i64': return m.i64.const(BigInt.asIntN(64, BigInt(x)));
    case 'i32': return m.i32.const(Number(x) | 0);
  }
}

/** Least and greatest value of a dtype, as infinities for floats that have them: the neutral elements of max and min. */
export function extremes(d: DType): { readonly least: number | bigint; readonly greatest: number | bigint } {
  const { kind, bits } = dtypes[d];
  if (kind === 'float') return { least: -Infinity, greatest: Infinity };
  if (kind === 'bool') return { least: 0, greatest: 1 };
  if (bits === 64) return kind === 'int' ? { least: -(1n << 63n), greatest: (1n << 63n) - 1n } : { least: 0n, greatest: (1n << 64n) - 1n };
  return kind === 'int' ? { least: -(2 ** (bits - 1)), greatest: 2 ** (bits - 1) - 1 } : { least: 0, greatest: 2 ** bits - 1 };
}
