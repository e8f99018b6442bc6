/** What each way of saving memory gives and takes, at one batch. */
import { regionsInParts } from './fit-parts.ts';
import type { Recompute } from './recompute.ts';
import type { Setting, Trial, Trials } from './trials.ts';

/** A way of saving memory: against what it is measured, the bytes of a tile that it saves and the cycles of a sample that it takes (negative: the other way round). */
export interface Lever {
  readonly what: string;
  readonly against: string;
  readonly bytes: number;
  readonly cycles: number;
  /** Whether the plan with it fits. */
  readonly fits: boolean;
  /** Whether the plan that is reported has it. */
  readonly taken: boolean;
}

/** What levers may be pulled besides those that every plan has. */
export interface LeverChoices {
  readonly recompute: readonly Recompute[];
  /** A narrower bound on temporaries, as a share of a tile. */
  readonly temporary?: number;
  /** The smallest plan with regions in parts, where such were tried and the plan that is reported has none. */
  readonly inParts?: Trial;
  /** Fewer samples at a time. */
  readonly smaller?: number;
  /** What goes with fewer samples: gradients of several runs add up. */
  readonly accumulated?: string;
}

/** The levers of a plan, those that take the fewest cycles first. */
export function leversOf(trials: Trials, chosen: Trial, choices: LeverChoices): Lever[] {
  const at = (change: Partial<Setting>): Trial => trials.at({ batch: chosen.batch, recompute: chosen.recompute, temporary: chosen.temporary, ...change });
  const compared = (what: string, against: string, own: Trial, other: Trial, taken: boolean): Lever => ({
    what, against, bytes: other.memory.total - own.memory.total, cycles: own.cyclesPerSample - other.cyclesPerSample, fits: own.fits, taken,
  });
  const levers: Lever[] = [];
  const [least, ...more] = choices.recompute;
  if (least !== undefined) {
    const base = at({ recompute: least });
    for (const recompute of more) levers.push(compared(`recompute ${recompute}`, `recompute ${least}`, at({ recompute }), base, recompute === chosen.recompute));
  }
  const own = chosen.regions && { regions: chosen.regions };
  const inParts = chosen.regions ? chosen : choices.inParts;
  if (inParts?.regions) levers.push(compared(regionsInParts(inParts.regions), 'none', inParts, trials.at({ batch: inParts.batch, recompute: inParts.recompute, temporary: inParts.temporary }), inParts === chosen));
  if (chosen.serial > 0) levers.push(compared(`serial parts of ${chosen.serial} ops`, 'none', chosen, at({ unserial: true, ...own }), true));
  if (chosen.tightened) levers.push({ what: `less room for temporaries of ${chosen.tightened.ops} ops at the fullest steps`, against: 'the same room for all', bytes: chosen.tightened.bytes, cycles: chosen.tightened.cycles / chosen.batch, fits: chosen.fits, taken: true });
  if (choices.temporary !== undefined && choices.temporary < chosen.temporary) levers.push(compared(`temporaries of an op up to ${choices.temporary} of a tile`, String(chosen.temporary), at({ temporary: choices.temporary, ...own }), chosen, false));
  if (choices.smaller !== undefined) levers.push(compared(`micro-batches of ${choices.smaller}${choices.accumulated ?? ''}`, String(chosen.batch), at({ batch: choices.smaller }), chosen, false));
  return levers.sort((a, b) => a.cycles - b.cycles);
}
