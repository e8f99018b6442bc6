/** From an ONNX model and options to the graph that is planned. */
import { importModel } from '../../frontend/index.ts';
import type { Graph } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import type { NormSpec } from '../../passes/norm/options.ts';
import { rewriteNorms } from '../../passes/norm/rewrite-norms.ts';
import { accumulatedStep, type AccumulatedStep } from '../../passes/tile/accumulate.ts';
import { prepare, simplified } from '../../passes/tile/prepare.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import { trainingStep } from '../../passes/train/pipeline.ts';
import { wasmTarget } from '../driver/target.ts';
import { boundBatch } from '../train/model.ts';

/** What is planned. */
export interface Wanted {
  readonly model: string;
  readonly batch: number;
  readonly dtype: 'f16' | 'f32';
  readonly norm?: NormSpec;
  readonly train?: TrainOptions;
  readonly dims?: Readonly<Record<string, number>>;
  readonly values?: Readonly<Record<string, Tensor>>;
}

/** The simplified graph of a model at a batch, ready to be prepared at any level of recomputation. */
export function buildGraph(wanted: Wanted): Graph {
  return simplified(coreGraph(wanted, false), wasmTarget, { dtype: wanted.dtype });
}

/** The same of a training step whose gradients add up over `count` runs of the batch. */
export function buildAccumulated(wanted: Wanted & { readonly train: TrainOptions }, count: number): AccumulatedStep {
  const { accumulate, update } = accumulatedStep(coreGraph(wanted, true), wanted.train, count);
  const simple = (g: Graph): Graph => simplified(g, wasmTarget, { dtype: wanted.dtype });
  return { accumulate: simple(accumulate), update: simple(update) };
}

function coreGraph(wanted: Wanted, gradients: boolean): Graph {
  const bound = boundBatch(wanted.model, wanted.batch, wanted.dims ?? {});
  const imported = importModel(wanted.model, { dims: bound.dims, ...(wanted.values && { values: wanted.values }), ...(!wanted.train && { inference: true }) });
  const model = wanted.norm ? rewriteNorms(imported, wanted.norm, wasmTarget, { inference: !wanted.train }) : imported;
  if (!wanted.train) return model.graph;
  return trainingStep(model.graph, model.statistics, { ...wanted.train, ...(gradients && { gradients }), ...(bound.batch !== undefined && { batch: bound.batch }) }, wasmTarget).graph;
}

/** The ops that tiles run. */
export const prepared = (graph: Graph, recompute: Recompute): Graph => prepare(graph, wasmTarget, { recompute });
