import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph, State, Value } from '../../ir/graph.ts';
import { isFloat } from '../../ir/type.ts';
import { matches } from './options.ts';

/** A running statistic, and what a run in training mode makes of it. */
export interface Statistic {
  readonly state: Value;
  readonly next: Value | undefined;
}

/**
 * Marks what training changes: a parameter is updated by itself until an optimizer gives it another value, so that no pass takes it for a constant, and a
 * running statistic is updated by what the norm computes. Frozen parameters stay constants and fold.
 */
export function declareParameters(graph: Graph, statistics: readonly Statistic[], freeze: readonly string[]): Graph {
  const running = new Set(statistics.map((s) => s.state));
  const parameters = graph.state.filter((s) => !running.has(s.value) && isFloat(s.value.type.dtype) && !matches(s.name, freeze));
  if (parameters.length === 0) throw new UserError('the model has no parameters to train: it has no float weights, or all of them are frozen');
  const narrow = parameters.find((s) => s.value.type.dtype !== 'f32' && s.value.type.dtype !== 'f64');
  if (narrow) throw new Unsupported(`training of ${narrow.value.type.dtype} parameters`, `the parameter "${narrow.name}" is ${narrow.value.type.dtype}: training needs f32 or f64 parameters; convert the model, or freeze that parameter`);
  const updates = statistics.flatMap(({ state, next }) => (next ? [{ state, value: next }] : []));
  const twice = updates.find((u, i) => updates.findIndex((v) => v.state === u.state) !== i);
  if (twice) {
    throw new UserError(`the running statistic "${twice.state.name}" is updated by several normalizations: their batches differ, so the statistics of none of them would be right; give each a copy of its own`);
  }
  return { ...graph, updates: [...parameters.map((s) => ({ state: s.value, value: s.value })), ...updates] };
}

/** The parameters that declare-parameters has marked and no pass has updated yet. */
export function declaredParameters(graph: Graph): State[] {
  const own = new Set(graph.updates.filter((u) => u.state === u.value).map((u) => u.state));
  return graph.state.filter((s) => own.has(s.value) && isFloat(s.value.type.dtype));
}
