/** Philox 4x32-10 on bigints, written from the paper's equations: what random ops are checked against. */

const word = (x: bigint): bigint => x & 0xffffffffn;

/** Four words for a counter of four words and a key of two. */
export function philoxWords(counter: readonly bigint[], key: readonly bigint[]): bigint[] {
  let [r0, l0, r1, l1] = counter as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * r0;
    const p1 = 0xcd9e8d57n * r1;
    [r0, l0, r1, l1] = [(p1 >> 32n) ^ l0 ^ k0, word(p1), (p0 >> 32n) ^ l1 ^ k1, word(p0)];
    k0 = word(k0 + 0x9e3779b9n);
    k1 = word(k1 + 0xbb67ae85n);
  }
  return [r0, l0, r1, l1];
}

/** Element e of randomUniform in f32. */
export function uniformElement(seed: bigint, stream: number, e: number): number {
  const key = BigInt.asUintN(64, seed);
  const words = philoxWords([BigInt(Math.floor(e / 4)), 0n, BigInt(stream), 0n], [word(key), key >> 32n]);
  return Number(words[e % 4]! >> 8n) / 2 ** 24;
}

/** Element e of randomNormal. */
export function normalElement(seed: bigint, stream: number, e: number): number {
  const key = BigInt.asUintN(64, seed);
  const words = philoxWords([BigInt(Math.floor(e / 2)), 0n, BigInt(stream), 0n], [word(key), key >> 32n]);
  const [a, b] = e % 2 === 0 ? words : words.slice(2);
  return Math.sqrt(-2 * Math.log((Number(a! >> 8n) + 1) / 2 ** 24)) * Math.cos((2 * Math.PI * Number(b! >> 8n)) / 2 ** 24);
}
