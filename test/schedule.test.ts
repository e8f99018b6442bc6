import { describe, expect, it } from 'vitest';
import { constantSchedule, cosineSchedule, exponentialSchedule, stepSchedule, withWarmup, type Schedule } from '../runtime/schedule.ts';

const cases: readonly [string, Schedule, readonly (readonly [step: number, factor: number])[]][] = [
  ['constant', constantSchedule, [[0, 1], [1e6, 1]]],
  ['step', stepSchedule(30, 0.1), [[0, 1], [29, 1], [30, 0.1], [59, 0.1], [60, 0.01]]],
  ['exponential', exponentialSchedule(0.5), [[0, 1], [1, 0.5], [3, 0.125]]],
  ['cosine', cosineSchedule(100), [[0, 1], [25, (1 + Math.SQRT1_2) / 2], [50, 0.5], [100, 0], [200, 0]]],
  ['cosine to a floor', cosineSchedule(100, 0.2), [[0, 1], [50, 0.6], [100, 0.2]]],
  ['warm-up, then cosine', withWarmup(4, cosineSchedule(100)), [[0, 0.25], [1, 0.5], [3, 1], [4, 1], [54, 0.5], [104, 0]]],
];

describe('schedules of the learning rate', () => {
  it.each(cases)('%s', (_name, schedule, points) => points.forEach(([step, factor]) => expect(schedule(step), `step ${step}`).toBeCloseTo(factor, 12)));
  it('refuse periods of no steps', () => expect(() => cosineSchedule(0)).toThrow(/steps is 0, expected a positive number/));
});
