/** Finds the fastest plan that fits: micro-batch, recomputation and the bound on temporaries together. */
import { recomputeLevels, type Recompute } from './recompute.ts';
import type { Setting, Trial, Trials } from './trials.ts';

/** What may be chosen. */
export interface Choices {
  /** Samples at a time, in ascending order. */
  readonly batches: readonly number[];
  /** Levels of recomputation, the least first. */
  readonly recompute: readonly Recompute[];
  /** Bound on the temporaries of an op, as a share of a tile. Where a plan does not fit, ops at its fullest steps have less anyhow. */
  readonly temporary: number;
}

/** Bytes of a tile that no plan gets below. */
export interface LeastBytes {
  readonly limit: number;
  /** State and constants. */
  readonly always: number;
  /** What is alive between two ops, for each sample. */
  perSample(recompute: Recompute): number;
}

/** Share of the limit that code is expected to take before a plan has shown how much it is, and how much of what one plan shows is expected in others. */
const [expectedCode, codeKept] = [0.3, 0.9];
/** Temporaries beside what is alive anyhow, as a guess. */
const withTemporaries = 1.3;
/** What less room for temporaries leaves of a peak, at best: of the ops at the fullest steps, and of all. */
const [peakKept, narrowKept] = [0.8, 0.6];

/**
 * Looks for the largest batch that fits with each level of recomputation, since of one level the largest batch is the fastest, and computing more again pays with a larger batch alone. What cannot fit
 * by what is alive between ops, or by far by what a plan of another batch takes, is not planned.
 */
export function fitPlan(trials: Trials, { batches, recompute, temporary }: Choices, least: LeastBytes): void {
  /** The largest batch that fits so far, by its place. */
  let low = -1;
  let code: number | undefined;
  for (const level of recompute) {
    const room = least.limit - least.always - (code ?? 0) * codeKept;
    const over = batches.findIndex((b) => b * least.perSample(level) > room);
    let high = over < 0 ? batches.length : over;
    let guess = batches.findLastIndex((b) => b * least.perSample(level) * withTemporaries <= room - (code === undefined ? expectedCode * least.limit : 0));
    while (low + 1 < high) {
      const at = Math.min(Math.max(guess, low + 1), high - 1);
      const t = trials.at({ batch: batches[at]!, recompute: level, temporary });
      code = t.memory.code;
      const { peak, limit, always } = t.memory;
      const more = (b: number): number => (b - t.batch) * least.perSample(level);
      if (t.fits) {
        low = at;
        const out = batches.findIndex((b, i) => i > at && peak * peakKept + more(b) > limit - always - code!);
        high = Math.min(high, out < 0 ? batches.length : out);
        guess = batches.findLastIndex((b) => peak + more(b) <= limit - always - code!);
      } else {
        high = at;
        guess = batches.findLastIndex((b) => peak * (b / t.batch) <= limit - always - code!);
      }
    }
  }
  // Where nothing fits there is still a smallest plan to report.
  if (trials.all.length === 0) trials.at({ batch: batches[0]!, recompute: recompute.at(-1)!, temporary });
}

/** Plans, where that does not fit but may with narrower temporaries with those. */
export function narrowing(trials: Trials, setting: Omit<Setting, 'temporary'>, temporary: readonly number[]): Trial {
  const [widest, ...narrower] = temporary;
  let t = trials.at({ ...setting, temporary: widest! });
  for (const share of narrower) {
    const { always, code, peak, limit } = t.memory;
    if (t.fits || always + code + peak * narrowKept > limit) break;
    const before = t;
    t = trials.at({ ...setting, temporary: share });
    // Of a single tile nothing is gathered that a bound could make smaller.
    if (t.memory.total === before.memory.total) break;
  }
  return t;
}

/** Shares of the bound on temporaries that are tried, where a plan does not fit and the user names none. */
export const narrowerShares: readonly number[] = [1, 1 / 2, 1 / 8, 1 / 64];

/** Levels of recomputation up to one that the user names; `auto` tries all. */
export const levelsOf = (asked: Recompute | 'auto'): readonly Recompute[] => (asked === 'auto' ? recomputeLevels : [asked]);
