/** Finds the fastest plan that fits: micro-batch, recomputation and the bound on temporaries together. */
import { cyclesOf } from './report.ts';
import { recomputeLevels, type Recompute } from './recompute.ts';
import type { Planned } from './plan.ts';

/** One way of planning, and what came of it. */
export interface Trial {
  readonly batch: number;
  readonly recompute: Recompute;
  /** Share of a tile for the temporaries of one op. */
  readonly temporary: number;
  readonly planned: Planned;
  /** Cycles of a run divided by its samples. */
  readonly cyclesPerSample: number;
}

export interface Levers {
  /** Samples at a time, in ascending order. */
  readonly batches: readonly number[];
  readonly recompute: readonly Recompute[];
  readonly temporary: readonly number[];
}

export type PlanAt = (batch: number, recompute: Recompute, temporary: number) => Planned;

/** Every trial that was made, and the fastest that fits, if any does. */
export interface Fit { readonly trials: readonly Trial[]; readonly best: Trial | undefined }

/**
 * For each batch the least recomputation that fits is looked for, first with the widest bound on temporaries, then with narrower ones. Larger batches than the largest that fits anyhow are not tried.
 */
export function fitPlan(planAt: PlanAt, levers: Levers, onTrial?: (t: Trial) => void): Fit {
  const trials: Trial[] = [];
  const attempt = (batch: number, recompute: Recompute, temporary: number): Trial => {
    const planned = planAt(batch, recompute, temporary);
    const c = cyclesOf(planned.plan.steps);
    const trial: Trial = { batch, recompute, temporary, planned, cyclesPerSample: (c.compute + c.exchange + c.sync) / planned.plan.samples };
    trials.push(trial);
    onTrial?.(trial);
    return trial;
  };
  let from = 0;
  for (const batch of levers.batches) {
    let fitted = false;
    // What did not fit a smaller batch will not fit this one.
    for (let level = from; level < levers.recompute.length && !fitted; level++) {
      for (const temporary of levers.temporary) {
        const t = attempt(batch, levers.recompute[level]!, temporary);
        if (t.planned.fits) {
          fitted = true;
          from = level;
          break;
        }
        // Narrower temporaries cannot help where what is kept is too much by itself.
        const { always, code, peak, limit } = t.planned.plan.memory;
        if (always + code + peak * keptShare > limit) break;
      }
    }
    if (!fitted) break;
  }
  const fitting = trials.filter((t) => t.planned.fits);
  return { trials, best: fitting.length === 0 ? undefined : fitting.reduce((a, b) => (b.cyclesPerSample < a.cyclesPerSample ? b : a)) };
}

/** Share of the peak that narrower temporaries leave, at best. */
const keptShare = 0.6;

/** Levels of recomputation up to one that the user names; `auto` tries all. */
export const levelsOf = (asked: Recompute | 'auto'): readonly Recompute[] => (asked === 'auto' ? recomputeLevels : [asked]);
