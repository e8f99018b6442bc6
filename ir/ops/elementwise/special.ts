/** Functions that JavaScript's Math lacks, to double precision. */

const terms = 80;
/** 1 / (2n + 1). */
const oddReciprocals = Float64Array.from({ length: terms }, (_, n) => 1 / (2 * n + 1));

/** The error function: Kummer's series of positive terms up to 3, a continued fraction of erfc beyond (DLMF 7.6.2, 7.9.1). */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (!(a < 6)) return x !== x ? x : Math.sign(x);
  const y = a < 3 ? erfSeries(a) : 1 - erfcFraction(a);
  return x < 0 ? -y : y;
}

/** 2/√π · e^(-x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!. */
function erfSeries(x: number): number {
  const q = 2 * x * x;
  let term = x;
  let sum = x;
  for (let n = 1; n < terms && term > sum * 1e-17; n++) {
    term *= q * oddReciprocals[n]!;
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** e^(-x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + …))). */
function erfcFraction(x: number): number {
  let tail = x;
  for (let n = 60; n > 0; n--) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * tail);
}

/** 1 / (1 + e^-x), without overflow or cancellation. */
export function sigmoid(x: number): number {
  if (x >= 0) return 1 / (1 + Math.exp(-x));
  const e = Math.exp(x);
  return e / (1 + e);
}

/** Rounds to the nearest integer, ties to even; keeps the sign of zero. */
export function roundHalfEven(x: number): number {
  const magnitude = Math.abs(x);
  if (!(magnitude < 2 ** 52)) return x;
  const r = magnitude + 2 ** 52 - 2 ** 52;
  return x < 0 || Object.is(x, -0) ? -r : r;
}

/** C's pow: JavaScript's gives NaN for 1^NaN and (±1)^±∞. */
export function pow(x: number, y: number): number {
  return x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : Math.pow(x, y);
}

/** x^y of 32-bit integers modulo 2^32; a negative exponent gives the quotient 1 / x^|y| truncated. */
export function intPow(x: number, y: number): number {
  if (y < 0) return x === 1 ? 1 : x === -1 ? 1 - 2 * Math.abs(y % 2) : 0;
  let result = 1;
  for (let base = x, n = y; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) result = Math.imul(result, base);
    base = Math.imul(base, base);
  }
  return result;
}

/** `intPow` of 64-bit integers, modulo 2^64. */
export function bigPow(x: bigint, y: bigint): bigint {
  if (y < 0n) return x === 1n ? 1n : x === -1n ? 1n - 2n * (-y % 2n) : 0n;
  let result = 1n;
  for (let base = x, n = y; n > 0n; n >>= 1n) {
    if (n & 1n) result = BigInt.asIntN(64, result * base);
    base = BigInt.asIntN(64, base * base);
  }
  return result;
}

/** Remainder with the sign of the divisor. */
export function floorMod(x: number, y: number): number {
  const r = x % y;
  if (r === 0) return y < 0 || Object.is(y, -0) ? -0 : r === r ? 0 : r;
  return r < 0 === y < 0 ? r : r + y;
}
