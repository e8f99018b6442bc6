/** State that may be kept: what diverged must not take the place of what was good. */
import { RunError } from './error.ts';
import type { Tensor } from './tensor.ts';

/** An update made weights or moments that are not finite, though the loss of the step was. Nothing was written. */
export class NonFiniteState extends RunError {}

/** Throws NonFiniteState, by the name of the first tensor that holds NaN or +infinity. Negative infinity passes: masks are written so, and stay so. */
export function checkFinite(state: ReadonlyMap<string, Tensor>, target: string): void {
  for (const [name, tensor] of state) {
    const found = unfit(tensor);
    if (found) throw new NonFiniteState(`${target} is not written: ${JSON.stringify(name)} holds ${found}, which an update made; the learning rate may be too high`);
  }
}

function unfit({ dtype, data }: Tensor): string | undefined {
  if (data instanceof Float32Array || data instanceof Float64Array) {
    for (const x of data) if (!(x < Infinity)) return x === Infinity ? 'infinity' : 'NaN';
    return undefined;
  }
  // Halves lie as bits: all ones in the exponent, and for an infinity nothing behind them.
  const exponent = dtype === 'f16' ? 0x7c00 : dtype === 'bf16' ? 0x7f80 : undefined;
  if (exponent === undefined || !(data instanceof Uint16Array)) return undefined;
  for (const bits of data) if ((bits & exponent) === exponent && bits !== (exponent | 0x8000)) return bits === exponent ? 'infinity' : 'NaN';
  return undefined;
}
