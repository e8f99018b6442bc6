/** tilewright train: trains or fine-tunes an ONNX model and writes it back. */
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import { writeReason } from '../runtime/bytes.ts';
import { hasCheckpoint, prepareFolder } from '../runtime/checkpoint-files.ts';
import { batchesOf, plainNormalisation, standardisation, type Augmentation, type Epoch, type Normalisation, type Samples } from '../runtime/data/index.ts';
import { blends } from '../runtime/data/augment.ts';
import { loadTrainer, type Trainer } from '../runtime/index.ts';
import { backendOption, gpuLimitOption, limitsHere, refuseGpuLimit, refuseThreads } from './backend.ts';
import { readDomains } from './data/domains.ts';
import type { Reading } from './data/files.ts';
import type { Backend } from './driver/compile.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { resetHead } from './driver/reset-head.ts';
import { bestFeatures } from './model.ts';
import { channelOptions, dimOption, jsonOption, memoryOption, nonNegative, positive, positiveNumber, threadsOption, wholeNumber } from './options.ts';
import { normOf, normOptions, rewriteFacts, showRewrite, type NormOptions } from './norm.ts';
import { note, say, sayJson, withProgress } from './print.ts';
import { augmentation } from './train/augmentation.ts';
import { openGradientLog } from './train/gradients.ts';
import { tellLostGpu } from './train/lost-gpu.ts';
import { showMemory, stepMemory } from './train/memory.ts';
import { readMetrics, writeMetrics, type EpochMetrics } from './train/metrics.ts';
import { compileTraining, showFit, wantedOf } from './train/model.ts';
import { trainOptions, withStepOptions, type StepOptions } from './train/options.ts';
import { showTraining } from './train/progress.ts';
import { positionOf, start, train as runTraining, type Position } from './train/run.ts';
import { scheduleNames, scheduleOf, type ScheduleName } from './train/schedules.ts';

interface Options extends StepOptions, NormOptions {
  readonly data: string;
  readonly eval?: string;
  readonly targetColumn?: string;
  readonly lr?: number;
  readonly epochs: number;
  readonly schedule?: ScheduleName;
  readonly scheduleEvery?: number;
  readonly scheduleFactor?: number;
  readonly warmup?: number;
  readonly standardize?: boolean;
  readonly mean?: number[];
  readonly std?: number[];
  readonly augment?: Augmentation;
  readonly seed: number;
  readonly average?: boolean;
  readonly checkpoint?: string;
  readonly checkpointEvery?: number;
  readonly resume?: string;
  readonly logGradients?: string;
  readonly resetHead?: number;
  readonly memory?: number;
  readonly resetHeadSeed?: number;
  readonly output?: string;
  readonly dim?: Record<string, number>;
  readonly threads?: number;
  readonly backend: Backend;
  readonly gpuLimit?: GpuLimits;
  readonly json?: boolean;
}

/** The exit code of a process that Ctrl-C ended. */
const exitInterrupted = 130;
const defaultRate = 0.01;

/** Adds the command. */
export function trainCommand(program: Command): void {
  const command = program
    .command('train')
    .description('train or fine-tune an ONNX model on data files, and write it back as ONNX')
    .argument('<model>', 'an .onnx file')
    .requiredOption('--data <files>', 'SAMPLES,TARGETS (idx, .npy; .gz or not), one .npz or CSV, or a folder with a folder of pictures for each class; with --norm domains:N, N of these joined with +')
    .option('--eval <files>', 'data to evaluate on after each epoch')
    .option('--target-column <name>', 'column of a CSV that holds the target, by name or number from 1 (default: the last)')
    .option('-o, --output <file>', 'write the trained model here')
    .option('--epochs <n>', 'how often to go through the data', positive, 1)
    .option('--lr <rate>', `learning rate (default: ${defaultRate})`, nonNegative)
    .addOption(new Option('--schedule <name>', 'of the learning rate (default: constant)').choices([...scheduleNames]))
    .option('--schedule-every <epochs>', 'epochs between falls of the step schedule (default: 1)', positiveNumber)
    .option('--schedule-factor <x>', 'of a fall (default: 0.1), or of an epoch of the exponential schedule (default: 0.9)', positiveNumber)
    .option('--warmup <epochs>', 'epochs in which the learning rate rises', nonNegative);
  withStepOptions(normOptions(command))
    .option('--standardize', 'subtract mean and divide by deviation of each channel, over the training data')
    .option('--augment <list>', 'crop:PIXELS, flip, mixup:ALPHA, cutmix:ALPHA, separated by commas', augmentation)
    .option('--seed <n>', 'of order, augmentation and dropout', wholeNumber, 0)
    .option('--reset-head <classes>', 'replace the last linear layer by a new one for so many classes', positive)
    .option('--reset-head-seed <n>', 'of the new weights (default: 0)', wholeNumber)
    .option('--average', 'evaluate and write the moving average of the weights; goes with --ema')
    .option('--checkpoint <folder>', 'write checkpoints there: at the start, after each epoch, at Ctrl-C')
    .option('--checkpoint-every <steps>', 'and every so many steps', positive)
    .option('--resume <place>', 'go on from the newest checkpoint of a folder, or from a file')
    .option('--log-gradients <file>', 'write norm and maximum of every gradient as CSV')
    .addOption(dimOption())
    .addOption(memoryOption())
    .addOption(threadsOption())
    .addOption(backendOption())
    .addOption(gpuLimitOption())
    .addOption(jsonOption('what was reached'));
  for (const option of channelOptions()) command.addOption(option);
  command.action(run);
}

async function run(model: string, options: Options, command: Command): Promise<void> {
  const started = performance.now();
  refuseThreads(command, options.backend);
  refuseGpuLimit(options);
  const folder = checkpointFolder(options);
  checkOutputs(model, options, folder);
  if (folder !== undefined) await prepareFolder(folder);
  const norm = normOf(options);
  const train = trainOptions(options, { soft: options.augment !== undefined && blends(options.augment), gradients: options.logGradients !== undefined });
  const source = options.resetHead === undefined ? model : await resetHead(model, options.resetHead, options.resetHeadSeed === undefined ? {} : { seed: options.resetHeadSeed });
  const limits = await limitsHere(options);
  const artifact = await withProgress(basename(model), (onProgress) => compileTraining(source, train, options.batch, { ...(options.dim && { dims: options.dim }), backend: options.backend, ...limits, features: [bestFeatures()], file: model, ...(norm && { norm }), ...(options.memory !== undefined && { memory: options.memory }), onProgress }));
  for (const w of artifact.warnings) note(`warning: ${w}`);
  if (norm && artifact.norms && !options.json) showRewrite(artifact.norms, norm).forEach(say);
  if (artifact.fit) note(showFit(artifact.fit));
  const memory = stepMemory(artifact.program, new Map(artifact.manifest.state!.map((s) => [s.name, s.role])));
  if (!options.json) say(showMemory(memory));
  await using trainer = await loadTrainer(artifact, options.threads === undefined ? {} : { threads: options.threads });
  for (const notice of trainer.notices) note(notice);

  const wanted = wantedOf(trainer, train, artifact.manifest.state);
  const reading: Reading = { sample: wanted.x.shape.slice(1), ...(options.targetColumn !== undefined && { targetColumn: options.targetColumn }) };
  const samples = await readDomains(options.data, reading, wanted.domain?.count);
  const test = options.eval === undefined ? undefined : await readDomains(options.eval, { ...reading, ...(samples.classNames && { classNames: samples.classNames }) }, wanted.domain?.count);
  const normalisation = normalisationOf(options, samples, wanted.x.shape);
  const training = batchesOf(samples, wanted, { seed: options.seed, normalisation, ...(options.augment && { augmentation: options.augment }) });
  const evaluation: Epoch | undefined = test && batchesOf(test, wanted, { shuffle: false, rest: 'pad', normalisation })(0);
  await trainer.setSeed(options.seed);

  const settings = { data: `${samples.x.shape[0]} samples`, batch: String(wanted.x.shape[0]), seed: String(options.seed), augmentation: JSON.stringify(options.augment ?? {}), classes: options.resetHead === undefined ? 'its own' : String(options.resetHead) };
  const position = await restored(trainer, options, settings);
  const stepsPerEpoch = training(0).batches;
  const schedule = scheduleOf({ ...options, ...(options.scheduleEvery !== undefined && { every: options.scheduleEvery }), ...(options.scheduleFactor !== undefined && { factor: options.scheduleFactor }) }, options.epochs, stepsPerEpoch);
  const lr = options.lr ?? defaultRate;
  const gradients = options.logGradients === undefined ? undefined : openGradientLog(options.logGradients, trainer.step);
  const report = reportFiles(options, folder);
  const rows: EpochMetrics[] = readMetrics(report.table, position === start ? -1 : trainer.step);
  const interrupt = onInterrupt();
  const shown = showTraining({ epochs: options.epochs, stepsPerEpoch, batch: wanted.x.shape[0]!, from: trainer.step, quiet: options.json ?? false });
  let reached: Position;
  try {
    reached = await runTraining({
      trainer, epochs: options.epochs, training, evaluation, loss: train.loss, inputs: { x: wanted.x.name, y: wanted.y.name, domain: wanted.domain?.name },
      rate: (step) => lr * schedule(step),
      average: options.average ?? false,
      checkpoint: folder === undefined ? undefined : { folder, every: options.checkpointEvery },
      settings,
      stopped: interrupt.seen,
      onStep(progress, result) {
        gradients?.write(progress.step, result.outputs);
        shown.step(progress, result.loss);
      },
      async onEpoch(metrics) {
        rows.push(metrics);
        await writeMetrics(report, rows, `${basename(model)}: ${train.optimizer.kind}, batch ${wanted.x.shape[0]}`);
        shown.epoch(metrics);
      },
    }, position).catch((e: unknown) => { throw tellLostGpu(e, folder); });
  } finally {
    shown.end();
    interrupt.end();
    gradients?.close();
  }
  const stopped = reached.epoch < options.epochs;
  // What a checkpoint holds can be gone on with; a model is only written where there is none, or at the end.
  if (options.output !== undefined && (!stopped || folder === undefined)) {
    await exported(trainer, artifact.rewritten ?? source, options.output, options.average ?? false);
    if (!options.json) say(`wrote ${options.output}`);
  }
  if (options.json) sayJson({ steps: trainer.step, memory, ...(norm && artifact.norms && { norms: rewriteFacts(artifact.norms, norm) }), epochs: rows, output: options.output, seconds: (performance.now() - started) / 1000, threads: trainer.threads, stopped });
  if (!stopped) return;
  note(folder === undefined ? `stopped after step ${trainer.step}${options.output === undefined ? '' : `; the model as it is was written to ${options.output}`}` : `stopped after step ${trainer.step}; go on with --resume ${folder}`);
  process.exitCode = exitInterrupted;
}

/** Where checkpoints go: a resumed run goes on in its own folder. */
function checkpointFolder({ checkpoint, resume }: Options): string | undefined {
  if (checkpoint !== undefined || resume === undefined) return checkpoint;
  if (!existsSync(resume)) throw new UserError(`--resume ${resume}: there is no such folder or file`);
  return statSync(resume).isDirectory() ? resume : dirname(resume);
}

/** Finds out before the first step what could not be written after the last. */
function checkOutputs(model: string, options: Options, folder: string | undefined): void {
  if (options.output === undefined && folder === undefined) throw new UserError('nothing would be kept: give -o FILE for the trained model, or --checkpoint FOLDER');
  if (options.average && options.ema === undefined) throw new UserError('--average goes with --ema SHARE, which keeps the average');
  if (options.resetHeadSeed !== undefined && options.resetHead === undefined) throw new UserError('--reset-head-seed goes with --reset-head CLASSES');
  if (options.checkpointEvery !== undefined && folder === undefined) throw new UserError('--checkpoint-every goes with --checkpoint FOLDER');
  if (options.output === undefined) return;
  if (resolve(options.output) === resolve(model)) throw new UserError(`-o ${options.output} is the model itself; give another file`);
  try {
    accessSync(dirname(resolve(options.output)), constants.W_OK);
  } catch (e) {
    throw new UserError(`cannot write ${options.output}: ${writeReason(e)}`);
  }
}

function normalisationOf(options: Options, samples: Samples, input: readonly number[]): Normalisation {
  const channels = input.length === 4 ? input[1]! : 1;
  if (options.standardize) {
    if (options.mean || options.std) throw new UserError('--standardize finds mean and deviation itself; leave out --mean and --std');
    const found = standardisation(samples, channels);
    note(`standardized by mean ${found.mean.map((m) => m.toPrecision(6)).join(',')} and deviation ${found.std.map((s) => s.toPrecision(6)).join(',')}: the trained model expects the same of its inputs`);
    return found;
  }
  return { ...plainNormalisation(samples), ...(options.mean && { mean: options.mean }), ...(options.std && { std: options.std }) };
}

/** Restores what --resume names. A folder without a checkpoint is that of a run that ended before its first. */
async function restored(trainer: Trainer, { resume }: Options, settings: Readonly<Record<string, string>>): Promise<Position> {
  if (resume === undefined) return start;
  if (!(await hasCheckpoint(resume))) {
    note(`${resume} holds no checkpoint yet: the run starts at the beginning`);
    return start;
  }
  return positionOf(await trainer.restore(resume), settings, resume);
}

/** metrics.csv and metrics.svg lie with the checkpoints, else with the trained model. */
function reportFiles(options: Options, folder: string | undefined): { table: string; picture: string } {
  const place = folder ?? dirname(options.output!);
  return { table: join(place, 'metrics.csv'), picture: join(place, 'metrics.svg') };
}

async function exported(trainer: Trainer, model: string | Uint8Array, output: string, average: boolean): Promise<void> {
  const write = (): Promise<void> => trainer.exportOnnx(model, output);
  await (average ? trainer.averaged(write) : write());
}

/** Notes the first Ctrl-C; the second one ends the process, as it would without this. */
function onInterrupt(): { seen: () => boolean; end: () => void } {
  let seen = false;
  const first = (): void => void (seen = true);
  process.once('SIGINT', first);
  return { seen: () => seen, end: () => void process.off('SIGINT', first) };
}
