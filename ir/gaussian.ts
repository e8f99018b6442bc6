/** The standard normal distribution. */
import { erf } from './ops/elementwise/special.ts';

/** Its quantiles at (k + ½) / count, k from 0. */
export const normalQuantiles = (count: number): Float64Array => Float64Array.from({ length: count }, (_, k) => quantile((k + 0.5) / count));

/** Bisection: the distribution function is monotone, and 60 halvings of [-40, 40] reach the last bit that erf gives. */
function quantile(p: number): number {
  if (p > 0.5) return -quantile(1 - p);
  let [low, high] = [-40, 0];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (0.5 * (1 + erf(middle / Math.SQRT2)) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
