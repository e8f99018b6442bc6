/** Made-up numbers that follow from a seed, for inputs on which programs are tried. Draws that a trained model depends on come from Philox (ops/sequence, runtime/data). */

/** Uniform numbers in [0, 1): mulberry32, with 32 bits of state. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t ^= t + Math.imul(t ^ (t >>> 7), 61 | t);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
