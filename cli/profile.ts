/** tilewright profile: where the time of a model goes, step by step. */
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { backendOption, f16Option, gpuLimitOption, gpuOf, limitsHere, loadingOf, placeOf, refuseF16, refuseGpuLimit, refuseThreads } from './backend.ts';
import type { Backend } from './driver/compile.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { UserError } from '../ir/diagnostic.ts';
import { reason } from '../runtime/bytes.ts';
import { loadSession, type LoadOptions, type Session, type StepTime, type Tensor } from '../runtime/index.ts';
import { sampleTensors } from '../runtime/selfcheck.ts';
import { readInputs, readTensors } from './inputs.ts';
import { bestFeatures, compileFor, isArtifact, modelInputs, readModelGraph } from './model.ts';
import { dimOption, inputOption, jsonOption, positive, threadsOption, valueOption } from './options.ts';
import { amount, ms, note, say, sayJson, table, withProgress } from './print.ts';
import { median } from './statistics.ts';

interface Options {
  readonly input?: Record<string, string>;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
  readonly threads: number;
  readonly backend: Backend;
  readonly gpuLimit?: GpuLimits;
  readonly f16?: boolean;
  readonly runs: number;
  readonly limit: number;
  readonly trace?: string;
  readonly json?: boolean;
}

/** Time of a step over several runs. */
interface StepFacts {
  readonly step: StepTime;
  readonly time: number;
}

/** Adds the command. */
export function profileCommand(program: Command): void {
  program
    .command('profile')
    .description('time, share and GFLOP/s of every fused op, with the ONNX nodes it came from')
    .argument('<model>', 'an .onnx file, or a folder that `compile --profile` wrote')
    .addOption(inputOption('numbers', 'pseudo-random numbers otherwise'))
    .addOption(dimOption('.onnx only'))
    .addOption(valueOption('.onnx only'))
    .addOption(backendOption())
    .addOption(gpuLimitOption())
    .addOption(f16Option())
    .addOption(threadsOption(1))
    .option('--runs <n>', 'runs to take the median of', positive, 20)
    .option('--limit <n>', 'rows to print', positive, 40)
    .option('--trace <file>', 'write the last run as a Chrome trace (chrome://tracing, Perfetto)')
    .addOption(jsonOption())
    .action(run);
}

async function run(model: string, options: Options, command: Command): Promise<void> {
  refuseF16(options, isArtifact(model));
  refuseThreads(command, options.backend);
  refuseGpuLimit(options, isArtifact(model));
  const { session, inputs } = await open(model, options, loadingOf(command, options.backend));
  try {
    const times = await measure(session, inputs, options.runs);
    const total = times.reduce((n, t) => n + t.time, 0);
    const last = session.profile();
    if (options.trace !== undefined && last) writeTrace(options.trace, last, session.model);
    const sorted = [...times].sort((a, b) => b.time - a.time);
    const rate = ({ step, time }: StepFacts): number => (time > 0 ? step.flops / time / 1e6 : 0);
    if (options.json) {
      sayJson({ model: session.model, threads: session.threads, features: session.features, ...gpuOf(session), totalMs: total, steps: times.map((t) => ({ name: t.step.name, source: t.step.source, ms: t.time, share: t.time / total, flops: t.step.flops, bytes: t.step.bytes, gflops: rate(t) })) });
      return;
    }
    const rows = sorted.slice(0, options.limit).map((t) => [t.time.toFixed(3), `${((100 * t.time) / total).toFixed(1)} %`, t.step.flops > 0 ? rate(t).toFixed(1) : '', t.step.name, t.step.source.join(', ')]);
    for (const line of table(['ms', 'share', 'GFLOP/s', 'op', 'ONNX nodes'], rows, [0, 1, 2])) say(line);
    if (sorted.length > options.limit) say(`… ${sorted.length - options.limit} more steps`);
    const flops = times.reduce((n, t) => n + t.step.flops, 0);
    say(`${ms(total)} in ${times.length} steps on ${placeOf(session)}, ${amount(flops)} floating-point operations, ${(flops / total / 1e6).toFixed(1)} GFLOP/s`);
    if (options.trace !== undefined) note(`trace written to ${options.trace}`);
  } finally {
    await session.close();
  }
}

async function open(model: string, options: Options, backend: Pick<LoadOptions, 'backend'>): Promise<{ session: Session; inputs: Record<string, Tensor> }> {
  const images = { size: undefined, layout: undefined, scale: undefined, mean: [], std: [], gray: false };
  const { threads } = options;
  if (isArtifact(model)) {
    const session = await loadSession(model, { threads, ...backend });
    const given = await readInputs(options.input ?? {}, session.inputs.map((i) => ({ ...i, dims: i.shape })), images);
    return { session, inputs: { ...sampleTensors(session.inputs), ...given } };
  }
  const given = await readInputs(options.input ?? {}, modelInputs(readModelGraph(model)), images);
  const values = readTensors(options.value ?? {});
  const limits = await limitsHere(options);
  const artifact = await withProgress(model, (onProgress) => compileFor(model, { ...(options.dim && { dims: options.dim }), values, backend: options.backend, ...limits, ...(options.f16 && { f16: true }), features: [bestFeatures()], profile: true, onProgress }, given));
  for (const w of artifact.warnings) note(`warning: ${w}`);
  const session = await loadSession(artifact, { threads, ...backend });
  return { session, inputs: { ...sampleTensors(session.inputs), ...given } };
}

/** Warms up until the engine has optimised the code, then takes the median of each step. */
async function measure(session: Session, inputs: Record<string, Tensor>, runs: number): Promise<StepFacts[]> {
  const warm = performance.now() + 1000;
  for (let i = 0; i < 3 || (i < 200 && performance.now() < warm); i++) await session.run(inputs);
  const samples: StepTime[][] = [];
  for (let i = 0; i < runs; i++) {
    await session.run(inputs);
    const times = session.profile();
    if (!times) throw new UserError('this artifact does not note times; compile it with --profile');
    samples.push([...times]);
  }
  return samples[0]!.map((step, i) => ({ step, time: median(samples.map((s) => s[i]!.end - s[i]!.start)) }));
}

function writeTrace(path: string, steps: readonly StepTime[], model: string): void {
  const events = steps.map((s) => ({ name: s.source.join(', ') || s.name, cat: s.name, ph: 'X', ts: s.start * 1000, dur: (s.end - s.start) * 1000, pid: 1, tid: 1, args: { op: s.name, flops: s.flops, bytes: s.bytes, chunks: s.chunks } }));
  try {
    writeFileSync(path, JSON.stringify({ traceEvents: [{ name: 'process_name', ph: 'M', pid: 1, args: { name: model } }, ...events], displayTimeUnit: 'ms' }));
  } catch (e) {
    throw new UserError(`cannot write ${path}: ${reason(e)}`);
  }
}
