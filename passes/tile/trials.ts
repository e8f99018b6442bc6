/** Ways of planning one model, each planned once: their bytes and cycles are kept, and the plans of the best. */
import type { RegionInParts, TileMemory } from '../../ir/tiles.ts';
import type { AccumulatedPlan, Planned } from './plan.ts';
import type { Recompute } from './recompute.ts';
import { totalCycles } from './report.ts';

/** One way of planning. */
export interface Setting {
  /** Samples that are computed at a time. */
  readonly batch: number;
  readonly recompute: Recompute;
  /** Share of a tile for the temporaries of one op. */
  readonly temporary: number;
  /** Products may not run in serial parts. */
  readonly unserial?: true;
  /** Regions of the graph that are computed in parts. */
  readonly regions?: readonly RegionInParts[];
}

/** What came of a setting. */
export interface Trial extends Setting {
  readonly memory: TileMemory;
  readonly fits: boolean;
  /** Cycles of a run, its share of an update included, divided by its samples. */
  readonly cyclesPerSample: number;
  /** What less room for temporaries at the fullest steps saved, and took. */
  readonly tightened: Planned['tightened'];
  /** Ops in serial parts. */
  readonly serial: number;
}

export type PlanAt = (s: Setting) => Planned | AccumulatedPlan;

/** Cycles of a run, and the share of the update that several runs have together, divided by its samples. */
export function cyclesPerSample(p: Planned | AccumulatedPlan): number {
  return (totalCycles(p.plan) + ('update' in p ? totalCycles(p.update.plan) / p.update.runs : 0)) / p.plan.samples;
}

/** Plans settings, each once, and holds on to two plans: the fastest that fits, and the smallest. */
export class Trials {
  readonly #planAt: PlanAt;
  readonly #onTrial: (t: Trial) => void;
  readonly #known = new Map<string, Trial>();
  #best: { trial: Trial; planned: Planned | AccumulatedPlan } | undefined;
  #smallest: { trial: Trial; planned: Planned | AccumulatedPlan } | undefined;

  constructor(planAt: PlanAt, onTrial: (t: Trial) => void = () => {}) {
    this.#planAt = planAt;
    this.#onTrial = onTrial;
  }

  at(s: Setting): Trial {
    const key = JSON.stringify([s.batch, s.recompute, s.temporary, s.unserial, s.regions]);
    const known = this.#known.get(key);
    if (known) return known;
    const planned = this.#planAt(s);
    const { plan, fits, tightened } = planned;
    const trial: Trial = { ...s, memory: plan.memory, fits, cyclesPerSample: cyclesPerSample(planned), tightened, serial: plan.steps.filter((x) => x.kind === 'repeat').length };
    this.#known.set(key, trial);
    if (fits && (!this.#best || trial.cyclesPerSample < this.#best.trial.cyclesPerSample)) this.#best = { trial, planned };
    if (!this.#smallest || trial.memory.total < this.#smallest.trial.memory.total) this.#smallest = { trial, planned };
    this.#onTrial(trial);
    return trial;
  }

  /** All trials in the order in which they were made. */
  get all(): readonly Trial[] {
    return [...this.#known.values()];
  }

  /** The fastest plan that fits, if any does. */
  get best(): { readonly trial: Trial; readonly planned: Planned | AccumulatedPlan } | undefined {
    return this.#best;
  }

  /** The plan that takes the fewest bytes. */
  get smallest(): { readonly trial: Trial; readonly planned: Planned | AccumulatedPlan } | undefined {
    return this.#smallest;
  }
}
