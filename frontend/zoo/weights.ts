/** How weights start: every element is a function of (seed, name of the weight, index of the element), so that neither order nor size of other layers matters. */
import { philox } from '../../ir/ops/sequence/philox.ts';
import { sizeOf } from '../../ir/type.ts';
import type { PlainWeight } from '../onnx/write.ts';

/** Normal of a deviation, uniform in [-bound, bound), or the same number everywhere. */
export type Init = { readonly normal: number; readonly mean?: number } | { readonly uniform: number } | { readonly constant: number };

/** A weight of an architecture. */
export interface Weight extends PlainWeight {
  readonly init: Init;
  /** A running statistic: not trained, and not counted as a parameter. */
  readonly statistic: boolean;
}

/** He et al., arXiv 1502.01852: keeps the variance of activations before relu, forwards by the fan-in, backwards by the fan-out. */
export const heNormal = (fan: number): Init => ({ normal: Math.sqrt(2 / fan) });
/** Keeps the variance of linear layers (LeCun). */
export const unitNormal = (fanIn: number): Init => ({ normal: Math.sqrt(1 / fanIn) });

/** The elements that a weight starts with. */
export function initialValues({ name, shape, init }: Weight, seed: number): Float32Array {
  const out = new Float32Array(sizeOf(shape));
  if ('constant' in init) return out.fill(init.constant);
  const [low, high] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  const stream = hashOf(name);
  const words = new Uint32Array(4);
  for (let at = 0; at < out.length; at += 4) {
    philox(at / 4, 0, stream, 1, low, high, words);
    if ('uniform' in init) for (let k = 0; k < 4; k++) out[at + k] = (words[k]! / 2 ** 31 - 1) * init.uniform;
    else for (let k = 0; k < 4; k += 2) putNormals(out, at + k, words[k]!, words[k + 1]!, init);
  }
  return out;
}

/** Two normal numbers of two words (Box and Muller); what lies beyond the array is dropped. */
function putNormals(out: Float32Array, at: number, a: number, b: number, { normal, mean = 0 }: { readonly normal: number; readonly mean?: number }): void {
  const radius = normal * Math.sqrt(-2 * Math.log((a + 1) / 2 ** 32));
  const angle = (2 * Math.PI * b) / 2 ** 32;
  out[at] = mean + radius * Math.cos(angle);
  out[at + 1] = mean + radius * Math.sin(angle);
}

/** FNV-1a of a text, 32 bits. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const c of text) hash = Math.imul(hash ^ c.codePointAt(0)!, 0x01000193);
  return hash >>> 0;
}
