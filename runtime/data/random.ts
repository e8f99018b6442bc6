/** Counter-based random numbers: each is a function of a key and a counter, so nothing has to be remembered to draw it again. */

/** The 32 high bits of a product of two 32-bit numbers. */
function high(a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** The four words of Philox 4x32-10 (Salmon et al., SC 2011) for a counter of four words and a key of two. */
export function philox(counter: readonly [number, number, number, number], key: readonly [number, number]): [number, number, number, number] {
  let [a, b, c, d] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [high0, low0, high1, low1] = [high(0xd2511f53, a), Math.imul(0xd2511f53, a), high(0xcd9e8d57, c), Math.imul(0xcd9e8d57, c)];
    [a, b, c, d] = [(high1 ^ b ^ k0) >>> 0, low1 >>> 0, (high0 ^ d ^ k1) >>> 0, low0 >>> 0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [a, b, c, d];
}

/** What numbers are drawn for: draws for one purpose never repeat those for another. */
export const purposes = { shuffle: 1, crop: 2, flip: 3, mix: 4, head: 5 } as const;
export type Purpose = (typeof purposes)[keyof typeof purposes];

/** Numbers for one purpose, keyed by a seed (a whole number below 2^53), an epoch and the index of a sample. */
export interface Draws {
  /** The next number, evenly spread in [0, 1). */
  uniform(): number;
  /** The next whole number in [0, n). */
  below(n: number): number;
}

export function draws(seed: number, purpose: Purpose, epoch: number, index: number): Draws {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32)] as const;
  let block = 0;
  let words: readonly number[] = [];
  const word = (): number => {
    // The purpose shares a word with the count of blocks: there are far fewer than 2^24 of them.
    if (words.length === 0) words = philox([index >>> 0, epoch >>> 0, Math.floor(index / 2 ** 32), purpose * 2 ** 24 + block++], key);
    const [first, ...rest] = words;
    words = rest;
    return first!;
  };
  return {
    uniform: () => word() / 2 ** 32,
    below: (n) => Math.floor((word() / 2 ** 32) * n),
  };
}
