/** Drives a compilation from an ONNX model to an artifact. */
import { importModel, type ImportedModel } from '../../frontend/index.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import { halfPrecision } from '../../passes/half-precision.ts';
import { reportOf, rewriteNorms, type RewriteReport } from '../../passes/norm/rewrite-norms.ts';
import { runPipeline } from '../../passes/pipeline.ts';
import { plan } from '../../passes/plan.ts';
import type { SpecialisationRequest } from '../../runtime/artifact.ts';
import { InputError } from '../../runtime/error.ts';
import { tensorOf, type InputValue } from '../../runtime/inputs.ts';
import type { Manifest } from '../../runtime/manifest.ts';
import { compileInWorker, workerExists } from './compile-in-worker.ts';
import type { Artifact } from './compile/artifact.ts';
import { emitArtifact, type ImportFacts, type Respecialise } from './compile/emit.ts';
import { importOptions, targetOf, type CompileOptions } from './compile/options.ts';
import { inStage } from './compile/stage.ts';
import { compileTraining } from './compile/training.ts';
import { withFallback } from './fallback.ts';
import { fileWatch } from './file-watch.ts';

export type { Artifact } from './compile/artifact.ts';
export { defaultFeatures } from './compile/emit.ts';
export type { Backend, CompileOptions } from './compile/options.ts';

/** A model after its import and the passes. */
export interface CompiledGraph {
  readonly imported: ImportedModel;
  readonly graph: Graph;
  /** What became of normalizations that were to be rewritten. */
  readonly norms?: RewriteReport;
}

/** Imports a model and runs the passes, up to `stopAfter` if given. */
export function compileGraph(model: string | Uint8Array, options: CompileOptions = {}): CompiledGraph {
  const { onGraph, onProgress, stopAfter } = options;
  onProgress?.('import', 0, 1);
  const imported = importModel(model, importOptions(options));
  onGraph?.(imported.graph, 'import', 0);
  if (stopAfter === 'import') return { imported, graph: imported.graph };
  const rewrite = options.norm && rewriteNorms(imported, options.norm, targetOf(options), { inference: true });
  const normed = rewrite?.graph ?? imported.graph;
  if (normed !== imported.graph) onGraph?.(normed, 'rewrite-norms', 0);
  const start = options.f16 && options.backend === 'wgsl' ? halfPrecision(normed, targetOf(options)) : normed;
  if (start !== normed) onGraph?.(start, 'half-precision', 0);
  const graph = runPipeline(start, targetOf(options), { ...(onGraph && { onGraph }), ...(onProgress && { onProgress }), ...(stopAfter !== undefined && { stopAfter }) });
  return { imported, graph, ...(rewrite && { norms: reportOf(rewrite) }) };
}

/**
 * Compiles an ONNX model, from its path or its bytes (external data needs the path), to an artifact in memory. What is wrong with the model, and what is not
 * supported, is a UserError that names file, node and cause. Loaded in this process, the artifact compiles other specialisations in a worker thread when they are asked for, as long as
 * the model's file stays as it is; that a model does not fit the inputs is then an InputError of run().
 */
export async function compile(model: string | Uint8Array, options: CompileOptions = {}): Promise<Artifact> {
  const artifact = await compileOne(model, options);
  if (options.backend !== 'wgsl' || !options.fallback) return artifact;
  // What describes the GPU, or shows its graphs, is not for the module.
  const { onGraph: _graph, target: _target, gpuLimits: _limits, f16: _f16, ...rest } = options;
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
  { imported, graph, norms }: { readonly imported: ImportFacts; readonly graph: Graph; readonly norms?: RewriteReport },
  options: CompileOptions = {},
  recompile?: Respecialise,
): Promise<Artifact> {
  options.onProgress?.('plan', 0, 1);
  const artifact = await emitArtifact(imported, inStage('plan', graph, () => plan(graph, targetOf(options))), options, { recompile });
  return norms ? { ...artifact, norms } : artifact;
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
