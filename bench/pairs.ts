/** Compares the times of several variants of a computation on a machine that others use too: by interleaved rounds, and by order statistics of their ratios. */
import { median } from '../cli/statistics.ts';
import { loadSession, type ArtifactObject, type InputValue, type Session, type StepTime } from '../runtime/index.ts';

export interface PairOptions {
  readonly threads: number;
  /** Timed rounds in all. */
  readonly pairs: number;
  /** Rounds between two openings of the sessions: where memory happens to lie moves a step by more than small costs do. */
  readonly pairsOfSession?: number;
  /** Rounds that are not timed after each opening. */
  readonly warmUp?: number;
}

/**
 * Times one run of each artifact a round, in milliseconds, by name. Sessions are opened anew every few rounds, in another order, and each round begins with another variant, so that no one
 * always follows the same.
 */
export async function interleaved(artifacts: ReadonlyMap<string, ArtifactObject>, inputs: Readonly<Record<string, InputValue>>, { threads, pairs, pairsOfSession = 5, warmUp = 6 }: PairOptions): Promise<Map<string, number[]>> {
  const names = [...artifacts.keys()];
  const times = new Map(names.map((name) => [name, [] as number[]]));
  const turned = (by: number): string[] => names.map((_, i) => names[(i + by) % names.length]!);
  for (let done = 0; done < pairs; done += pairsOfSession) {
    const sessions = new Map<string, Session>();
    for (const name of turned(done / pairsOfSession)) sessions.set(name, await loadSession(artifacts.get(name)!, { threads }));
    for (let round = 0; round < warmUp + Math.min(pairsOfSession, pairs - done); round++) {
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

/**
 * Milliseconds of each kind of kernel of profiling artifacts, by name: medians of runs that alternate, so that what else happens on the machine falls on all of them. Kernels of one name, size
 * and source count together.
 */
export async function profiled(artifacts: ReadonlyMap<string, ArtifactObject>, inputs: Readonly<Record<string, InputValue>>, threads: number, runs = 20, warmUp = 6): Promise<Map<string, Map<string, number>>> {
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
  return new Map([...samples].map(([name, all]) => {
    const kinds = new Map<string, number>();
    all[0]!.forEach((s, i) => {
      const key = `${s.name} ${s.flops} ${s.bytes} ${s.source.join()}`;
      kinds.set(key, (kinds.get(key) ?? 0) + median(all.map((t) => t[i]!.end - t[i]!.start)));
    });
    return [name, kinds];
  }));
}

/** The narrowest interval between order statistics, alike on both sides, that holds the median with a probability of at least 95 %. */
export function medianInterval(sorted: readonly number[]): [low: number, high: number] {
  const n = sorted.length;
  let choose = 1;
  let outside = 0;
  let k = 0;
  // outside: the probability that fewer than k + 1 of n values lie below the median.
  for (; k < n / 2; k++) {
    const next = outside + choose * 0.5 ** n;
    if (2 * next > 0.05) break;
    outside = next;
    choose = (choose * (n - k)) / (k + 1);
  }
  return [sorted[Math.max(0, k - 1)]!, sorted[Math.min(n - 1, n - k)]!];
}
