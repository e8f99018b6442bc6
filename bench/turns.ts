/** Times artifacts that take turns in one process, for variants that cannot be entries of one module (bench/pairs.ts): kernels that are cut in other ways, or compiled by another version. */
import { median } from '../cli/statistics.ts';
import { loadSession, type ArtifactObject, type InputValue, type Session, type StepTime } from '../runtime/index.ts';
import type { Manifest } from '../runtime/manifest.ts';

export interface TurnOptions {
  readonly threads: number;
  /** Timed rounds in all. */
  readonly rounds: number;
  /** Rounds between two openings of the sessions: where memory happens to lie moves a run by more than small costs do. */
  readonly roundsOfSession?: number;
  /** Rounds that are not timed after each opening. */
  readonly warmUp?: number;
}

/**
 * Times one run of each artifact a round, in milliseconds, by name. Sessions are opened anew every few rounds, in another order, and each round begins with another artifact, so that no one always follows
 * the same.
 */
export async function timedInTurns(artifacts: ReadonlyMap<string, ArtifactObject>, inputs: Readonly<Record<string, InputValue>>, { threads, rounds, roundsOfSession = 5, warmUp = 4 }: TurnOptions): Promise<Map<string, number[]>> {
  const names = [...artifacts.keys()];
  const times = new Map(names.map((name) => [name, [] as number[]]));
  const turned = (by: number): string[] => names.map((_, i) => names[(i + by) % names.length]!);
  for (let done = 0; done < rounds; done += roundsOfSession) {
    const sessions = new Map<string, Session>();
    for (const name of turned(done / roundsOfSession)) sessions.set(name, await loadSession(artifacts.get(name)!, { threads }));
    for (let round = 0; round < warmUp + Math.min(roundsOfSession, rounds - done); round++) {
      for (const name of turned(round)) {
        const start = performance.now();
        await sessions.get(name)!.run(inputs);
        if (round >= warmUp) times.get(name)!.push(performance.now() - start);
      }
    }
    for (const session of sessions.values()) await session.close();
  }
  return times;
}

/** Milliseconds of each kind of kernel of profiling artifacts, by name: medians of runs in turns. Kernels of one name, size and source count together. */
export async function profiledInTurns(artifacts: ReadonlyMap<string, ArtifactObject>, inputs: Readonly<Record<string, InputValue>>, threads: number, runs = 20, warmUp = 5): Promise<Map<string, Map<string, number>>> {
  const sessions = new Map<string, Session>();
  for (const [name, artifact] of artifacts) sessions.set(name, await loadSession(artifact, { threads }));
  const samples = new Map([...artifacts.keys()].map((name) => [name, [] as (readonly StepTime[])[]]));
  for (let i = 0; i < warmUp + runs; i++) {
    for (const [name, session] of sessions) {
      await session.run(inputs);
      if (i >= warmUp) samples.get(name)!.push(session.profile()!.map((s) => ({ ...s })));
    }
  }
  for (const session of sessions.values()) await session.close();
  return new Map([...samples].map(([name, all]) => [name, kindsOf(all[0]!, all.map((run) => run.map((s) => s.end - s.start)))]));
}

/** The times of each kind of kernel, medians over runs: kernels of one name, size and source count together. `runs` has a time for each step. */
export function kindsOf(steps: Manifest['steps'], runs: readonly (readonly number[])[]): Map<string, number> {
  const kinds = new Map<string, number>();
  steps.forEach((s, i) => {
    const key = `${s.name} ${s.flops} ${s.bytes} ${s.source.join()}`;
    kinds.set(key, (kinds.get(key) ?? 0) + median(runs.map((times) => times[i]!)));
  });
  return kinds;
}
