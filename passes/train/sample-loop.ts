/** Loops over the samples of a batch: how a graph is cut for one, and its region while it is built. */
import { Builder } from '../../ir/builder.ts';
import { invariant } from '../../ir/diagnostic.ts';
import { definitions, type Graph, type Op, type Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { clone } from './clone.ts';
import { rebound } from './rebind-batch.ts';
import { sampleAxis, type SampleFactors } from './sample-factors.ts';
import type { Samples } from './samples.ts';

/** A graph cut for a loop over micro-batches. */
export interface Cut {
  /** What depends on no samples, in the order of the graph, and random numbers for the whole batch. */
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

/** Cuts a graph whose samples have been followed. */
export function cutGraph(graph: Graph, samples: Samples, microBatch: number): Cut {
  const small = new Map<Value, Value>();
  const rebuilt = rebound(graph, samples, microBatch, small);
  const at = (v: Value): Value => small.get(v) ?? v;
  const body = new Set<Value>(graph.inputs.filter((v) => samples.factors.has(v)));
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
export class LoopBody {
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

  /** Puts an iteration's part of inputs that hold samples and of random numbers into `model`, from values of the cut graph to values of the region. */
  feed(outer: Builder, inputs: readonly Value[], cut: Cut, samples: Samples, microBatch: number, model: Map<Value, Value>): void {
    for (const v of [...inputs.filter((x) => samples.factors.has(x)), ...cut.random.map((op) => op.results[0]!)]) model.set(cut.at(v), this.slice(outer, v, samples.factors.get(v)!, samples.batch, microBatch));
  }

  /** Adds the ops of the cut graph's body. */
  repeat(cut: Cut, model: Map<Value, Value>): void {
    for (const op of cut.body) {
      for (const v of op.operands) if (!model.has(v)) model.set(v, this.capture(v));
      this.b.append(clone(op, model));
    }
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
export function unstack(b: Builder, stack: Value, factors: SampleFactors, count: number, whole: Value): Value {
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
