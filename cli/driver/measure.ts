/** Runs a model for the statistics of its normalizations. */
import type { ImportedModel } from '../../frontend/index.ts';
import { UserError } from '../../ir/diagnostic.ts';
import { measureNorms, type MeasuredNorm } from '../../passes/norm/measure-norms.ts';
import type { InstanceMoments } from '../../passes/norm/channel-statistics.ts';
import type { NormalizedModel } from '../../passes/norm/rewrite-norms.ts';
import { runPipeline } from '../../passes/pipeline.ts';
import { rebindBatch } from '../../passes/train/rebind-batch.ts';
import { loadSession } from '../../runtime/session.ts';
import type { TypedArray } from '../../runtime/tensor.ts';
import { artifactOf } from './compile.ts';
import { wasmTarget } from './target.ts';

/** Inputs of a batch, by name. */
export type Batch = Readonly<Record<string, TypedArray>>;

export interface Measured {
  readonly norms: readonly MeasuredNorm[];
  /** Normalizations that are not measured. */
  readonly left: ReturnType<typeof measureNorms>['left'];
}

/** Runs every batch; `rewritten` as in measureNorms; `begin` is told the norms, and what it returns is given what each batch measures of each of them. A model that was exported with another batch is rebound. */
export async function measure(
  model: NormalizedModel & Pick<ImportedModel, 'bound' | 'dims' | 'warnings'>, batch: number, batches: Iterable<Batch>,
  begin: (norms: readonly MeasuredNorm[]) => (norm: number, moments: InstanceMoments) => void,
  rewritten?: Parameters<typeof measureNorms>[2],
): Promise<Measured> {
  const { graph, norms, left } = measureNorms(model, wasmTarget, rewritten);
  if (norms.length === 0) throw new UserError(`the model has no normalization over channels on axis 1${left[0] ? ` that can be measured: ${left[0].node} ${left[0].why}` : ''}`);
  const see = begin(norms);
  const sized = graph.inputs.every((v) => v.type.shape[0] === batch) ? graph : rebindBatch(graph, batch);
  const artifact = await artifactOf({ imported: model, graph: runPipeline(sized, wasmTarget) }, { features: ['relaxed', 'simd', 'plain'] });
  await using session = await loadSession(artifact);
  for (const inputs of batches) {
    const outputs = await session.run(inputs);
    norms.forEach(({ outputs: { mean, m2 } }, i) => see(i, { mean: outputs[mean]!.data as Float32Array, m2: outputs[m2]!.data as Float32Array }));
  }
  return { norms, left };
}
