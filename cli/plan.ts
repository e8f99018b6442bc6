/** tilewright plan: whether a model, or a step of its training, fits a machine of tiles, and how fast it is there. */
import { writeFileSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import type { TilePlan } from '../ir/tiles.ts';
import { levelsOf } from '../passes/tile/fit.ts';
import { planToJson } from '../passes/tile/json.ts';
import type { Lever } from '../passes/tile/levers.ts';
import type { AccumulatedPlan, Planned } from '../passes/tile/plan.ts';
import { recomputeLevels, type Recompute } from '../passes/tile/recompute.ts';
import type { TileTarget } from '../passes/tile/target.ts';
import type { Setting, Trial } from '../passes/tile/trials.ts';
import { compile, type CompileOptions } from './driver/compile.ts';
import { readTensors } from './inputs.ts';
import { normOf, normOptions, type NormOptions } from './norm.ts';
import { dimOption, exitOverLimit, number, tileOptions, valueOption } from './options.ts';
import type { Wanted } from './plan/build.ts';
import { comparePlans, onnxDigest, requireSameModel } from './plan/compare.ts';
import { withFindings } from './plan/host.ts';
import { planHtml } from './plan/html.ts';
import { showKernels } from './plan/kernels.ts';
import { measured } from './plan/measured.ts';
import { joinOf, requireProof } from './plan/proof.ts';
import { readPlan } from './plan/read.ts';
import { consideredBatches, Planner } from './plan/search.ts';
import { showDifference, showLevers, showPeak, showPlan, showTrials, showVertices, trialLine } from './plan/show.ts';
import { targetHelp, targetOf } from './plan/target.ts';
import { bestFeatures } from './model.ts';
import { note, say, withProgress } from './print.ts';
import { compileTraining } from './train/model.ts';
import { refuseStepOptions, trainOptions, withStepOptions, type StepOptions } from './train/options.ts';

interface Options extends StepOptions, NormOptions {
  readonly target: string;
  readonly tiles?: number;
  readonly tileMemory?: number;
  readonly temporary?: number;
  readonly dtype?: 'f16' | 'f32';
  readonly train?: boolean;
  readonly recompute: Recompute | 'auto';
  readonly fit?: boolean;
  readonly explain?: boolean;
  readonly json?: string;
  readonly html?: string;
  readonly against?: string;
  readonly difference?: string;
  readonly dim?: Record<string, number>;
  readonly value?: Record<string, string>;
}

/** Options of plans for tiles with memories of their own. */
const planOptions = ['temporary', 'dtype', 'recompute', 'fit', 'explain', 'json', 'html', 'against', 'difference'] as const;

/** Adds the command. */
export function planCommand(program: Command): void {
  const command = program
    .command('plan')
    .description('plan a model, or a step of its training, for a machine of tiles: memory of every tile, cycles, what limits them; exit code 0: it fits, 3: it does not')
    .argument('<model>', 'an .onnx file')
    .option('--target <name>', targetHelp, 'mk2')
    .option('--temporary <share>', 'share of a tile that the temporaries of one op may take, above 0 and at most 1 (default: the target’s)', share)
    .addOption(new Option('--dtype <dtype>', 'how tensors are stored (default: f16 on mk1, mk2 and bow, else f32)').choices(['f16', 'f32']))
    .option('--train', 'plan a step of training, with the options below (default: sgd with momentum 0.9, batch 16)')
    .addOption(new Option('--recompute <what>', 'what the backward pass computes again: nothing heavy, norms and activations, all between residual additions, all between a few of those, or the least that fits').choices([...recomputeLevels, 'auto']).default('auto'))
    .option('--fit', 'choose micro-batch and recomputation: the fastest plan that fits')
    .option('--explain', 'list what was tried, and cycles by kind of vertex')
    .option('--json <file>', 'write the plan (docs/plan.schema.json)')
    .option('--html <file>', 'write a page: memory by tile and category, tensors at any step, cycles by op, tile map')
    .option('--against <file>', 'compare with another plan of the model, here and on the page')
    .option('--difference <file>', 'write the comparison as JSON')
    .addOption(dimOption())
    .addOption(valueOption());
  for (const option of tileOptions()) command.addOption(option);
  normOptions(withStepOptions(command)).action(run);
}

async function run(model: string, options: Options, command: Command): Promise<void> {
  if (!options.train) refuseStepOptionsButBatch(command);
  const target = await targetOf(options);
  const cut = target.backend === 'wasm' && planOptions.every((name) => command.getOptionValueSource(name) !== 'cli');
  if (cut) return planKernels(model, target, options);
  if (options.difference !== undefined && options.against === undefined) throw new UserError('--difference goes with --against, which names the plan to compare with');
  const other = options.against === undefined ? undefined : readPlan(options.against);
  const onnx = onnxDigest(model);
  if (other) requireSameModel(other, options.against!, model, onnx);
  const spec = normOf(options);
  const dtype = options.dtype ?? (/^(mk\d|bow)$/.test(target.name) ? 'f16' : 'f32');
  const values = options.value && readTensors(options.value);
  const sgd = options.train && (options.optimizer === undefined || options.optimizer === 'sgd');
  const { microBatch: _, ...whole } = options;
  const train = options.train ? trainOptions(sgd ? { momentum: 0.9, ...whole } : whole) : undefined;
  const wanted: Omit<Wanted, 'batch'> = { model, dtype, ...(spec && { norm: spec }), ...(train && { train }), ...(options.dim && { dims: options.dim }), ...(values && { values }) };
  const micro = microBatchOf(options);
  // Without --fit a step has samples in any case; with it their number is what is looked for.
  const samples = options.train ? (options.batch ?? (options.fit ? undefined : stepSamples)) : undefined;
  // A batch that the user names may stay whole.
  const join = options.train && options.fit && options.batch !== undefined ? joinOf(wanted) : undefined;
  if (join !== undefined) note(`--fit leaves the batch whole, for micro-batches would change the result of this model: ${join}`);
  else if (options.train && (options.fit || micro !== undefined)) requireProof(wanted, options.fit ? '--fit chooses the micro-batch' : '--micro-batch computes few samples at a time');
  const plannerOf = (w: Omit<Wanted, 'batch'>): Planner => new Planner({
    wanted: w, target, levels: options.train ? levelsOf(options.recompute) : ['none'], parts: options.fit === true || options.recompute === 'auto', onProgress: progress, onTrial: finished,
    ...(options.temporary !== undefined && { temporary: options.temporary }), ...(samples !== undefined && { samples }),
  });
  const planner = plannerOf(wanted);
  if (options.fit) planner.fit(join === undefined ? batchesFor(options.batch) : [options.batch!]);
  else planner.planBatch(micro ?? samples ?? options.batch ?? 1);
  const fits = planner.trials.best !== undefined;
  const chosen = planner.trials.best ?? planner.trials.smallest!;
  const levers = options.explain || !fits ? measured({
    planner, trial: chosen.trial, wanted, recompute: options.recompute === 'auto' ? 'none' : options.recompute, smaller: batchesFor(samples ?? options.batch).findLast((b) => b < chosen.trial.batch), addsUp: samples !== undefined,
    // The search has asked for the proof already, and so have micro-batches.
    proved: (options.fit === true && join === undefined) || micro !== undefined, plannerOf,
  }) : [];
  report(planner, chosen, target, options, levers);
  const plan = { ...withFindings(chosen.planned.plan, target), onnx };
  if (options.json !== undefined) writePlans(options.json, plan, chosen.planned, target, onnx);
  if (options.html !== undefined) writeFileSync(options.html, planHtml(plan, target, chosen.trial.recompute, other && { plan: other, file: options.against! }));
  const difference = other && comparePlans(plan, other);
  if (options.difference !== undefined) writeFileSync(options.difference, `${JSON.stringify(difference)}\n`);
  if (difference) showDifference(difference, options.against!);
  process.exitCode = fits ? 0 : exitOverLimit;
}

/** Prints how kernels are cut for cores that share a memory: what is always possible. */
async function planKernels(model: string, target: TileTarget, options: Options): Promise<void> {
  const values = options.value && readTensors(options.value);
  const norm = normOf(options);
  const base: CompileOptions = { target, features: [bestFeatures()], ...(options.dim && { dims: options.dim }), ...(values && { values }), ...(norm && { norm }) };
  const { manifest } = await withProgress(model, (onProgress) => (options.train ? compileTraining(model, trainOptions(options), options.batch, { ...base, onProgress }) : compile(model, { ...base, onProgress })));
  showKernels(manifest, target);
}

/** Writes a plan; that of the update which follows several runs lies beside it, as `NAME.update.json`. */
function writePlans(file: string, plan: TilePlan, planned: Planned | AccumulatedPlan, target: TileTarget, onnx: string): void {
  const write = (to: string, p: TilePlan): void => writeFileSync(to, `${JSON.stringify(planToJson(p))}\n`);
  write(file, plan);
  if ('update' in planned) write(`${file.replace(/\.json$/, '')}.update.json`, { ...withFindings(planned.update.plan, target), onnx });
}

/** Samples at a time, if the user names them; the step's gradients then add up over its micro-batches. */
function microBatchOf({ batch, microBatch, fit }: Options): number | undefined {
  if (microBatch === undefined) return undefined;
  if (fit) throw new UserError('--fit chooses the micro-batch: leave out --micro-batch, or plan without --fit');
  if (batch === undefined) throw new UserError(`--micro-batch ${microBatch} goes with --batch, the samples of a step`);
  if (batch % microBatch !== 0) throw new UserError(`a batch of ${batch} does not divide into micro-batches of ${microBatch}; give a divisor of the batch`);
  return microBatch;
}

/** Samples of a step that the user does not name. */
const stepSamples = 16;

/** Samples at a time that are considered: where their number in all is known, its divisors. */
const batchesFor = (samples: number | undefined): readonly number[] => (samples === undefined ? consideredBatches : Array.from({ length: samples }, (_, i) => i + 1).filter((n) => samples % n === 0));

function report(planner: Planner, { trial, planned }: { readonly trial: Trial; readonly planned: Planned | AccumulatedPlan }, target: TileTarget, options: Options, levers: readonly Lever[]): void {
  const { plan, fits } = planned;
  const tried = planner.trials.all;
  clearProgress();
  if ((options.fit || options.explain || !fits) && tried.length > 1) {
    showTrials(tried);
    say('');
  }
  showPlan(plan, target, fits, trial.recompute, 'update' in planned ? planned.update : undefined);
  if (options.explain) showVertices(plan);
  if (!fits || options.explain) showPeak(plan);
  showLevers(levers, trial.batch);
}

const clearProgress = (): void => void (process.stderr.isTTY && process.stderr.write('\r\x1b[K'));

function progress({ batch, recompute }: Setting, done: number, of: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kplanning batch ${batch}, recompute ${recompute}: ${done} of ${of} ops`);
}

function finished(t: Trial): void {
  if (!process.stderr.isTTY) return;
  clearProgress();
  note(trialLine(t));
}

/** Options of a training step go with --train, but a batch says how many samples are planned for in any case. */
function refuseStepOptionsButBatch(command: Command): void {
  if (command.getOptionValueSource('batch') !== 'cli') return refuseStepOptions(command);
  const batch: unknown = command.getOptionValue('batch');
  command.setOptionValueWithSource('batch', batch, 'config');
  refuseStepOptions(command);
}

function share(text: string): number {
  const n = number(text);
  if (n <= 0 || n > 1) throw new InvalidArgumentError('expected a share of a tile, above 0 and at most 1');
  return n;
}
