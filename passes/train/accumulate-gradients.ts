import { Builder } from '../../ir/builder.ts';
import { Unsupported, UserError, invariant } from '../../ir/diagnostic.ts';
import { definitions, type Graph, type Op, type Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { isFloat, showType } from '../../ir/type.ts';
import { outputNamed, targetName } from './add-loss.ts';
import { backward, dependents, describe } from './backward.ts';
import { clone } from './clone.ts';
import { declaredParameters } from './declare-parameters.ts';
import { ancestors, blocked, lossName } from './differentiate.ts';
import { extend, gradientName } from './extend.ts';
import { lossCount, lossSum, targetType } from './loss.ts';
import type { LossSpec } from './options.ts';
import { rebound } from './rebind-batch.ts';
import { followSamples, sampleAxis, type SampleFactors, type Samples } from './samples.ts';

export interface Accumulation {
  readonly loss: LossSpec;
  /** The output that the loss judges. */
  readonly output: string | undefined;
  /** Samples of one iteration. */
  readonly microBatch: number;
  /** Lets ops that join samples (batch norms) join those of a micro-batch alone: the step then differs from one over the whole batch. */
  readonly joinWithin: boolean;
}

/**
 * Adds loss and gradients as add-loss and differentiate do, but computes them in a loop over micro-batches. What depends on parameters alone stays before the loop and is differentiated
 * once, after it, from the sums of its cotangents. The loss is divided by the whole batch, and random numbers are those of the whole batch, so the step is that of the whole batch up
 * to rounding: where it cannot be, because an op joins samples, that op is named.
 */
export function accumulateGradients(graph: Graph, options: Accumulation): Graph {
  const { loss, microBatch, joinWithin } = options;
  if (loss.kind === 'output') throw new Unsupported('micro-batches of a loss that the model computes', 'the model computes its own loss, so its share of the whole batch is not known; train with a loss of the compiler, or without micro-batches');
  const samples = followSamples(graph);
  const [join] = samples.joins;
  if (join && !joinWithin) throw new UserError(`${describe(join)} joins the samples of a batch, so micro-batches would give other numbers than the whole batch; train without micro-batches, or allow it to join within a micro-batch`);
  if (samples.batch % microBatch !== 0 || microBatch < 1) throw new UserError(`a batch of ${samples.batch} does not divide into micro-batches of ${microBatch}; give a divisor of the batch`);

  const judged = outputNamed(graph, options.output);
  const cut = cutGraph(graph, samples, microBatch);
  const count = samples.batch / microBatch;
  const { prefix } = cut;
  const bare: Graph = { ...graph, ops: prefix, outputs: graph.outputs.filter((o) => !cut.inBody(o.value)), updates: graph.updates.filter((u) => !cut.inBody(u.value)) };
  return extend(bare, (x) => {
    const { b } = x;
    const target = x.input(targetName, targetType(loss, judged.type));
    const divisor = lossCount(b, loss, judged.type, target);
    const parameters = declaredParameters(graph);
    const fed = dependents(prefix, parameters.map((p) => p.value));
    const loop = new LoopBody(cut.defs);

    // The body: slices of inputs, targets and random numbers, the model, the loss, its gradient.
    const model = new Map<Value, Value>();
    for (const v of graph.inputs) model.set(cut.at(v), loop.slice(b, v, samples.factors.get(v)!, samples.batch, microBatch));
    for (const op of cut.random) {
      const [v] = op.results;
      model.set(cut.at(v!), loop.slice(b, v!, samples.factors.get(v!)!, samples.batch, microBatch));
    }
    const carried = graph.updates.filter((u) => cut.inBody(u.value)).map((u) => ({ ...u, inside: loop.carry(u.state, u.state.name) }));
    for (const { state, inside } of carried) model.set(state, inside);
    for (const op of cut.body) {
      for (const v of op.operands) if (!model.has(v)) model.set(v, loop.capture(v));
      loop.b.append(clone(op, model));
    }
    const inside = (v: Value): Value => model.get(cut.at(v))!;
    const targets = loop.slice(b, target, target.type.shape.map((size, a) => (a === 0 ? [{ size, mark: 'n' }] : [{ size, mark: 'other' }])), samples.batch, microBatch);
    const part = lossSum(loop.b, loss, inside(judged), targets);
    const share = loop.capture(b.div(1, divisor));
    const wanted = [...loop.captured].filter(([outer]) => fed.has(outer) && isFloat(outer.type.dtype)).map(([, v]) => v);
    const cotangents = backward(loop.b, loop.b.ops, new Map([[part, share]]), wanted);

    const total = loop.carry(b.zeros(part.type), lossName);
    loop.next(total, loop.b.add(total, part));
    for (const { value, inside: old } of carried) loop.next(old, inside(value));
    const sums = [...loop.captured].filter(([, v]) => cotangents.has(v)).map(([outer, v]) => {
      const sum = loop.carry(b.zeros(v.type), outer.name && gradientName(outer.name));
      loop.next(sum, loop.b.add(sum, cotangents.get(v)!));
      return { outer, sum };
    });
    const stacked = graph.outputs.filter((o) => cut.inBody(o.value)).map((o) => ({ ...o, factors: samples.factors.get(o.value) }));
    for (const { name, value, factors } of stacked) {
      if (!factors) throw new Unsupported('an output that joins samples, with micro-batches', `the output "${name}" (${showType(value.type)}) is one for the whole batch; train without micro-batches`);
      loop.collect(inside(value));
    }

    const results = loop.finish(b, count);
    stacked.forEach(({ name, value, factors }, i) => x.output(name, unstack(b, results.collected[i]!, factors!, count, value)));
    x.output(lossName, b.div(results.last(total), divisor));
    for (const { state, inside: old } of carried) x.update(state, results.last(old));
    const gradients = backward(b, prefix, new Map(sums.map(({ outer, sum }) => [outer, results.last(sum)])), parameters.map((p) => p.value));
    const connected = ancestors(graph.ops, judged);
    for (const p of parameters) if (connected.has(p.value)) x.output(gradientName(p.name), gradients.get(p.value) ?? blocked(graph, p.name, p.value, connected));
  });
}

/** A graph cut for a loop over micro-batches. */
interface Cut {
  /** What depends on neither inputs nor samples, in the order of the graph, and random numbers for the whole batch. */
  readonly prefix: readonly Op[];
  /** The rest, for one micro-batch. */
  readonly body: readonly Op[];
  /** Ops of the prefix that draw numbers for each sample. */
  readonly random: readonly Op[];
  readonly defs: ReadonlyMap<Value, Op>;
  /** What a value of the graph is for one micro-batch. */
  at(v: Value): Value;
  /** Whether a value of the graph is computed in the loop. */
  inBody(v: Value): boolean;
}

function cutGraph(graph: Graph, samples: Samples, microBatch: number): Cut {
  const small = new Map<Value, Value>();
  const rebuilt = rebound(graph, samples, microBatch, small);
  const at = (v: Value): Value => small.get(v) ?? v;
  const body = new Set<Value>(graph.inputs);
  const random: Op[] = [];
  for (const op of graph.ops) {
    if (opDef(op.name).family === 'random' && samples.factors.has(op.results[0]!)) random.push(op);
    if (op.operands.some((v) => body.has(v)) || op.results.some((r) => samples.factors.has(r))) op.results.forEach((r) => body.add(r));
  }
  const inside = new Set([...body].map(at));
  const skipped = new Set(random.map((op) => at(op.results[0]!)));
  return {
    prefix: graph.ops.filter((op) => random.includes(op) || !op.results.some((r) => body.has(r))),
    body: rebuilt.ops.filter((op) => op.results.some((r) => inside.has(r)) && !op.results.some((r) => skipped.has(r))),
    random,
    defs: definitions(rebuilt),
    at,
    inBody: (v) => body.has(v),
  };
}

/** The region of the loop while it is built. */
class LoopBody {
  readonly b = new Builder('micro-batch');
  /** Values of the outer graph that the body reads, and what they are inside. */
  readonly captured = new Map<Value, Value>();
  readonly #index: Value = { type: { dtype: 'i64', shape: [] }, name: 'micro-batch' };
  readonly #carried: { readonly start: Value; readonly inside: Value; next: Value }[] = [];
  readonly #collected: Value[] = [];
  readonly #defs: ReadonlyMap<Value, Op>;

  constructor(defs: ReadonlyMap<Value, Op>) {
    this.#defs = defs;
  }

  /** An outer value inside the body; constants are repeated there. */
  capture(outer: Value): Value {
    const op = this.#defs.get(outer);
    if (op?.name === 'constant') {
      const map = new Map<Value, Value>();
      this.b.append(clone(op, map));
      return map.get(outer)!;
    }
    const before = this.captured.get(outer);
    if (before) return before;
    const value: Value = { type: outer.type, name: outer.name };
    this.captured.set(outer, value);
    return value;
  }

  /** The part of a value of the whole batch that belongs to an iteration. */
  slice(outer: Builder, v: Value, factors: SampleFactors, batch: number, microBatch: number): Value {
    const { axis, before, after } = around(factors);
    const { shape } = v.type;
    const split = outer.reshape(v, shape.toSpliced(axis, 1, before, batch / microBatch, microBatch * after));
    const part = this.b.one('gather', [this.capture(split), this.#index], { axis: axis + 1 });
    return this.b.reshape(part, shape.with(axis, before * microBatch * after));
  }

  /** A value that each iteration replaces; it starts as a value of the outer graph. */
  carry(start: Value, name: string | undefined): Value {
    const inside: Value = { type: start.type, name };
    this.#carried.push({ start, inside, next: inside });
    return inside;
  }

  next(inside: Value, value: Value): void {
    const found = this.#carried.find((c) => c.inside === inside);
    invariant(found, 'the value is not carried');
    found.next = value;
  }

  collect(value: Value): void {
    this.#collected.push(value);
  }

  /** Adds the loop to the outer graph. */
  finish(outer: Builder, trips: number): { last(inside: Value): Value; readonly collected: readonly Value[] } {
    const captured = [...this.captured];
    this.b.adopt({ inputs: [this.#index, ...this.#carried.map((c) => c.inside), ...captured.map(([, v]) => v)], state: [] });
    const region = this.b.finish([
      { name: 'continue', value: this.b.scalar(1, 'bool') },
      ...this.#carried.map((c, i) => ({ name: `next${i}`, value: c.next })),
      ...this.#collected.map((value, i) => ({ name: `collected${i}`, value })),
    ]);
    const operands = [outer.scalar(trips, 'i64'), outer.scalar(1, 'bool'), ...this.#carried.map((c) => c.start), ...captured.map(([v]) => v)];
    const results = outer.op('loop', operands, { trips, carried: this.#carried.length, scans: this.#collected.length }, [region]);
    return { last: (inside) => results[this.#carried.findIndex((c) => c.inside === inside)]!, collected: results.slice(this.#carried.length) };
  }
}

/** The rows that iterations collected, as one value of the whole batch. */
function unstack(b: Builder, stack: Value, factors: SampleFactors, count: number, whole: Value): Value {
  const { axis, before } = around(factors);
  const [, ...shape] = stack.type.shape;
  const rest = shape[axis]! / before;
  const split = b.reshape(stack, [count, ...shape.slice(0, axis), before, rest, ...shape.slice(axis + 1)]);
  const perm = [...split.type.shape.keys()];
  return b.reshape(b.transpose(split, perm.slice(1).toSpliced(axis + 1, 0, 0)), whole.type.shape);
}

/** The axis that holds samples, and how many elements stand before and after them on it. */
function around(factors: SampleFactors): { readonly axis: number; readonly before: number; readonly after: number } {
  const axis = sampleAxis(factors);
  const own = factors[axis]!;
  const n = own.findIndex((f) => f.mark === 'n');
  const product = (fs: SampleFactors[number]): number => fs.reduce((p, f) => p * f.size, 1);
  return { axis, before: product(own.slice(0, n)), after: product(own.slice(n + 1)) };
}
