/** How a training step is kept under a limit of memory. */
import { OverLimit, UserError } from '../../ir/diagnostic.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import { bytes as show } from '../print.ts';

/** What the arena of a step takes that computes so many samples at a time, or computes values of its forward pass again. */
export interface MemoryTrial {
  readonly samples: number;
  readonly bytes: number;
  /** What the backward pass computes again, beyond what every step does. */
  readonly recompute?: Recompute;
}

/** The plan that was chosen, and what the others would have taken. */
export interface MemoryFit extends MemoryTrial {
  readonly limit: number;
  readonly trials: readonly MemoryTrial[];
}

/** Levels of recomputation that save memory, the cheapest first. */
const levels: readonly Recompute[] = ['norms', 'blocks', 'all'];

/**
 * The most samples at a time, among the divisors of the batch, at which the arena stays under `limit` bytes. `bytesOf` plans a step and grows with its samples. Where it refuses parts of a batch (an op joins
 * samples), the whole batch is computed at once and its backward pass computes again as little of the forward pass as keeps the arena under the limit. Throws OverLimit where nothing does.
 */
export function fitMemory(limit: number, batch: number, bytesOf: (samples: number, recompute?: Recompute) => number): MemoryFit {
  const trials: MemoryTrial[] = [];
  const attempt = (samples: number, recompute?: Recompute): MemoryTrial => {
    const trial = { samples, bytes: bytesOf(samples, recompute), ...(recompute && { recompute }) };
    trials.push(trial);
    return trial;
  };
  const whole = attempt(batch);
  if (whole.bytes <= limit) return { ...whole, limit, trials };
  const divisors = Array.from({ length: batch }, (_, i) => i + 1).filter((d) => batch % d === 0 && d < batch);
  let best: MemoryTrial | undefined;
  let [low, high] = [0, divisors.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const trial = orRefusal(() => attempt(divisors[middle]!));
    if (trial instanceof UserError) return { ...recomputed(limit, whole, trial, (level) => attempt(batch, level)), limit, trials };
    if (trial.bytes <= limit) [best, low] = [trial, middle + 1];
    else high = middle - 1;
  }
  if (best) return { ...best, limit, trials };
  const least = leastOf(trials);
  throw new OverLimit(`the step does not fit: the whole batch of ${batch} takes ${show(whole.bytes)}, and ${least.samples === 1 ? 'one sample' : `${least.samples} samples`} at a time ${show(least.bytes)}, which is ${show(least.bytes - limit)} over the limit of ${show(limit)}. Raise the limit, or make the samples smaller`);
}

/** The first level of recomputation that fits; `why`: why a batch has no parts. */
function recomputed(limit: number, whole: MemoryTrial, why: UserError, attempt: (level: Recompute) => MemoryTrial): MemoryTrial {
  const tried: MemoryTrial[] = [];
  for (const level of levels) {
    const trial = attempt(level);
    if (trial.bytes <= limit) return trial;
    tried.push(trial);
  }
  const least = leastOf(tried);
  throw new OverLimit(`the step takes ${show(whole.bytes)} with all ${whole.samples} samples at once, ${show(whole.bytes - limit)} over the limit of ${show(limit)}, and cannot compute fewer at a time: ${why.message}. Where its backward pass computes again what it can of the forward pass, it takes ${show(least.bytes)}, ${show(least.bytes - limit)} over the limit`);
}

const leastOf = (trials: readonly MemoryTrial[]): MemoryTrial => trials.reduce((a, b) => (b.bytes < a.bytes ? b : a));

function orRefusal(run: () => MemoryTrial): MemoryTrial | UserError {
  try {
    return run();
  } catch (e) {
    if (e instanceof UserError) return e;
    throw e;
  }
}
