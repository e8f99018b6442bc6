/** A fixed sample of inputs, and a comparison of results: decides at load whether an experimental module computes the right numbers. */
import type { IoEntry } from './manifest.ts';
import { bytesOf, dtypeFacts, elementCount, tensorOver } from './tensor.ts';
import { inputBytes } from './inputs.ts';
import type { Patch } from './worker.ts';

/** Pseudo-random inputs: floats in [-1, 1), integers and bools 0 or 1, which are valid as indices and harmless as trip counts. */
export function sampleInputs(inputs: readonly IoEntry[]): Patch[] {
  let seed = 1;
  const next = (): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  return inputs.map((i) => {
    const count = elementCount(i.shape);
    const floats = i.dtype === 'f32' || i.dtype === 'f64' || i.dtype === 'f16' || i.dtype === 'bf16';
    if (floats) return { address: i.address, bytes: inputBytes(i, Array.from({ length: count }, () => next() * 2 - 1)) };
    const data = new dtypeFacts[i.dtype].array(count);
    const one = data instanceof BigInt64Array || data instanceof BigUint64Array ? 1n : 1;
    for (let k = 0; k < count; k++) if (next() >= 0.5) data[k] = one;
    return { address: i.address, bytes: bytesOf(data) };
  });
}

/** Largest difference of two sets of results relative to the largest magnitude of each output; Infinity where one is NaN and the other not. */
export function worstDifference(outputs: readonly IoEntry[], a: readonly Uint8Array<ArrayBuffer>[], b: readonly Uint8Array<ArrayBuffer>[]): number {
  let worst = 0;
  for (const [i, output] of outputs.entries()) {
    if (output.dtype !== 'f32' && output.dtype !== 'f64') continue;
    const x = tensorOver(output, a[i]!).data as Float32Array;
    const y = tensorOver(output, b[i]!).data as Float32Array;
    const scale = x.reduce((m, v) => (Number.isFinite(v) ? Math.max(m, Math.abs(v)) : m), 0) || 1;
    for (let k = 0; k < x.length; k++) {
      if (Object.is(x[k], y[k])) continue;
      const d = Math.abs(x[k]! - y[k]!) / scale;
      worst = Math.max(worst, Number.isNaN(d) ? Infinity : d);
    }
  }
  return worst;
}
