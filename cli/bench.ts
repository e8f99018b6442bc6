/** tilewright bench: the time of a model, alone or beside other runtimes. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import { backendOption, f16Option, gpuLimitOption, gpuOf, limitsHere, refuseF16, refuseGpuLimit } from './backend.ts';
import type { Backend } from './driver/compile.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { version } from './driver/version.ts';
import { UserError } from '../ir/diagnostic.ts';
import { load, type Tensor } from '../runtime/index.ts';
import { sampleTensors, worstDifference } from '../runtime/selfcheck.ts';
import { readInputs, readTensors } from './inputs.ts';
import { bestFeatures, compileFor, isArtifact, modelInputs, readModelGraph } from './model.ts';
import { dimOption, inputOption, jsonOption, positive, positives, valueOption } from './options.ts';
import { openPeer, peerNames, type Contender, type PeerName } from './peers.ts';
import { bytes, ms, note, say, sayJson, table } from './print.ts';
import { median } from './statistics.ts';

interface Options {
  readonly threads: number[];
  readonly backend: Backend;
  readonly gpuLimit?: GpuLimits;
  readonly f16?: boolean;
  readonly against?: PeerName[];
  readonly runs: number;
  readonly input?: Record<string, string>;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly wide?: boolean;
  readonly sync?: boolean;
  readonly json?: boolean;
}

/** One runtime on one number of threads. Times in milliseconds. */
interface Result {
  readonly runtime: string;
  readonly version: string;
  readonly threads: number;
  /** The adapter, where a GPU ran; threads are the other runtimes' then. */
  readonly gpu?: string;
  /** Median over the measured runs, and the fastest of them. */
  readonly median: number;
  readonly fastest: number;
  /** From opening the file to the first result. */
  readonly firstResult: number;
  /** The runtime's median over ours. */
  readonly ratio: number;
  /** Largest difference to our outputs, relative to the largest magnitude. */
  readonly difference: number;
}

/** Adds the command. */
export function benchCommand(program: Command): void {
  program
    .command('bench')
    .description('measure a model, interleaved with other runtimes, and compare outputs')
    .argument('<model>', 'an .onnx file')
    .option('--threads <list>', 'numbers of threads', positives, [1])
    .addOption(backendOption())
    .addOption(gpuLimitOption())
    .addOption(f16Option())
    .addOption(new Option('--against <list>', `runtimes to compare with: ${peerNames.join(', ')}`).argParser(peerList))
    .option('--runs <n>', 'measured runs of each', positive, 20)
    .addOption(inputOption('numbers', 'pseudo-random numbers otherwise'))
    .addOption(dimOption())
    .addOption(valueOption())
    .option('--wide', 'use 256-bit vectors where V8 has them (experimental)')
    .option('--sync', 'run Tilewright on the calling thread, which then waits, as it does for onnxruntime-web')
    .addOption(jsonOption())
    .action(run);
}

function peerList(text: string): PeerName[] {
  return text.split(',').map((name) => {
    const known = peerNames.find((p) => p === name.trim());
    if (!known) throw new UserError(`--against ${name}: unknown runtime; known are ${peerNames.join(', ')}`);
    return known;
  });
}

async function run(model: string, options: Options): Promise<void> {
  if (isArtifact(model)) throw new UserError('bench needs the .onnx model, so that other runtimes can run it too');
  refuseF16(options);
  refuseGpuLimit(options);
  const machine = { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: availableParallelism(), memory: totalmem(), node: process.version, v8: process.versions.v8 };
  // onnxruntime-web fixes its threads when it starts, so each number of threads has a process of its own.
  const results = options.threads.length === 1 ? await measure(model, options, options.threads[0]!) : options.threads.flatMap(inOwnProcess);
  if (options.json) {
    sayJson({ model, machine, runs: options.runs, results });
    return;
  }
  say(`${model} on ${machine.cpu}, ${machine.cores} cores, ${bytes(machine.memory)}, Node ${machine.node}; median of ${options.runs} interleaved runs`);
  const rows = results.map((r) => [r.runtime, r.version, r.gpu === undefined ? String(r.threads) : 'GPU', ms(r.median), ms(r.fastest), `${r.ratio.toFixed(2)}x`, ms(r.firstResult), r.difference.toExponential(1)]);
  for (const line of table(['runtime', 'version', 'threads', 'median', 'fastest', 'ratio', 'first result', 'difference'], rows, [2, 3, 4, 5, 6, 7])) say(line);
}

function inOwnProcess(threads: number): Result[] {
  const args: string[] = [];
  const given = process.argv.slice(1);
  for (let i = 0; i < given.length; i++) {
    if (given[i] === '--threads') i++;
    else if (!given[i]!.startsWith('--threads=') && given[i] !== '--json') args.push(given[i]!);
  }
  note(`${threads} ${threads === 1 ? 'thread' : 'threads'} …`);
  const text = execFileSync(process.execPath, [...process.execArgv, ...args, '--threads', String(threads), '--json'], { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'inherit'] });
  return (JSON.parse(text) as { results: Result[] }).results;
}

async function measure(model: string, options: Options, threads: number): Promise<Result[]> {
  const images = { size: undefined, layout: undefined, scale: undefined, mean: [], std: [], gray: false };
  const given = await readInputs(options.input ?? {}, modelInputs(readModelGraph(model)), images);
  const values = readTensors(options.value ?? {});
  const limits = await limitsHere(options);
  const artifact = await compileFor(model, { ...(options.dim && { dims: options.dim }), values, backend: options.backend, ...limits, ...(options.f16 && { f16: true }), features: options.wide ? ['wide', bestFeatures()] : [bestFeatures()] }, given);
  // Bound inputs are no inputs of the artifact, but other runtimes want them.
  const inputs = { ...sampleTensors(artifact.manifest.inputs), ...given, ...values };
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-bench-'));
  const contenders: (Contender & { readonly gpu?: string; readonly firstResult: number; readonly outputs: Record<string, Tensor> })[] = [];
  const start = async (open: () => Promise<Contender & { readonly gpu?: string }>): Promise<void> => {
    const begun = performance.now();
    const contender = await open();
    const outputs = await contender.run(inputs);
    contenders.push({ ...contender, firstResult: performance.now() - begun, outputs });
  };
  try {
    await artifact.save(join(folder, 'model'));
    for (const peer of options.against ?? []) await start(() => openPeer(peer, model, threads));
    // Ours comes last: --wide changes a flag of V8 for modules that are compiled after it.
    await start(async () => {
      const session = await load(join(folder, 'model'), { threads, wide: options.wide ?? false, sync: options.sync ?? false });
      for (const notice of session.notices) note(notice);
      return { name: ourName(session.features, options.f16 === true), version: version(), ...gpuOf(session), run: (x) => session.run(x), close: () => session.close() };
    });
    const times = await interleave(contenders.map((c) => () => c.run(inputs)), options.runs);
    const last = contenders.length - 1;
    const outputNames = artifact.manifest.outputs.map((o) => o.name);
    const listed = contenders.map((c, i): Result => ({
      runtime: c.name, version: c.version, threads, ...(c.gpu !== undefined && { gpu: c.gpu }),
      median: median(times[i]!), fastest: Math.min(...times[i]!), firstResult: c.firstResult, ratio: median(times[i]!) / median(times[last]!),
      difference: worstDifference(outputNames.map((n) => contenders[last]!.outputs[n]!), outputNames.map((n) => c.outputs[n]!)),
    }));
    return [listed[last]!, ...listed.slice(0, last)];
  } finally {
    for (const c of contenders) await c.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** How the table calls this runtime: with the options that chose what ran. */
const ourName = (features: string, f16: boolean): string => (features === 'wide' ? 'tilewright --wide' : features === 'webgpu' ? `tilewright --backend wgsl${f16 ? ' --f16' : ''}` : 'tilewright');

/**
 * Warms each up for a second or two hundred runs, then takes turns, so that noise of the machine meets all alike. A turn begins with a pause, in which
 * threads of the others that spin for more work fall asleep, and a run that is not counted, which brings the model's weights back into the caches.
 */
async function interleave(runs: readonly (() => Promise<unknown>)[], rounds: number): Promise<number[][]> {
  for (const f of runs) {
    const end = performance.now() + 1000;
    for (let i = 0; i < 3 || (i < 200 && performance.now() < end); i++) await f();
  }
  const times: number[][] = runs.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, f] of runs.entries()) {
      if (runs.length > 1) {
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        await f();
      }
      const begun = performance.now();
      await f();
      times[i]!.push(performance.now() - begun);
    }
  }
  return times;
}

const pauseMs = 50;
