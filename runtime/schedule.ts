/** Learning rates over a training run, as plain functions of the step. */
import { InputError } from './error.ts';

/** The factor that the base learning rate is multiplied by at a step, counted from 0. Steps may be fractions. */
export type Schedule = (step: number) => number;

/** Always 1. */
export const constantSchedule: Schedule = () => 1;

/** Multiplies by `factor` every `every` steps. */
export function stepSchedule(every: number, factor = 0.1): Schedule {
  requirePositive('every', every);
  return (step) => factor ** Math.floor(step / every);
}

/** Multiplies by `factor` over each step. */
export const exponentialSchedule = (factor: number): Schedule => (step) => factor ** step;

/** Half a cosine from 1 to `floor` over `steps` steps, and `floor` after them (Loshchilov and Hutter, arXiv 1608.03983, without restarts). */
export function cosineSchedule(steps: number, floor = 0): Schedule {
  requirePositive('steps', steps);
  return (step) => floor + ((1 - floor) * (1 + Math.cos(Math.PI * Math.min(1, step / steps)))) / 2;
}

/** Rises linearly from 1 / steps to 1 in the first `steps` steps; `then` starts after them. */
export function withWarmup(steps: number, then: Schedule): Schedule {
  return (step) => (step < steps ? (step + 1) / steps : then(step - steps));
}

function requirePositive(name: string, x: number): void {
  if (!(x > 0)) throw new InputError(`a schedule's ${name} is ${x}, expected a positive number of steps`);
}
