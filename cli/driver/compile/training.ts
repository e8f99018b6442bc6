/** Training artifacts: a step of training and an evaluation over one state, under a limit of memory if one is given. */
import { importModel, type ImportedModel } from '../../../frontend/index.ts';
import { Unsupported, UserError } from '../../../ir/diagnostic.ts';
import type { TileProgram } from '../../../ir/tile.ts';
import { lintBatchOfOne } from '../../../passes/norm/lint-norms.ts';
import { followsBatch, type NormSpec } from '../../../passes/norm/options.ts';
import { reportOf, rewriteNorms, type RewriteReport } from '../../../passes/norm/rewrite-norms.ts';
import { recomputing, runPipeline, type PipelineOptions } from '../../../passes/pipeline.ts';
import { planEntries } from '../../../passes/plan.ts';
import { stepTime } from '../../../passes/step-time.ts';
import type { Recompute } from '../../../passes/tile/recompute.ts';
import { targetName } from '../../../passes/train/add-loss.ts';
import { scalarsOf } from '../../../passes/train/declare-parameters.ts';
import { evaluationStep } from '../../../passes/train/evaluation-step.ts';
import type { TrainOptions } from '../../../passes/train/options.ts';
import { trainingStep, type TrainingStep } from '../../../passes/train/pipeline.ts';
import { batchOf } from '../../../passes/train/sample-factors.ts';
import { explainOver } from '../explain.ts';
import { rewrittenOnnx } from '../export.ts';
import { fitMemory, type MemoryFit } from '../fit-memory.ts';
import { rewrittenFile } from '../folder.ts';
import { stateRoles } from '../state-roles.ts';
import { wasmTarget } from '../target.ts';
import type { Artifact } from './artifact.ts';
import { emitArtifact } from './emit.ts';
import { importOptions, targetOf, type CompileOptions } from './options.ts';
import { inStage } from './stage.ts';

/** Compiles a model to a step of training and an evaluation over the same state. */
export async function compileTraining(model: string | Uint8Array, options: CompileOptions, train: TrainOptions): Promise<Artifact> {
  const { onGraph, onProgress } = options;
  if (options.f16 && options.backend === 'wgsl' && train.precision !== 'mixed') throw new UserError('a step in f16 keeps its parameters in f32 and stores f16 in between: it needs mixed precision (--precision mixed)');
  const target = targetOf(options);
  onProgress?.('import', 0, 1);
  const original = importModel(model, importOptions(options));
  const { imported, norms } = normalized(original, options.norm);
  onGraph?.(imported.graph, 'import', 0);
  const hooks = { ...(onGraph && { onGraph }), ...(onProgress && { onProgress }) };
  const { imported: inference } = normalized(importModel(model, { ...importOptions(options), inference: true }), options.norm, true);
  const rewritten = options.norm && rewrittenOnnx(model, options.norm, { ...importOptions(options), anyBatch: true });
  const build = ({ microBatch, recompute }: Lever, h: PipelineOptions): BuiltStep => {
    const step = trainingStep(imported.graph, imported.statistics, { ...train, ...(microBatch !== undefined && { microBatch }) }, target, h);
    const evaluation = evaluationStep(inference.graph, step, { ...(train.batch !== undefined && { batch: train.batch }), ...(microBatch !== undefined && { microBatch }) }, target);
    const entries = [{ name: 'step', graph: runPipeline(step.graph, target, { ...h, ...(recompute && { passes: recomputing(recompute) }) }) }, { name: 'eval', graph: runPipeline(evaluation, target) }];
    onProgress?.('plan', 0, 1);
    return { step, program: inStage('plan', entries[0]!.graph, () => planEntries(entries, target)) };
  };
  const fit = options.memory === undefined ? undefined : fitStep(options.memory, train, (lever) => build(lever, onProgress ? { onProgress } : {}));
  // The graphs of the step that was chosen are shown alone, not those of all that were tried.
  const { step, program } = fit && !onGraph ? fit.chosen : build(fit?.lever ?? {}, hooks);
  const emitted = await emitArtifact(imported, program, options, { roles: stateRoles(step.graph, imported), files: rewritten && { [rewrittenFile]: [rewritten] } });
  const { trained } = scalarsOf(imported.graph, imported.statistics, train);
  const counted = trained.length === 0 ? [] : [`the single numbers ${trained.map((n) => `"${n}"`).join(', ')} are trained, as their names are those of parameters; freeze those that are constants`];
  const within = step.joins.slice(0, 1).map((op) => `${op} joins the samples of a micro-batch alone: the step differs from that of the whole batch`);
  const follows = options.norm && followsBatch(options.norm);
  const samples = fit?.lever.microBatch ?? train.microBatch ?? train.batch ?? batchOf(original.graph);
  const one = samples === undefined ? undefined : lintBatchOfOne(follows ? original : imported, samples, follows ? options.norm : undefined);
  const alone = one ? [`${one.nodes.slice(0, 3).join(', ')}${one.nodes.length > 3 ? ` and ${one.nodes.length - 3} more` : ''}: ${one.reason}; ${one.remedy}`] : [];
  return { ...emitted, ...(fit && { fit: fit.fit }), ...(rewritten && { rewritten }), ...(norms && { norms }), warnings: [...emitted.warnings, ...counted, ...within, ...alone], explain: explainOver(step.graph) };
}

interface BuiltStep { readonly step: TrainingStep; readonly program: TileProgram }

/** What makes the arena of a step smaller. */
interface Lever { readonly microBatch?: number; readonly recompute?: Recompute }

/** Plans steps over fewer samples and with more recomputation, and takes the fastest of those that stay under the limit. */
function fitStep(limit: number, train: TrainOptions, build: (lever: Lever) => BuiltStep): { readonly fit: MemoryFit; readonly lever: Lever; readonly chosen: BuiltStep } {
  if (train.microBatch !== undefined) throw new UserError('a limit of memory chooses how many samples are computed at a time: give either the limit or the micro-batch');
  const whole = build({});
  const { inputs } = whole.program.graph;
  const target = inputs.find((v) => v.name === targetName);
  const batch = (target ?? inputs[0])?.type.shape[0] ?? 1;
  const leverOf = (samples: number, recompute?: Recompute): Lever => ({ ...(samples !== batch && { microBatch: samples }), ...(recompute && { recompute }) });
  let chosen: { readonly built: BuiltStep; readonly time: number } | undefined;
  const fit = fitMemory(limit, batch, (samples, recompute) => {
    if (!target && samples !== batch) throw new Unsupported('training over parts of a batch with a loss that the model computes', 'the model computes its own loss, so it cannot be trained over parts of its batch; train with a loss of the compiler');
    const built = samples === batch && !recompute ? whole : build(leverOf(samples, recompute));
    const { memory, entries } = built.program;
    const time = stepTime(entries[0]!.steps);
    if (memory.temps <= limit && (!chosen || time < chosen.time)) chosen = { built, time };
    return { bytes: memory.temps, time };
  });
  return { fit, lever: leverOf(fit.samples, fit.recompute), chosen: chosen!.built };
}

/** The model with its normalizations rewritten; `inference`: in the form that inference has. */
function normalized(imported: ImportedModel, norm: NormSpec | undefined, inference = false): { readonly imported: ImportedModel; readonly norms?: RewriteReport } {
  if (!norm) return { imported };
  const made = rewriteNorms(imported, norm, wasmTarget, { inference });
  return { imported: { ...imported, graph: made.graph, statistics: made.statistics }, norms: reportOf(made) };
}
