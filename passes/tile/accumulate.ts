/** A training step in two programs, so that gradients of several micro-batches add up before an update. */
import { Builder } from '../../ir/builder.ts';
import { Unsupported, UserError, invariant } from '../../ir/diagnostic.ts';
import { definitions, type Graph, type Op, type State, type Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { lossName } from '../train/differentiate.ts';
import { gradientName, parametersOf } from '../train/extend.ts';
import type { TrainOptions } from '../train/options.ts';
import { rateName } from '../train/update-parameters.ts';

/** Programs over one state, which lies alike for both: `accumulate` runs once for each micro-batch, then `update` once. */
export interface AccumulatedStep {
  readonly accumulate: Graph;
  readonly update: Graph;
}

/** The input of `accumulate` that is true for the first micro-batch of a step: sums start with it. */
export const firstName = 'first';
const sumName = (what: string): string => `${what}.sum`;

/**
 * Splits a step of one micro-batch that returns its gradients (`gradients: true`). The mean loss and the mean gradients of `count` runs stand for those of one run over all their samples. Refused are
 * losses that are no plain mean over samples, sharpness-aware minimisation, and random numbers, which would repeat from run to run.
 */
export function accumulatedStep(step: Graph, { loss, optimizer }: Pick<TrainOptions, 'loss' | 'optimizer'>, count: number): AccumulatedStep {
  const weighted = loss.kind === 'crossEntropy' && (loss.ignoreIndex !== undefined || loss.classWeights !== undefined);
  if (loss.kind === 'output' || weighted) throw new Unsupported('plans of micro-batches whose loss is no mean over samples', 'the share of a micro-batch in the loss is not known beforehand; plan without micro-batches, or with a plain loss');
  if (optimizer.sam !== undefined) throw new Unsupported('plans of micro-batches with sharpness-aware minimisation', 'its gradients are taken where those of the whole batch lead; plan without micro-batches');
  const random = step.ops.find((op) => opDef(op.name).family === 'random');
  if (random) throw new Unsupported('plans of micro-batches with random numbers', `${random.source[0] ?? random.name} would draw the same numbers for every micro-batch; plan without micro-batches, or a model without dropout`);
  const cut = new Map<Value, string>();
  for (const p of parametersOf(step)) cut.set(p.gradient, gradientName(p.state.name));
  const judged = step.outputs.find((o) => o.name === lossName)?.value;
  invariant(judged && cut.size > 0, 'the step returns its loss and its gradients');
  cut.set(judged, lossName);

  // An update belongs to each run if it reads samples other than through what is summed.
  const defs = definitions(step);
  const samples = new Set<Value>(step.inputs.filter((v) => v.name !== rateName));
  const reads = readers(defs, samples, new Set(cut.keys()));
  const ofRun = step.updates.filter((u) => reads(u.value));
  const after = step.updates.filter((u) => !reads(u.value));

  const sums = new Map<Value, State>([...cut].map(([v, name]) => [v, { value: { type: v.type, name: sumName(name) }, name: sumName(name), init: 'zero' }]));
  for (const s of sums.values()) if (step.state.some((o) => o.name === s.name)) throw new UserError(`accumulating gradients keeps a tensor "${s.name}", but the model has a weight of that name; rename the weight`);
  const state = [...step.state, ...sums.values()];
  return { accumulate: accumulation(step, sums, state, ofRun, count), update: updating(step, sums, state, after, defs) };
}

/** Forward and backward pass of a micro-batch; sums take the place of the update. */
function accumulation(step: Graph, sums: ReadonlyMap<Value, State>, state: readonly State[], updates: Graph['updates'], count: number): Graph {
  const b = new Builder(`${step.name}.accumulate`);
  b.adopt({ inputs: step.inputs.filter((v) => v.name !== rateName), state });
  const first = b.input({ dtype: 'bool', shape: [] }, firstName);
  const wanted = new Set<Value>([...sums.keys(), ...step.outputs.map((o) => o.value), ...updates.map((u) => u.value)]);
  for (const op of opsFor(step, wanted)) b.append(op);
  const changed = new Set<Value>();
  for (const u of updates) {
    b.update(u.state, u.value);
    changed.add(u.state);
  }
  for (const [value, sum] of sums) {
    const share = b.mul(value, 1 / count);
    b.update(sum.value, b.select(first, share, b.add(sum.value, share)));
    changed.add(sum.value);
  }
  keepOthers(b, state, changed);
  const gradients = new Set([...sums.values()].map((s) => s.name.slice(0, -'.sum'.length)).filter((name) => name !== lossName));
  return b.finish(step.outputs.filter((o) => !gradients.has(o.name)));
}

/** What follows from gradients and loss, read from their sums. */
function updating(step: Graph, sums: ReadonlyMap<Value, State>, state: readonly State[], updates: Graph['updates'], defs: ReadonlyMap<Value, Op>): Graph {
  const b = new Builder(`${step.name}.update`);
  b.adopt({ inputs: step.inputs.filter((v) => v.name === rateName), state });
  const at = (v: Value): Value => sums.get(v)?.value ?? v;
  for (const op of opsFor(step, new Set(updates.map((u) => u.value)), new Set(sums.keys()))) {
    invariant(op.operands.every((v) => sums.has(v) || defs.has(v) || !step.inputs.includes(v) || v.name === rateName), 'the update reads no samples but through gradients and loss');
    b.append({ ...op, operands: op.operands.map(at) });
  }
  const changed = new Set<Value>();
  for (const u of updates) {
    b.update(u.state, at(u.value));
    changed.add(u.state);
  }
  keepOthers(b, state, changed);
  return b.finish([]);
}

/** State that the other program changes is state here too, not a constant. */
function keepOthers(b: Builder, state: readonly State[], changed: ReadonlySet<Value>): void {
  for (const s of state) if (!changed.has(s.value)) b.update(s.value, s.value);
}

/** The ops that values need, in order; `given` are there already. */
function opsFor(graph: Graph, values: ReadonlySet<Value>, given: ReadonlySet<Value> = new Set()): Op[] {
  const needed = new Set([...values].filter((v) => !given.has(v)));
  const ops: Op[] = [];
  for (const op of graph.ops.toReversed()) {
    if (!op.results.some((r) => needed.has(r))) continue;
    for (const v of op.operands) if (!given.has(v)) needed.add(v);
    ops.push(op);
  }
  return ops.reverse();
}

/** Whether a value follows from others, not through those that are cut. */
function readers(defs: ReadonlyMap<Value, Op>, from: ReadonlySet<Value>, cut: ReadonlySet<Value>): (v: Value) => boolean {
  const known = new Map<Value, boolean>();
  for (const op of new Set(defs.values())) {
    const answer = op.operands.some((v) => from.has(v) || (known.get(v) === true && !cut.has(v)));
    for (const r of op.results) known.set(r, answer);
  }
  return (v) => from.has(v) || (known.get(v) === true && !cut.has(v));
}
