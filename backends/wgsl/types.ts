/** How element types look in shaders: in storage every element is a 32-bit word, or f16 where shaders have it, in registers it is one of four WGSL types. */
import { Unsupported } from '../../ir/diagnostic.ts';
import { dtypes, isFloat, type DType } from '../../ir/type.ts';

/** Types of expressions. */
export type Register = 'f32' | 'i32' | 'u32' | 'bool';
/** Element types of storage buffers. */
export type Word = 'f32' | 'f16' | 'i32' | 'u32';
export const bytesOfWord = (word: Word | 'atomic'): number => (word === 'f16' ? 2 : 4);

/** The register that holds a value of this dtype. i64 and u64 are held in 32 bits, where their values are proved to fit. f64 is refused. */
export function registerOf(dtype: DType): Register {
  if (dtype === 'f64') throw new Unsupported('f64 on WebGPU', 'WGSL has no 64-bit floats: compile the model for wasm, or cast it to float');
  const { kind } = dtypes[dtype];
  if (kind === 'bool') return 'bool';
  return kind === 'float' ? 'f32' : kind === 'int' ? 'i32' : 'u32';
}

/** What a storage buffer holds of this dtype: f32 and integers as they are, bool as 0 and 1, floats of 16 and 8 bits as their bits, but for f16 where shaders have it (`halves`). */
export function wordOf(dtype: DType, halves: boolean): Word {
  if (dtype === 'f16' && halves) return 'f16';
  const register = registerOf(dtype);
  if (register === 'bool') return 'u32';
  return register === 'f32' && dtype !== 'f32' ? 'u32' : register;
}

/** Whether a float has fewer bits than its register, so that results are rounded. */
export const isSmallFloat = (dtype: DType): boolean => isFloat(dtype) && dtype !== 'f32' && dtype !== 'f64';

/** Value bits of an integer that a register holds: 64-bit integers are proved to need no more than 32. */
export const integerBits = (dtype: DType): number => Math.min(32, dtypes[dtype].bits);
