/**
 * Compares the times of several variants of a computation on a machine that others use too. Where memory happens to lie moves a step by some percent, more than small costs do, so all variants
 * are entries of one module over one memory: what they share is the same code on the same addresses.
 */
import { emitWasm } from '../backends/wasm/module.ts';
import { makeManifest, weightsOf } from '../cli/driver/manifest.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { bestFeatures } from '../cli/model.ts';
import { median } from '../cli/statistics.ts';
import type { Graph } from '../ir/graph.ts';
import { planEntries } from '../passes/plan.ts';
import { openArtifact, type ArtifactObject } from '../runtime/artifact.ts';
import { chunkSource } from '../runtime/bytes.ts';
import { control } from '../runtime/control.ts';
import { draws, purposes } from '../runtime/data/random.ts';
import { inputBytes, type InputValue } from '../runtime/inputs.ts';
import type { EntryPoint, StateEntry } from '../runtime/manifest.ts';
import { safetensorsChunks } from '../runtime/safetensors.ts';
import { start } from '../runtime/start.ts';
import { bytesOf } from '../runtime/tensor.ts';
import { kindsOf } from './turns.ts';

/** Variants of a computation as the entries of one artifact, by name. */
export interface Variants {
  readonly names: readonly string[];
  readonly artifact: ArtifactObject;
}

/** One opening of variants: threads over a memory that lies somewhere. */
export interface Opening {
  /** Milliseconds of one run. */
  time(name: string): Promise<number>;
  /** Milliseconds of each kernel of the last run of an entry, in a profiling build. */
  kernels(name: string): Promise<number[]>;
  close(): Promise<void>;
}

/** Plans graphs after the passes over one memory, in which state and inputs of a name are one buffer, and emits them as one module. `profile`: notes the time of every step. */
export function compileVariants(graphs: ReadonlyMap<string, Graph>, profile = false): Variants {
  const program = planEntries([...graphs].map(([name, graph]) => ({ name, graph })), wasmTarget);
  const features = bestFeatures();
  const { binary, memoryFlag, steps, entrySteps, ...module } = emitWasm(program, features, { profile });
  // Nobody reads what the state is for.
  const roles = new Map(program.graph.state.map((s): [string, StateEntry['role']] => [s.name, 'parameter']));
  const facts = { ...module, steps, modules: [{ features, file: 'model.wasm', memoryFlag }], maxThreads: 64, training: { roles, entrySteps } };
  const manifest = makeManifest({ bound: {}, dims: {} }, program, facts, 'bench');
  return { names: [...graphs.keys()], artifact: { manifest, modules: { 'model.wasm': binary }, weights: chunkSource(safetensorsChunks(weightsOf(program)), 'weights.safetensors') } };
}

/** Opens variants over new memory, with inputs by name. */
export async function open({ names, artifact }: Variants, inputs: Readonly<Record<string, InputValue>>, threads: number): Promise<Opening> {
  const { manifest, executor } = await start(await openArtifact(artifact), { threads }, []);
  const entries = new Map(names.map((name, i) => [name, {
    at: manifest.entries![i]!,
    writes: [{ address: control.entry, bytes: bytesOf(Int32Array.of(i)) }, ...manifest.entries![i]!.inputs.map((io) => ({ address: io.address, bytes: inputBytes(io, inputs[io.name]!) }))],
  }]));
  return {
    async time(name) {
      const { writes } = entries.get(name)!;
      const begin = performance.now();
      await executor.run(writes, []);
      return performance.now() - begin;
    },
    async kernels(name) {
      const [first, end] = entries.get(name)!.at.steps;
      const [bytes] = await executor.read([{ address: manifest.profile + 16 * first, bytes: 16 * (end - first) }]);
      const times = new Float64Array(bytes!.buffer);
      return Array.from({ length: end - first }, (_, i) => times[2 * i + 1]! - times[2 * i]!);
    },
    close: () => executor.close(),
  };
}

export interface PairOptions {
  readonly threads: number;
  /** Rounds in all, each of which gives a pair of times for any two variants. */
  readonly pairs: number;
  /** Rounds between two openings, each of which finds another place in memory. */
  readonly pairsOfOpening?: number;
  /** Runs of each variant after an opening that are not counted. */
  readonly warmUp?: number;
  /** Runs of each variant in a round. */
  readonly runs?: number;
}

/**
 * Times all variants: of each round the milliseconds of a run of each, by name. A round is some cycles through the variants, each in another order, so that what drifts falls on all alike; a
 * variant's time is the median of its runs, since a run that another process interrupts is off by more than the costs in question.
 */
export async function rounds(variants: Variants, inputs: Readonly<Record<string, InputValue>>, { threads, pairs, pairsOfOpening = 10, warmUp = 5, runs = 5 }: PairOptions): Promise<Map<string, number[]>> {
  const results = new Map(variants.names.map((name) => [name, [] as number[]]));
  for (let done = 0; done < pairs; done += pairsOfOpening) {
    const opening = await open(variants, inputs, threads);
    for (let i = 0; i < warmUp; i++) for (const name of variants.names) await opening.time(name);
    for (let round = done; round < Math.min(pairs, done + pairsOfOpening); round++) {
      const times = new Map(variants.names.map((name) => [name, [] as number[]]));
      for (let run = 0; run < runs; run++) for (const name of shuffled(variants.names, round, run)) times.get(name)!.push(await opening.time(name));
      for (const [name, list] of times) results.get(name)!.push(median(list));
    }
    await opening.close();
  }
  return results;
}

/** Names in an order that follows from a round and a run. */
function shuffled(names: readonly string[], round: number, run: number): string[] {
  const random = draws(0, purposes.shuffle, round, run);
  return names.map((name) => ({ name, key: random.uniform() })).sort((a, b) => a.key - b.key).map((n) => n.name);
}

/**
 * Milliseconds of each kind of kernel of a profiling build's variants, by name: medians of runs that alternate, so that what else happens on the machine falls on all of them. Kernels of one
 * name, size and source count together.
 */
export async function profiled(variants: Variants, inputs: Readonly<Record<string, InputValue>>, threads: number, runs = 20, warmUp = 5): Promise<Map<string, Map<string, number>>> {
  const opening = await open(variants, inputs, threads);
  const samples = new Map(variants.names.map((name) => [name, [] as number[][]]));
  for (let i = 0; i < warmUp + runs; i++) {
    for (const [name, list] of samples) {
      await opening.time(name);
      if (i >= warmUp) list.push(await opening.kernels(name));
    }
  }
  await opening.close();
  const { steps, entries } = variants.artifact.manifest;
  return new Map([...samples].map(([name, all], k) => {
    const { steps: [first, end] }: EntryPoint = entries![k]!;
    return [name, kindsOf(steps.slice(first, end), all)];
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
