/** tilewright plan: whether a model, or a step of its training, fits a machine of tiles, and how fast it is there. */
import { readFileSync, writeFileSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import { importModel } from '../frontend/index.ts';
import { proofBatches, proveBatchIndependence } from '../passes/batch-independence.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { fitPlan, levelsOf, type Trial } from '../passes/tile/fit.ts';
import { planFromJson, planToJson } from '../passes/tile/json.ts';
import { planTiles, type Planned } from '../passes/tile/plan.ts';
import type { Recompute } from '../passes/tile/recompute.ts';
import type { TileTarget } from '../passes/tile/target.ts';
import { compile, type CompileOptions } from './driver/compile.ts';
import { wasmTarget } from './driver/target.ts';
import { readTensor } from './inputs.ts';
import { normOf, normOptions, type NormOptions } from './norm.ts';
import { dims, number, pairs, positive } from './options.ts';
import { buildGraph, prepared, type Wanted } from './plan/build.ts';
import { comparePlans, onnxDigest, requireSameModel } from './plan/compare.ts';
import { withFindings } from './plan/host.ts';
import { planHtml } from './plan/html.ts';
import { showKernels } from './plan/kernels.ts';
import { bestFeatures } from './model.ts';
import { showDifference, showPeak, showPlan, showTrials, showVertices } from './plan/show.ts';
import { targetHelp, targetOf } from './plan/target.ts';
import { say, withProgress } from './print.ts';
import { boundBatch, compileTraining } from './train/model.ts';
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

/** Samples at a time that --fit considers. */
const consideredBatches = [1, 2, 4, 8, 12, 16, 18, 20, 24, 32];
/** Shares of a tile for temporaries that --fit considers beside the target's own. */
const narrower = [1, 0.5];
const exitDoesNotFit = 3;
/** Options of plans for tiles with memories of their own. */
const planOptions = ['temporary', 'dtype', 'recompute', 'fit', 'explain', 'json', 'html', 'against', 'difference'] as const;

/** Adds the command. */
export function planCommand(program: Command): void {
  const command = program
    .command('plan')
    .description('plan a model, or a step of its training, for a machine of tiles: memory of every tile, cycles, what limits them; exit code 0: it fits, 3: it does not')
    .argument('<model>', 'an .onnx file')
    .option('--target <name>', targetHelp, 'mk2')
    .option('--tiles <n>', 'another number of tiles', positive)
    .option('--tile-memory <size>', 'other bytes a tile, as 638976 or 256KiB', memorySize)
    .option('--temporary <share>', 'share of a tile that the temporaries of one op may take (default: the target’s)', number)
    .addOption(new Option('--dtype <dtype>', 'how tensors are stored (default: f16 on mk1, mk2 and bow, else f32)').choices(['f16', 'f32']))
    .option('--train', 'plan a step of training, with the options below (default: sgd with momentum 0.9, batch 16)')
    .addOption(new Option('--recompute <what>', 'what the backward pass computes again: nothing heavy, norms and activations, all between residual additions, all between a few of those, or the least that fits').choices(['none', 'norms', 'blocks', 'all', 'auto']).default('auto'))
    .option('--fit', 'choose micro-batch and recomputation: the fastest plan that fits')
    .option('--explain', 'list what was tried, and cycles by kind of vertex')
    .option('--json <file>', 'write the plan (docs/plan.schema.json)')
    .option('--html <file>', 'write a page: memory by tile and category, tensors at any step, cycles by op, tile map')
    .option('--against <file>', 'compare with another plan of the model, here and on the page')
    .option('--difference <file>', 'write the comparison as JSON')
    .option('--dim <symbol=size>', 'size of a symbolic dimension; may be repeated', dims)
    .option('--value <input=file>', 'value (.npy, .pb) of an input that decides shapes; may be repeated', pairs);
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
  const values = options.value && Object.fromEntries(Object.entries(options.value).map(([name, file]) => [name, readTensor(file)]));
  const sgd = options.train && (options.optimizer === undefined || options.optimizer === 'sgd');
  const train = options.train ? trainOptions(sgd ? { momentum: 0.9, ...options } : options) : undefined;
  const wanted: Omit<Wanted, 'batch'> = { model, dtype, ...(spec && { norm: spec }), ...(train && { train }), ...(options.dim && { dims: options.dim }), ...(values && { values }) };
  if (options.fit) requireProof(wanted);

  const graphs = new Map<number, ReturnType<typeof buildGraph>>();
  const graphAt = (batch: number): ReturnType<typeof buildGraph> => {
    const known = graphs.get(batch);
    if (known) return known;
    graphs.clear();
    const graph = buildGraph({ ...wanted, batch });
    graphs.set(batch, graph);
    return graph;
  };
  const planAt = (batch: number, recompute: Recompute, temporary: number): Planned => planTiles(prepared(graphAt(batch), recompute), target, { samples: batch, temporary, onProgress: progress(batch, recompute) });
  const share = options.temporary ?? target.constants.temporary;
  const batch = options.batch ?? (options.train ? 16 : 1);
  const levels = options.train ? levelsOf(options.recompute) : (['none'] as const);
  const fit = fitPlan(planAt, { batches: options.fit ? consideredBatches : [batch], recompute: levels, temporary: options.temporary === undefined ? narrower.map((f) => f * share) : [share] });
  const chosen = fit.best ?? fit.trials.reduce((a, b) => (b.planned.plan.memory.total < a.planned.plan.memory.total ? b : a));
  report(chosen, fit.trials, target, options);
  const plan = { ...withFindings(chosen.planned.plan, target), onnx };
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(planToJson(plan))}\n`);
  if (options.html !== undefined) writeFileSync(options.html, planHtml(plan, target, chosen.recompute, other && { plan: other, file: options.against! }));
  if (options.difference !== undefined) writeFileSync(options.difference, `${JSON.stringify(comparePlans(plan, other!))}\n`);
  if (other) showDifference(comparePlans(plan, other), options.against!);
  process.exitCode = fit.best ? 0 : exitDoesNotFit;
}

/** Prints how kernels are cut for cores that share a memory: what is always possible. */
async function planKernels(model: string, target: TileTarget, options: Options): Promise<void> {
  const values = options.value && Object.fromEntries(Object.entries(options.value).map(([name, file]) => [name, readTensor(file)]));
  const norm = normOf(options);
  const base: CompileOptions = { target, features: [bestFeatures()], ...(options.dim && { dims: options.dim }), ...(values && { values }), ...(norm && { norm }) };
  const { manifest } = await withProgress(model, (onProgress) => (options.train ? compileTraining(model, trainOptions(options), options.batch, { ...base, onProgress }) : compile(model, { ...base, onProgress })));
  showKernels(manifest, target);
}

function report(chosen: Trial, trials: readonly Trial[], target: TileTarget, options: Options): void {
  const { plan, fits } = chosen.planned;
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  if ((options.fit || options.explain || !fits) && trials.length > 1) {
    showTrials(trials);
    say('');
  }
  showPlan(plan, target, fits, chosen.recompute);
  if (options.explain) showVertices(plan);
  if (!fits || options.explain) showPeak(plan);
  if (!fits && trials.length > 1) showSavings(trials);
}

/** What each lever saves, the cheapest in cycles first. */
function showSavings(trials: readonly Trial[]): void {
  const [first, ...others] = trials;
  say('\nwhat levers save');
  for (const t of [...others].sort((a, b) => a.cyclesPerSample - b.cyclesPerSample)) {
    say(`  recompute ${t.recompute}, temporaries ${t.temporary}: ${Math.round(first!.planned.plan.memory.total - t.planned.plan.memory.total).toLocaleString('en-US')} bytes, ${Math.round(t.cyclesPerSample - first!.cyclesPerSample).toLocaleString('en-US')} more cycles a sample`);
  }
  say('  a smaller batch with accumulated gradients: --fit looks for one');
}

/** Micro-batches give the same result only where no sample influences another. */
function requireProof(wanted: Omit<Wanted, 'batch'>): void {
  if (!wanted.train) return;
  const [model, other] = proofBatches.map((n) => {
    const imported = importModel(wanted.model, { dims: boundBatch(wanted.model, n, wanted.dims ?? {}).dims, ...(wanted.values && { values: wanted.values }) });
    return wanted.norm ? rewriteNorms(imported, wanted.norm, wasmTarget).graph : imported.graph;
  });
  const sameBatch = model!.inputs[0]?.type.shape[0] === other!.inputs[0]?.type.shape[0];
  const verdict = proveBatchIndependence(model!, wasmTarget, sameBatch ? undefined : other);
  if (!verdict.proved) {
    const where = verdict.op.source[0] ?? verdict.op.name;
    throw new UserError(`--fit chooses the micro-batch, which changes the result of this model: ${where}: ${verdict.reason}. Rewrite its normalizations (--norm group:32 or --norm group:4+proxy), or plan one batch without --fit`);
  }
}

function readPlan(file: string): ReturnType<typeof planFromJson> {
  let data: unknown;
  try {
    data = JSON.parse(readFileSync(file, 'utf8'));
  } catch (e) {
    throw new UserError(`${file} cannot be read as a plan: ${e instanceof Error ? e.message : String(e)}`);
  }
  return planFromJson(data, file);
}

function progress(batch: number, recompute: string): ((done: number, of: number) => void) {
  if (!process.stderr.isTTY) return () => {};
  return (done, of) => process.stderr.write(`\r\x1b[Kplanning batch ${batch}, recompute ${recompute}: ${done} of ${of} ops`);
}

/** Options of a training step go with --train, but a batch says how many samples are planned for in any case. */
function refuseStepOptionsButBatch(command: Command): void {
  if (command.getOptionValueSource('batch') !== 'cli') return refuseStepOptions(command);
  const batch: unknown = command.getOptionValue('batch');
  command.setOptionValueWithSource('batch', batch, 'config');
  refuseStepOptions(command);
}

/** `638976`, `256KiB`, `0.5MiB`. */
function memorySize(text: string): number {
  const found = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)?$/.exec(text);
  const n = found ? Number(found[1]) * { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }[(found[2] ?? 'B') as 'B' | 'KiB' | 'MiB' | 'GiB'] : 0;
  if (!Number.isInteger(n) || n < 1) throw new InvalidArgumentError('expected a number of bytes, at least 1, as 638976 or 256KiB');
  return n;
}

