/** Drives a compilation from an ONNX model to an artifact. */
import { readFileSync } from 'node:fs';
import type { WasmModule } from '../../backends/wasm/module.ts';
import { importModel, type ImportedModel, type ImportOptions } from '../../frontend/index.ts';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import type { Target, TileProgram } from '../../ir/tile.ts';
import type { Tensor } from '../../ir/type.ts';
import type { NormSpec } from '../../passes/norm/options.ts';
import { halfPrecision } from '../../passes/half-precision.ts';
import { rewriteNorms } from '../../passes/norm/rewrite-norms.ts';
import { plan, planEntries } from '../../passes/plan.ts';
import { PassError, recomputing, runPipeline, type PipelineOptions } from '../../passes/pipeline.ts';
import { evaluationStep } from '../../passes/train/evaluation-step.ts';
import { scalarsOf } from '../../passes/train/declare-parameters.ts';
import { targetName } from '../../passes/train/add-loss.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import { trainingStep, type TrainingStep } from '../../passes/train/pipeline.ts';
import type { ArtifactObject, SpecialisationRequest } from '../../runtime/artifact.ts';
import { chunkSource } from '../../runtime/bytes.ts';
import { InputError } from '../../runtime/error.ts';
import type { Features } from '../../runtime/features.ts';
import { tensorOf, type InputValue } from '../../runtime/inputs.ts';
import type { Manifest, StateEntry } from '../../runtime/manifest.ts';
import { safetensorsChunks } from '../../runtime/safetensors.ts';
import { bindings } from './bindings.ts';
import { explainOver } from './explain.ts';
import { manifestBytes, withFallback } from './fallback.ts';
import { fitMemory, type MemoryFit } from './fit-memory.ts';
import { compileInWorker, workerExists } from './compile-in-worker.ts';
import { fileWatch } from './file-watch.ts';
import { rewrittenOnnx } from './export.ts';
import { rewrittenFile, writeFolder, type Files } from './folder.ts';
import { makeManifest, weightsOf } from './manifest.ts';
import { stateRoles } from './state-roles.ts';
import { emitGpu, machineOf, type GpuLimits } from './gpu.ts';
import { wasmTarget, wasmTargetOf, wgslHalfTarget, wgslTarget } from './target.ts';
import { targetData } from './target-file.ts';

/** What an artifact runs on. */
export type Backend = 'wasm' | 'wgsl';

export interface CompileOptions {
  /** Sizes of symbolic dimensions; 1 unless given. */
  readonly dims?: Readonly<Record<string, number>>;
  /** Values of inputs that decide shapes: bound now, checked when the artifact runs. */
  readonly values?: Readonly<Record<string, Tensor>>;
  /** Shapes of inputs, from which symbolic dimensions follow. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** What the artifact runs on: WebAssembly (the default), or a GPU through WebGPU. */
  readonly backend?: Backend;
  /** With the backend wgsl: compiles the model for WebAssembly as well, which `load` takes where there is no GPU. The folder `wasm` of the artifact's holds it, weights included. */
  readonly fallback?: boolean;
  /** With the backend wgsl: what the adapter offers, where that is not WebGPU's defaults; larger tensors are split. */
  readonly gpuLimits?: GpuLimits;
  /**
   * With the backend wgsl: stores and computes in f16, which an adapter needs the feature `shader-f16` for. Sums of products and reductions stay f32, and so do inputs, outputs and state. A training
   * artifact stores f16 what its mixed precision makes f16.
   */
  readonly f16?: boolean;
  /** With the backend wasm: the machine that kernels are cut for; targets/cpu.json unless given. */
  readonly target?: TileTarget;
  /** A module is emitted for each feature set, best first; the runtime takes the first that runs. */
  readonly features?: readonly Features[];
  /** Most threads that the artifact may use. */
  readonly maxThreads?: number;
  /** Emits a profiling build, which notes the time of every step. */
  readonly profile?: boolean;
  /** How messages call a model that is given as bytes. */
  readonly file?: string;
  /** Makes a training artifact: an entry `step` that trains by these options, and an entry `eval`, over one state. */
  readonly train?: TrainOptions;
  /**
   * Most bytes that the arena of a training step may take: it computes as many samples at a time as stay under it, and so does the evaluation. Where ops of the model join samples, all are computed at once, and
   * the backward pass computes values of the forward pass again instead of keeping them. The result is that of the step without a limit. Throws OverLimit where nothing fits.
   */
  readonly memory?: number;
  /** Called after each pass that changed the graph. */
  readonly onGraph?: (graph: Graph, pass: string, index: number) => void;
  /** Called before each stage of the compilation. */
  readonly onProgress?: (stage: string, done: number, of: number) => void;
  /** The last pass to run, or `import`; for `compileGraph`. */
  readonly stopAfter?: string;
  /** Rewrites the model's batch normalizations. */
  readonly norm?: NormSpec;
}

/** An artifact in memory, to load or to save. */
export interface Artifact extends ArtifactObject {
  /** The tile program that the modules were emitted from. */
  readonly program: TileProgram;
  /** What the importer had to say. */
  readonly warnings: readonly string[];
  /** Of a training artifact whose normalizations were rewritten: the model as ONNX, which exportOnnx puts trained weights into. */
  readonly rewritten?: Uint8Array;
  /** How the step was kept under a limit of memory, if one was given. */
  readonly fit?: MemoryFit;
  readonly fallback?: Artifact;
  /** What `save` writes: files by name, in pieces. */
  files(): Promise<Files>;
  /** Writes model.wasm (one file per feature set), manifest.json, weights.safetensors, model.js and model.d.ts; all or nothing. */
  save(folder: string): Promise<void>;
}

/** Relaxed SIMD where the engine has it, else SIMD, else none. */
export const defaultFeatures: readonly Features[] = ['relaxed', 'simd', 'plain'];
const defaultMaxThreads = 64;

/** A model after its import and the passes. */
export interface CompiledGraph {
  readonly imported: ImportedModel;
  readonly graph: Graph;
}

/** Imports a model and runs the passes, up to `stopAfter` if given. */
export function compileGraph(model: string | Uint8Array, options: CompileOptions = {}): CompiledGraph {
  const { onGraph, onProgress, stopAfter } = options;
  onProgress?.('import', 0, 1);
  const imported = importModel(model, importOptions(options));
  onGraph?.(imported.graph, 'import', 0);
  if (stopAfter === 'import') return { imported, graph: imported.graph };
  const normed = options.norm ? rewriteNorms(imported, options.norm, targetOf(options)).graph : imported.graph;
  if (normed !== imported.graph) onGraph?.(normed, 'rewrite-norms', 0);
  const start = options.f16 && options.backend === 'wgsl' ? halfPrecision(normed, targetOf(options)) : normed;
  if (start !== normed) onGraph?.(start, 'half-precision', 0);
  const graph = runPipeline(start, targetOf(options), { ...(onGraph && { onGraph }), ...(onProgress && { onProgress }), ...(stopAfter !== undefined && { stopAfter }) });
  return { imported, graph };
}

/**
 * Compiles an ONNX model, from its path or its bytes (external data needs the path), to an artifact in memory. What is wrong with the model, and what is not
 * supported, is a UserError that names file, node and cause. Loaded in this process, the artifact compiles other specialisations in a worker thread when they are asked for, as long as
 * the model's file stays as it is; that a model does not fit the inputs is then an InputError of run().
 */
export async function compile(model: string | Uint8Array, options: CompileOptions = {}): Promise<Artifact> {
  const artifact = await compileOne(model, options);
  if (options.backend !== 'wgsl' || !options.fallback) return artifact;
  const { onGraph: _, ...rest } = options;
  return withFallback(artifact, await compileOne(model, { ...rest, backend: 'wasm' }));
}

/** Compiles a model for the one backend that is named. */
async function compileOne(model: string | Uint8Array, options: CompileOptions): Promise<Artifact> {
  if (options.train) return compileTraining(model, options, options.train);
  const unchanged = typeof model === 'string' ? fileWatch(model) : () => {};
  return artifactOf(compileGraph(model, options), options, (manifest, wanted) => asInputError(() => {
    unchanged();
    const other = specialised(options, manifest, wanted);
    return workerExists() ? compileInWorker(model, other) : compile(model, other);
  }));
}

/** Plans a graph after the passes and emits its modules. `recompile` makes other specialisations of the same model, where that is possible. */
export async function artifactOf(
  { imported, graph }: { readonly imported: Pick<ImportedModel, 'bound' | 'dims' | 'warnings'>; readonly graph: Graph },
  options: CompileOptions = {},
  recompile?: (manifest: Manifest, wanted: SpecialisationRequest) => Promise<ArtifactObject>,
): Promise<Artifact> {
  options.onProgress?.('plan', 0, 1);
  return emitArtifact(imported, inStage('plan', graph, () => plan(graph, targetOf(options))), options, undefined, recompile);
}

/** Compiles a model to a step of training and an evaluation over the same state. */
async function compileTraining(model: string | Uint8Array, options: CompileOptions, train: TrainOptions): Promise<Artifact> {
  const { onGraph, onProgress } = options;
  if (options.f16 && options.backend === 'wgsl' && train.precision !== 'mixed') throw new UserError('a step in f16 keeps its parameters in f32 and stores f16 in between: it needs mixed precision (--precision mixed)');
  const target = targetOf(options);
  onProgress?.('import', 0, 1);
  const imported = normalized(importModel(model, importOptions(options)), options.norm);
  onGraph?.(imported.graph, 'import', 0);
  const hooks = { ...(onGraph && { onGraph }), ...(onProgress && { onProgress }) };
  const inference = normalized(importModel(model, { ...importOptions(options), inference: true }), options.norm, true);
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
  const artifact = { ...(await emitArtifact(imported, program, options, stateRoles(step.graph, imported), undefined, rewritten && { [rewrittenFile]: [rewritten] })), ...(fit && { fit: fit.fit }), ...(rewritten && { rewritten }) };
  const { trained } = scalarsOf(imported.graph, imported.statistics, train);
  const counted = trained.length === 0 ? [] : [`the single numbers ${trained.map((n) => `"${n}"`).join(', ')} are trained, as their names are those of parameters; freeze those that are constants`];
  const within = step.joins.slice(0, 1).map((op) => `${op} joins the samples of a micro-batch alone: the step differs from that of the whole batch`);
  return { ...artifact, warnings: [...artifact.warnings, ...counted, ...within], explain: explainOver(step.graph) };
}

interface BuiltStep { readonly step: TrainingStep; readonly program: TileProgram }

/** What makes the arena of a step smaller. */
interface Lever { readonly microBatch?: number; readonly recompute?: Recompute }

/** Plans steps over ever fewer samples, or ever more recomputation, until one stays under the limit. */
function fitStep(limit: number, train: TrainOptions, build: (lever: Lever) => BuiltStep): { readonly fit: MemoryFit; readonly lever: Lever; readonly chosen: BuiltStep } {
  if (train.microBatch !== undefined) throw new UserError('a limit of memory chooses how many samples are computed at a time: give either the limit or the micro-batch');
  const whole = build({});
  const { inputs } = whole.program.graph;
  const target = inputs.find((v) => v.name === targetName);
  const batch = (target ?? inputs[0])?.type.shape[0] ?? 1;
  const leverOf = (samples: number, recompute?: Recompute): Lever => ({ ...(samples !== batch && { microBatch: samples }), ...(recompute && { recompute }) });
  let chosen = whole;
  const fit = fitMemory(limit, batch, (samples, recompute) => {
    if (!target && samples !== batch) throw new Unsupported('training over parts of a batch with a loss that the model computes', 'the model computes its own loss, so it cannot be trained over parts of its batch; train with a loss of the compiler');
    const built = samples === batch && !recompute ? whole : build(leverOf(samples, recompute));
    // Of all that fit the last one is chosen.
    if (built.program.memory.temps <= limit) chosen = built;
    return built.program.memory.temps;
  });
  return { fit, lever: leverOf(fit.samples, fit.recompute), chosen };
}

/** The model with its normalizations rewritten; `inference`: in the form that inference has. */
function normalized(imported: ImportedModel, norm: NormSpec | undefined, inference = false): ImportedModel {
  return norm ? { ...imported, ...rewriteNorms(imported, norm, wasmTarget, { inference }) } : imported;
}

/** The machine that a compilation plans for. */
const targetOf = ({ backend, target, f16 }: CompileOptions): Target => (backend === 'wgsl' ? (f16 ? wgslHalfTarget : wgslTarget) : target ? wasmTargetOf(target) : wasmTarget);

function importOptions({ dims, values, shapes, file, train }: CompileOptions): ImportOptions {
  return { ...(train && { seeded: true }), ...(dims && { dims }), ...(values && { values }), ...(shapes && { shapes }), ...(file !== undefined && { file }) };
}

/** Emits the modules of a program and joins them to an artifact. `roles`: of the state of a training program. */
async function emitArtifact(
  imported: Pick<ImportedModel, 'bound' | 'dims' | 'warnings'>, program: TileProgram, options: CompileOptions,
  roles: ReadonlyMap<string, StateEntry['role']> | undefined, recompile?: (manifest: Manifest, wanted: SpecialisationRequest) => Promise<ArtifactObject>, files: Files = {},
): Promise<Artifact> {
  if (options.backend === 'wgsl') {
    options.onProgress?.('emit wgsl', 0, 1);
    const gpu = inStage('emit wgsl', program.graph, () => emitGpu(imported, program, { profile: options.profile ?? false, producer: `tilewright ${version()}`, machine: machineOf(options.gpuLimits, options) }, roles));
    const chunks = safetensorsChunks(weightsOf(program));
    return {
      manifest: gpu.manifest,
      modules: {},
      shaders: gpu.shaders,
      weights: chunkSource(chunks, 'weights.safetensors'),
      ...(recompile && { recompile: (wanted: SpecialisationRequest) => recompile(gpu.manifest, wanted) }),
      program,
      warnings: imported.warnings,
      ...savedAs(() => filesOf(gpu.manifest, {}, chunks, { ...files, ...gpu.files })),
    };
  }
  // Binaryen takes a while to start; a model that is refused should not wait for it.
  const { emitWasm } = await import('../../backends/wasm/module.ts');
  const features = options.features ?? defaultFeatures;
  const emitted: { features: Features; file: string; module: WasmModule }[] = [];
  for (const [i, f] of features.entries()) {
    options.onProgress?.(`emit ${f}`, i, features.length);
    emitted.push({ features: f, file: i === 0 ? 'model.wasm' : `model.${f}.wasm`, module: inStage(`emit ${f}`, program.graph, () => emitWasm(program, f, { profile: options.profile ?? false })) });
  }
  const [first] = emitted;
  if (!first) throw new TypeError('compile needs at least one feature set');
  const manifest = makeManifest(
    imported,
    program,
    {
      modules: emitted.map((e) => ({ features: e.features, file: e.file, memoryFlag: e.module.memoryFlag })),
      steps: first.module.steps,
      scratch: Math.max(...emitted.map((e) => e.module.scratch)),
      scratchPerThread: Math.max(...emitted.map((e) => e.module.scratchPerThread)),
      maxThreads: options.maxThreads ?? defaultMaxThreads,
      profile: first.module.profile,
      training: roles && { roles, entrySteps: first.module.entrySteps },
      target: options.target && targetData(options.target),
    },
    `tilewright ${version()}`,
  );
  const chunks = safetensorsChunks(weightsOf(program));
  const modules = Object.fromEntries(emitted.map((e) => [e.file, e.module.binary]));
  return {
    manifest,
    modules,
    weights: chunkSource(chunks, 'weights.safetensors'),
    ...(recompile && { recompile: (wanted) => recompile(manifest, wanted) }),
    program,
    warnings: imported.warnings,
    ...savedAs(() => filesOf(manifest, modules, chunks, files)),
  };
}

/** Runs a stage after the passes; what it throws, unless it is the user's to mend, carries the graph for the report. */
function inStage<T>(stage: string, graph: Graph, run: () => T): T {
  try {
    return run();
  } catch (e) {
    throw e instanceof UserError ? e : new PassError(stage, graph, e);
  }
}

/** The model does not fit the inputs of a run: an error of its caller, who knows the runtime's errors. */
async function asInputError<T>(compiling: () => Promise<T>): Promise<T> {
  try {
    return await compiling();
  } catch (e) {
    throw e instanceof UserError ? new InputError(`the model cannot be compiled for these inputs: ${e.message}`, { cause: e }) : e;
  }
}

/** Options for other shapes and values: they replace the dimensions that were given by name. */
function specialised(options: CompileOptions, manifest: Manifest, wanted: SpecialisationRequest): CompileOptions {
  const { dims: _, ...rest } = options;
  const value = (name: string, given: InputValue): Tensor => {
    const bound = manifest.bound.find((b) => b.name === name)!;
    return tensorOf(bound, given);
  };
  return { ...rest, shapes: wanted.shapes, values: { ...options.values, ...Object.fromEntries(Object.entries(wanted.bound).map(([k, v]) => [k, value(k, v)])) } };
}

/** How an artifact with these files is saved. */
const savedAs = (files: Artifact['files']): Pick<Artifact, 'files' | 'save'> => ({ files, save: async (folder) => writeFolder(folder, await files()) });

async function filesOf(manifest: Manifest, modules: Readonly<Record<string, Uint8Array>>, weights: readonly Uint8Array[], files: Files): Promise<Files> {
  const { js, declarations } = await bindings(manifest);
  const text = (s: string): Uint8Array[] => [new TextEncoder().encode(s)];
  return {
    ...Object.fromEntries(Object.entries(modules).map(([file, binary]) => [file, [binary]])),
    'manifest.json': [manifestBytes(manifest)],
    'weights.safetensors': weights,
    'model.js': text(js),
    'model.d.ts': text(declarations),
    ...files,
  };
}

let known: string | undefined;
/** The package's version: two folders up in a checkout, three in the package. */
export function version(): string {
  known ??= ['../../package.json', '../../../package.json'].flatMap((path) => {
    try {
      return [(JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8')) as { version: string }).version];
    } catch {
      return [];
    }
  })[0] ?? 'unknown';
  return known;
}
