import type { Graph } from '../../ir/graph.ts';
import type { Target } from '../../ir/tile.ts';
import { isFloat } from '../../ir/type.ts';
import { eliminateDeadCode } from '../eliminate-dead-code.ts';
import { runPipeline, type PipelineOptions } from '../pipeline.ts';
import { addLoss } from './add-loss.ts';
import { averageName } from './average-weights.ts';
import { computeInParts } from './compute-in-parts.ts';
import type { TrainingStep } from './pipeline.ts';
import type { LossSpec } from './options.ts';
import { rebindBatch } from './rebind-batch.ts';

export interface EvaluationOptions {
  /** Adds the loss, and the target as an input; undefined leaves the model's outputs alone. */
  readonly loss?: LossSpec;
  /** The output that the loss judges; the model's first one unless given. */
  readonly output?: string;
  readonly batch?: number;
  /** Computes so many samples at a time, in a loop; without the loss, which joins them. */
  readonly microBatch?: number;
  /** Reads the moving averages of parameters in their place; the training step has to keep them. */
  readonly average?: boolean;
}

/**
 * Makes the graph that judges a model while it trains: the model imported for inference, over the state of its training step. What the training step updates is no constant
 * here either, and is read under the same names; nothing is changed.
 */
export function evaluationStep(inference: Graph, { graph: step }: TrainingStep, options: EvaluationOptions, target: Target, pipeline: PipelineOptions = {}): Graph {
  const kept = new Set(step.updates.map((u) => u.state.name));
  const state = inference.state.map((s) => {
    const average = options.average ? step.state.find((t) => t.name === averageName(s.name)) : undefined;
    return average ? { ...s, name: average.name } : s;
  });
  const updates = state.filter((s) => isFloat(s.value.type.dtype) && (kept.has(s.value.name ?? '') || kept.has(s.name))).map((s) => ({ state: s.value, value: s.value }));
  const passes = [
    { name: 'rebind-batch', run: (g: Graph): Graph => (options.batch === undefined ? g : rebindBatch(g, options.batch)) },
    { name: 'compute-in-parts', run: (g: Graph): Graph => (options.microBatch === undefined ? g : computeInParts(g, options.microBatch)) },
    { name: 'add-loss', run: (g: Graph): Graph => (options.loss ? addLoss(g, options.loss, options.output) : g) },
    { name: 'eliminate-dead-code', run: eliminateDeadCode },
  ];
  return runPipeline({ ...inference, state, updates }, target, { ...pipeline, passes });
}
