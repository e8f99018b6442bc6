import { UserError } from '../../ir/diagnostic.ts';
import { constantSchedule, cosineSchedule, exponentialSchedule, stepSchedule, withWarmup, type Schedule } from '../../runtime/schedule.ts';

export type ScheduleName = 'constant' | 'step' | 'cosine' | 'exponential';
export const scheduleNames: readonly ScheduleName[] = ['constant', 'step', 'cosine', 'exponential'];

export interface ScheduleOptions {
  readonly schedule?: ScheduleName;
  /** Epochs in which the rate rises. */
  readonly warmup?: number;
  /** For `step`: epochs between falls. For `step` and `exponential`: what the rate is multiplied by at a fall, or in an epoch. */
  readonly every?: number;
  readonly factor?: number;
}

/** The schedule of a run, in steps, from options that count in epochs. */
export function scheduleOf(o: ScheduleOptions, epochs: number, stepsPerEpoch: number): Schedule {
  const name = o.schedule ?? 'constant';
  if (o.every !== undefined && name !== 'step') throw new UserError(`--schedule-every goes with --schedule step, not with ${name}`);
  if (o.factor !== undefined && name !== 'step' && name !== 'exponential') throw new UserError(`--schedule-factor goes with --schedule step and exponential, not with ${name}`);
  const warmup = Math.round((o.warmup ?? 0) * stepsPerEpoch);
  if (warmup >= epochs * stepsPerEpoch && warmup > 0) throw new UserError(`--warmup ${o.warmup} takes all of the ${epochs} epochs; give fewer`);
  const after = afterWarmup(name, o, epochs * stepsPerEpoch - warmup, stepsPerEpoch);
  return warmup > 0 ? withWarmup(warmup, after) : after;
}

function afterWarmup(name: ScheduleName, o: ScheduleOptions, steps: number, stepsPerEpoch: number): Schedule {
  switch (name) {
    case 'constant':
      return constantSchedule;
    case 'cosine':
      return cosineSchedule(steps);
    case 'step':
      return stepSchedule((o.every ?? 1) * stepsPerEpoch, o.factor);
    case 'exponential':
      return exponentialSchedule((o.factor ?? 0.9) ** (1 / stepsPerEpoch));
  }
}
