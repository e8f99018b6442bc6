/** How a training step is kept under a limit of memory. */
import { OverLimit, UserError } from '../../ir/diagnostic.ts';
import { bytes as show } from '../print.ts';

/** What the arena of a step takes that computes so many samples at a time. */
export interface MemoryTrial {
  readonly samples: number;
  readonly bytes: number;
}

/** The plan that was chosen, and what the others would have taken. */
export interface MemoryFit extends MemoryTrial {
  readonly limit: number;
  readonly trials: readonly MemoryTrial[];
}

/**
 * The most samples at a time, among the divisors of the batch, at which the arena stays under `limit` bytes. `bytesOf` plans a step and grows with its samples; where it refuses parts of a
 * batch (an op joins samples), the refusal is reported with the limit. Throws OverLimit where even one sample at a time takes more.
 */
export function fitMemory(limit: number, batch: number, bytesOf: (samples: number) => number): MemoryFit {
  const trials: MemoryTrial[] = [];
  const attempt = (samples: number): MemoryTrial => {
    const trial = { samples, bytes: bytesOf(samples) };
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
    const trial = withLimit(limit, whole, () => attempt(divisors[middle]!));
    if (trial.bytes <= limit) [best, low] = [trial, middle + 1];
    else high = middle - 1;
  }
  if (best) return { ...best, limit, trials };
  const least = trials.reduce((a, b) => (b.bytes < a.bytes ? b : a));
  throw new OverLimit(`the step does not fit: the whole batch of ${batch} takes ${show(whole.bytes)}, and ${least.samples === 1 ? 'one sample' : `${least.samples} samples`} at a time ${show(least.bytes)}, which is ${show(least.bytes - limit)} over the limit of ${show(limit)}. Raise the limit, or make the samples smaller`);
}

function withLimit(limit: number, whole: MemoryTrial, run: () => MemoryTrial): MemoryTrial {
  try {
    return run();
  } catch (e) {
    if (!(e instanceof UserError)) throw e;
    throw new OverLimit(`the step takes ${show(whole.bytes)} with all ${whole.samples} samples at once, ${show(whole.bytes - limit)} over the limit of ${show(limit)}, and cannot compute fewer at a time: ${e.message}`);
  }
}
