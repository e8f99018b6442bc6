/** Runs the cases of the matrix, in this process or in several beside it. */
import { fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readTarget } from '../../cli/driver/target-file.ts';
import { goldenCases, modelCases, type NamedCase, type TileCase } from './case.ts';
import { runCase, type Outcome } from './run.ts';

/** Where the cases lie and what they are planned for. */
export interface Matrix { readonly goldens: string; readonly models: string; readonly target: string }

/** A case on so many tiles. */
export interface Unit { readonly name: string; readonly tiles: number }

/** The cases of both folders; none of a folder that is not there. */
export const casesOf = ({ goldens, models }: Matrix): NamedCase[] => [...(existsSync(goldens) ? goldenCases(goldens) : []), ...(existsSync(models) ? modelCases(models) : [])];

/** Runs units with the case that was read last at hand. */
export function runner(matrix: Matrix): (unit: Unit) => Promise<Outcome> {
  const cases = new Map(casesOf(matrix).map((c) => [c.name, c]));
  const target = readTarget(matrix.target);
  let last: { readonly name: string; readonly read: TileCase | Error } | undefined;
  return async ({ name, tiles }) => {
    if (last?.name !== name) last = { name, read: await cases.get(name)!.read().catch((e: unknown) => (e instanceof Error ? e : new Error(String(e)))) };
    return runCase(last.read, target, tiles);
  };
}

/** Runs units in order, `jobs` at a time; each is told to `done` when it is. */
export async function runUnits(matrix: Matrix, units: readonly Unit[], jobs: number, done: (unit: Unit, outcome: Outcome) => void): Promise<void> {
  if (jobs === 1) {
    const run = runner(matrix);
    for (const unit of units) done(unit, await run(unit));
    return;
  }
  // A mistake in the target is told once.
  readTarget(matrix.target);
  const waiting = [...units];
  await Promise.all(Array.from({ length: Math.min(jobs, units.length) }, () => new Promise<void>((resolve, reject) => {
    const child = fork(new URL('worker.ts', import.meta.url), [JSON.stringify(matrix)]);
    let unit: Unit | undefined;
    const next = (): void => {
      unit = waiting.shift();
      if (unit) child.send(unit);
      else child.disconnect();
    };
    child.on('message', (outcome) => {
      done(unit!, outcome as Outcome);
      next();
    });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${unit ? `${unit.name} on ${unit.tiles} tiles` : 'a job'} ended with exit code ${code}`))));
    next();
  })));
}
