/** A fixed sample of inputs, and a comparison of results: decides at load whether an experimental module computes the right numbers. */
import { tensorOf } from './inputs.ts';
import { dtypeFacts, elementCount, type Tensor, type TensorInfo } from './tensor.ts';

/** Pseudo-random tensors of the given types: floats in [-1, 1), integers and bools 0 or 1, which are valid as indices and harmless as trip counts. */
export function sampleTensors(types: readonly TensorInfo[]): Record<string, Tensor> {
  let seed = 1;
  const next = (): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  return Object.fromEntries(types.map((t) => {
    const count = elementCount(t.shape);
    const floats = t.dtype === 'f32' || t.dtype === 'f64' || t.dtype === 'f16' || t.dtype === 'bf16';
    if (floats) return [t.name, tensorOf(t, Array.from({ length: count }, () => next() * 2 - 1))];
    const data = new dtypeFacts[t.dtype].array(count);
    const one = data instanceof BigInt64Array || data instanceof BigUint64Array ? 1n : 1;
    for (let k = 0; k < count; k++) if (next() >= 0.5) data[k] = one;
    return [t.name, { dtype: t.dtype, shape: t.shape, data }];
  }));
}

/** Largest difference of two sets of float results relative to the largest magnitude of each; Infinity where one is NaN and the other not. */
export function worstDifference(a: readonly Tensor[], b: readonly Tensor[]): number {
  let worst = 0;
  for (const [i, { dtype, data }] of a.entries()) {
    if (dtype !== 'f32' && dtype !== 'f64') continue;
    const x = data as Float32Array;
    const y = b[i]!.data as Float32Array;
    const scale = x.reduce((m, v) => (Number.isFinite(v) ? Math.max(m, Math.abs(v)) : m), 0) || 1;
    for (let k = 0; k < x.length; k++) {
      if (Object.is(x[k], y[k])) continue;
      const d = Math.abs(x[k]! - y[k]!) / scale;
      worst = Math.max(worst, Number.isNaN(d) ? Infinity : d);
    }
  }
  return worst;
}
