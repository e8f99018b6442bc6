/** How a training step is kept under a limit of memory. */
import { OverLimit, UserError } from '../../ir/diagnostic.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import { bytes as show } from '../print.ts';

/** A step that computes so many samples at a time, or computes values of its forward pass again. */
export interface MemoryTrial extends StepFacts {
  readonly samples: number;
  /** What the backward pass computes again, beyond what every step does. */
  readonly recompute?: Recompute;
}

/** Bytes of a step's arena, and the nanoseconds of one thread that it is estimated to take. */
export interface StepFacts { readonly bytes: number; readonly time: number }

/** The plan that was chosen, and what the others would have taken. */
export interface MemoryFit extends MemoryTrial {
  readonly limit: number;
  readonly trials: readonly MemoryTrial[];
}

/** Levels of recomputation that save memory, the cheapest first. */
const levels: readonly (Recompute | undefined)[] = [undefined, 'norms', 'blocks', 'all'];

/**
 * The fastest step, by its estimate, whose arena stays under `limit` bytes. Of each level of recomputation the most samples at a time that fit are looked for among the divisors of the batch, and of a further
 * level more than those alone, since it takes longer otherwise. `planAt` plans a step, whose bytes grow with its samples; where it refuses parts of a batch (an op joins samples), recomputation alone is left.
 * Throws OverLimit, with the fewest bytes of all that were planned, where nothing fits.
 */
export function fitMemory(limit: number, batch: number, planAt: (samples: number, recompute?: Recompute) => StepFacts): MemoryFit {
  const trials: MemoryTrial[] = [];
  const attempt = (samples: number, recompute: Recompute | undefined): MemoryTrial => {
    const trial = { samples, ...planAt(samples, recompute), ...(recompute && { recompute }) };
    trials.push(trial);
    return trial;
  };
  const whole = attempt(batch, undefined);
  if (whole.bytes <= limit) return { ...whole, limit, trials };
  let divisors = Array.from({ length: batch }, (_, i) => i + 1).filter((d) => batch % d === 0);
  let joined: UserError | undefined;
  // The place of the most samples that fit so far.
  let low = -1;
  for (const recompute of levels) {
    let high = recompute === undefined ? divisors.length - 1 : divisors.length;
    for (let last = trials.at(-1)!; low + 1 < high;) {
      // Bytes shrink by less than samples do, for some belong to no sample.
      const guess = divisors.findLastIndex((d) => d <= (last.samples * limit) / last.bytes);
      const at = Math.min(Math.max(guess, low + 1), high - 1);
      const trial = orRefusal(() => attempt(divisors[at]!, recompute));
      if (trial instanceof UserError) {
        [joined, divisors, high] = [trial, [batch], 0];
        continue;
      }
      if (trial.bytes <= limit) low = at;
      else high = at;
      last = trial;
    }
  }
  const fitting = trials.filter((t) => t.bytes <= limit);
  if (fitting.length > 0) return { ...fitting.reduce((a, b) => (b.time < a.time ? b : a)), limit, trials };
  throw new OverLimit(refusal(limit, whole, trials, joined));
}

/** What the smallest step takes; `joined`: why a batch has no parts. */
function refusal(limit: number, whole: MemoryTrial, trials: readonly MemoryTrial[], joined: UserError | undefined): string {
  const least = trials.reduce((a, b) => (b.bytes < a.bytes ? b : a));
  const over = (t: MemoryTrial): string => `${show(t.bytes)}, ${show(t.bytes - limit)} over the limit of ${show(limit)}`;
  const again = least.recompute === undefined ? '' : `, its backward pass computing ${recomputed[least.recompute]} again`;
  if (joined) return `the step takes ${show(whole.bytes)} with all ${whole.samples} samples at once, ${show(whole.bytes - limit)} over the limit of ${show(limit)}, and cannot compute fewer at a time: ${joined.message}. Least is what it takes${again || ' so'}: ${over(least)}`;
  return `the step does not fit: the whole batch of ${whole.samples} takes ${show(whole.bytes)}, and least is ${least.samples === 1 ? 'one sample' : `${least.samples} samples`} at a time${again}: ${over(least)}. Raise the limit, or make the samples smaller`;
}

/** What each level computes again, in words. */
export const recomputed: Readonly<Record<Recompute, string>> = { none: 'nothing', norms: 'norms and activations', blocks: 'all between residual additions', all: 'all between a few residual additions' };

function orRefusal(run: () => MemoryTrial): MemoryTrial | UserError {
  try {
    return run();
  } catch (e) {
    if (e instanceof UserError) return e;
    throw e;
  }
}
