/** The levers of a plan that tilewright plan measures, each by a plan with it and one without. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { parseNorm } from '../../passes/norm/options.ts';
import { leversOf, type Lever, type LeverChoices } from '../../passes/tile/levers.ts';
import { recomputeLevels, type Recompute } from '../../passes/tile/recompute.ts';
import type { Trial } from '../../passes/tile/trials.ts';
import { note } from '../print.ts';
import type { Wanted } from './build.ts';
import { joinOf } from './proof.ts';
import type { Planner } from './search.ts';

/** What was planned, and what may be planned beside it. */
export interface Measure {
  readonly planner: Planner;
  readonly trial: Trial;
  readonly wanted: Omit<Wanted, 'batch'>;
  /** The level of recomputation from which on levers are measured. */
  readonly recompute: Recompute;
  /** Samples at a time that would be fewer than the plan's, if any are. */
  readonly smaller: number | undefined;
  /** Whether runs of fewer add up to the same step. */
  readonly addsUp: boolean;
  /** Whether samples are known not to influence each other. */
  readonly proved: boolean;
  /** A planner of another form of the model. */
  plannerOf(wanted: Omit<Wanted, 'batch'>): Planner;
}

/** Rewrites of batch norms that are offered: the first whose groups divide the channels is measured. */
const offered = ['group:32', 'group:4', 'layer'];
const addedUp = ' and gradients of several added up';

/**
 * Levels of recomputation, regions in parts, narrower temporaries, fewer samples at a time, those that take the fewest cycles first; what stands in the way of one of them is a note. Where an op joins
 * samples, fewer at a time go with a rewrite of norms, which is measured too.
 */
export function measured({ planner, trial, wanted, recompute, smaller, addsUp, proved, plannerOf }: Measure): readonly Lever[] {
  const tried = planner.trials.all.filter((t) => t.regions && t.batch === trial.batch);
  const choices: LeverChoices = {
    recompute: wanted.train ? recomputeLevels.slice(recomputeLevels.indexOf(recompute)) : [], temporary: planner.shares[0]! / 2,
    ...(tried.length > 0 && { inParts: tried.reduce((a, b) => (b.memory.total < a.memory.total ? b : a)) }),
  };
  const join = wanted.train && !proved && smaller !== undefined ? joinOf(wanted) : undefined;
  if (smaller === undefined) return leversOf(planner.trials, trial, choices);
  if (join !== undefined) {
    const rewrites = rewritten(trial, wanted, smaller, addsUp, plannerOf);
    note(`micro-batches would change the result of this model: ${join}. A batch-independent rewrite (--norm group:32 or --norm group:4+proxy) makes them a lever${rewrites.length > 0 ? ', listed with what it saves' : ''}`);
    return [...leversOf(planner.trials, trial, choices), ...rewrites].sort((a, b) => a.cycles - b.cycles);
  }
  try {
    return leversOf(planner.trials, trial, { ...choices, smaller, ...(addsUp && { accumulated: addedUp }) });
  } catch (e) {
    if (!(e instanceof Unsupported)) throw e;
    note(`micro-batches are no lever here: ${e.message}`);
    return leversOf(planner.trials, trial, choices);
  }
}

/** What a batch-independent form of the model saves, over as many samples and over fewer; nothing where none is independent. */
function rewritten(trial: Trial, wanted: Omit<Wanted, 'batch'>, smaller: number, addsUp: boolean, plannerOf: Measure['plannerOf']): Lever[] {
  const name = offered.find((text) => isIndependent({ ...wanted, norm: parseNorm(text) }));
  if (name === undefined) return [];
  const { trials } = plannerOf({ ...wanted, norm: parseNorm(name) });
  return [trial.batch, smaller].flatMap((batch) => {
    const own = orRefused(() => trials.at({ batch, recompute: trial.recompute, temporary: trial.temporary }));
    const what = `--norm ${name}${batch === trial.batch ? '' : `, micro-batches of ${batch}${addsUp ? addedUp : ''}`}`;
    return own ? [{ what, against: batch === trial.batch ? 'the model’s norms' : `these, ${trial.batch}`, bytes: trial.memory.total - own.memory.total, cycles: own.cyclesPerSample - trial.cyclesPerSample, fits: own.fits, taken: false }] : [];
  });
}

/** Whether a model can be rewritten so, and no sample influences another then. */
const isIndependent = (wanted: Omit<Wanted, 'batch'>): boolean => orRefused(() => joinOf(wanted) ?? 'independent') === 'independent';

function orRefused<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (e) {
    if (e instanceof UserError) return undefined;
    throw e;
  }
}
