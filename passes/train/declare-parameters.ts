import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph, State, Value } from '../../ir/graph.ts';
import { isFloat } from '../../ir/type.ts';
import { matches, type TrainOptions } from './options.ts';

/** A running statistic, and what a run in training mode makes of it. */
export interface Statistic {
  readonly state: Value;
  readonly next: Value | undefined;
}

/**
 * Marks what training changes: a parameter is updated by itself until an optimizer gives it another value, so that no pass takes it for a constant, and a
 * running statistic is updated by what the norm computes. Frozen parameters stay constants and fold.
 */
export function declareParameters(graph: Graph, statistics: readonly Statistic[], options: Pick<TrainOptions, 'only' | 'freeze'>): Graph {
  const floats = floatsOf(graph, statistics);
  for (const [what, patterns] of [['only', options.only], ['freeze', options.freeze]] as const) {
    const idle = patterns?.find((p) => !floats.some((s) => matches(s.name, [p])));
    if (idle !== undefined) throw new UserError(`${what === 'only' ? 'the parameters to train are' : 'the parameters to freeze are'} named by ${JSON.stringify(idle)}, but the model has none of that name; it has ${listed(floats.map((s) => s.name))}`);
  }
  const parameters = floats.filter((s) => isTrained(s, options));
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

/**
 * Whether a float initializer is trained: one that a pattern names, else each of rank 1 and more. A tensor of rank 0 is how exporters write the numbers of a formula (an epsilon, a
 * half, the root of a head's size), under names that they make up (`val_12`, `/attention/Constant_output_0`): without a pattern it only counts where it has the name of a module's
 * parameter, a path with dots (`blocks.1.gain`).
 */
const isTrained = (s: State, { only, freeze = [] }: Pick<TrainOptions, 'only' | 'freeze'>): boolean => (only ? matches(s.name, only) : !isScalar(s) || modulePath.test(s.name)) && !matches(s.name, freeze);
const isScalar = (s: State): boolean => s.value.type.shape.length === 0;
const modulePath = /^\w+(\.\w+)+$/;

/** Names of the single numbers (float initializers of rank 0) that no pattern decides on: those that are trained, and those that stay as they are. */
export function scalarsOf(graph: Graph, statistics: readonly Statistic[], options: Pick<TrainOptions, 'only' | 'freeze'>): { readonly trained: string[]; readonly kept: string[] } {
  const open = options.only ? [] : floatsOf(graph, statistics).filter((s) => isScalar(s) && !matches(s.name, options.freeze ?? []));
  const names = (trained: boolean): string[] => open.filter((s) => isTrained(s, options) === trained).map((s) => s.name);
  return { trained: names(true), kept: names(false) };
}

function floatsOf(graph: Graph, statistics: readonly Statistic[]): State[] {
  const running = new Set(statistics.map((s) => s.state));
  return graph.state.filter((s) => !running.has(s.value) && isFloat(s.value.type.dtype));
}

/** The first few of a list of names. */
const listed = (names: readonly string[]): string => `${names.slice(0, 8).map((n) => JSON.stringify(n)).join(', ')}${names.length > 8 ? ` and ${names.length - 8} more` : ''}`;

/** The parameters that declare-parameters has marked and no pass has updated yet. */
export function declaredParameters(graph: Graph): State[] {
  const own = new Set(graph.updates.filter((u) => u.state === u.value).map((u) => u.state));
  return graph.state.filter((s) => own.has(s.value) && isFloat(s.value.type.dtype));
}
