import { draws, purposes } from './random.ts';

/** The order of an epoch's samples: a permutation of 0 to count - 1 that depends on seed and epoch alone. */
export function shuffled(count: number, seed: number, epoch: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  const draw = draws(seed, purposes.shuffle, epoch, 0);
  for (let i = count - 1; i > 0; i--) {
    const j = draw.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
