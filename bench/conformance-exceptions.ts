/** Tests judged by another rule than ONNX's own, each with its derivation. */
import type { Tensor } from '../ir/type.ts';
import { numbersOf, type Tolerance } from './judge.ts';

export interface Exception {
  readonly why: string;
  readonly tolerance?: Tolerance;
  /** Judges an output by what the op promises instead of by the recorded values; undefined where it holds, else what is wrong. Shape and dtype are judged before. */
  readonly check?: (got: Tensor, want: Tensor) => string | undefined;
}

const stream = 'the recorded output is one draw of numpy\'s generator; ONNX defines no generator, so only the values\' range and their mean are determined';

/** Every element is 0 or 1. */
const zeroOrOne = (got: Tensor): string | undefined => (numbersOf(got).every((x) => x === 0 || x === 1) ? undefined : 'an element is neither 0 nor 1');

/** Dropout: masks are 0 or 1; survivors are x / (1 - ratio), so wherever both draws kept an element the values agree, and each draw drops and keeps some. */
function dropout(got: Tensor, want: Tensor): string | undefined {
  const g = numbersOf(got);
  const w = numbersOf(want);
  const kept = g.reduce((n, x) => n + (x !== 0 ? 1 : 0), 0);
  if (kept === 0 || kept === g.length) return `${kept} of ${g.length} elements are kept`;
  const wrong = g.findIndex((x, i) => x !== 0 && w[i] !== 0 && Math.abs(x - w[i]!) > 1e-7 + 1e-3 * Math.abs(w[i]!));
  return wrong < 0 ? undefined : `element ${wrong} is ${g[wrong]}, expected ${w[wrong]} or 0`;
}

// An inverse transform of length 10 in float32: sums of 10 products of magnitude up to 1 leave up to 10 · 2^-24 where the exact value is 0.
const dftNoise: Exception = { why: 'exact zeros are recorded with the rounding noise of a float32 transform of length 10', tolerance: { atol: 10 * 2 ** -24, rtol: 1e-3 } };

export const exceptions: Readonly<Record<string, Exception>> = {
  ...Object.fromEntries(['', '_double', '_double_expanded', '_expanded', '_seed', '_seed_expanded'].map((s) => [`test_bernoulli${s}`, { why: stream, check: zeroOrOne }])),
  ...Object.fromEntries(['', '_default', '_default_mask', '_mask'].map((s) => [`test_training_dropout${s}`, { why: stream, check: dropout }])),
  test_dft_inverse: dftNoise,
  test_dft_inverse_opset19: dftNoise,
};
