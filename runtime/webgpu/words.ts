/** Between tensors as the host holds them and the words of GPU memory. Nothing is computed: integers are widened and narrowed, floats travel as their bits. */
import { InputError } from '../error.ts';
import type { DTypeName, GpuProgram } from '../manifest.ts';
import { dtypeFacts } from '../tensor.ts';

/** Whether f16 is stored as such: in programs for devices with shader-f16. Manifests of early versions name no features. */
export const storesHalves = (program: Pick<GpuProgram, 'features'> | undefined): boolean => program?.features?.includes('shader-f16') ?? false;

/** Bytes of an element in GPU memory. `halves`: f16 is stored as such. */
export const wordBytes = (dtype: DTypeName, halves: boolean): number => (halves && dtype === 'f16' ? 2 : 4);

/** The words of some elements, given by their bytes; a whole number of 32 bits. A 64-bit integer outside `bounds` is an InputError that names the tensor. */
export function toWords(name: string, dtype: DTypeName, bytes: Uint8Array, bounds: readonly [number, number], halves: boolean): Uint8Array<ArrayBuffer> {
  const { array, bytes: width } = dtypeFacts[dtype];
  if (width === wordBytes(dtype, halves)) {
    const words = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
    words.set(bytes);
    return words;
  }
  const aligned = bytes.byteOffset % width === 0 ? bytes : bytes.slice();
  const values = new array(aligned.buffer as ArrayBuffer, aligned.byteOffset, bytes.byteLength / width);
  const words = new Int32Array(values.length);
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
    for (let i = 0; i < values.length; i++) {
      const x = Number(values[i]!);
      if (x < bounds[0] || x > bounds[1]) throw new InputError(`${JSON.stringify(name)} holds ${values[i]}, but this artifact for WebGPU takes ${dtype} values from ${bounds[0]} to ${bounds[1]}: WGSL has no 64-bit integers. Use an artifact that was compiled for wasm`);
      words[i] = x;
    }
  } else for (let i = 0; i < values.length; i++) words[i] = Number(values[i]!);
  return new Uint8Array(words.buffer);
}

/** Throws an InputError where an input of f32 that is cast to 64-bit integers holds numbers beyond `bounds`; NaN becomes 0 and is none. */
export function checkFloats(name: string, bytes: Uint8Array, [lo, hi]: readonly [number, number]): void {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const beyond = new Float32Array(aligned.buffer as ArrayBuffer, aligned.byteOffset, bytes.byteLength / 4).find((x) => x < lo || x > hi);
  if (beyond !== undefined) throw new InputError(`${JSON.stringify(name)} holds ${beyond}, but this artifact for WebGPU casts it to 64-bit integers and takes values from ${lo} to ${hi}: WGSL has no such integers. Use an artifact that was compiled for wasm`);
}

/** The bytes of the elements that words hold. */
export function fromWords(dtype: DTypeName, words: ArrayBuffer, halves: boolean): Uint8Array<ArrayBuffer> {
  const { array, bytes: width } = dtypeFacts[dtype];
  if (width === wordBytes(dtype, halves)) return new Uint8Array(words).slice();
  const values = dtype === 'u64' ? new Uint32Array(words) : new Int32Array(words);
  const out = new array(values.length);
  if (out instanceof BigInt64Array || out instanceof BigUint64Array) for (let i = 0; i < values.length; i++) out[i] = BigInt(values[i]!);
  else for (let i = 0; i < values.length; i++) out[i] = values[i]!;
  return new Uint8Array(out.buffer as ArrayBuffer);
}
