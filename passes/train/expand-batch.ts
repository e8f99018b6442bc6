import { Builder, IllTyped } from '../../ir/builder.ts';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Attrs, Graph, Op, Value } from '../../ir/graph.ts';
import { num, nums, str } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { sameShape, showType } from '../../ir/type.ts';
import { describe } from './backward.ts';
import type { Factor } from './factors.ts';
import { MeansOverSamples } from './means-over-samples.ts';
import { sampleAxis, type Mark, type SampleFactors } from './sample-factors.ts';
import { newFollower, type Follower } from './samples.ts';

/**
 * Gives a graph for a batch of one sample a larger batch. Sizes say nothing here, as the sample is one of many axes of size 1: it is followed from the inputs, and through a reshape it keeps its
 * place in the order of elements, which several axes may offer. All of them are tried: whatever fits to the end computes each sample as the graph computes its one. What the sample does not
 * enter stays as it is and is repeated where samples need it; random numbers with a first axis of size 1 are drawn for each sample.
 */
export function expandBatch(graph: Graph, batch: number): Graph {
  let choices: readonly number[] = [];
  let first: unknown;
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const expansion = new Expansion(batch, choices);
    try {
      return expanded(graph, expansion);
    } catch (e) {
      if (!(e instanceof IllTyped || e instanceof UserError)) throw e;
      first ??= e;
      const open = expansion.offered.findLastIndex((n, i) => (choices[i] ?? 0) + 1 < n);
      if (open < 0) break;
      choices = expansion.offered.slice(0, open + 1).map((_, i) => (choices[i] ?? 0) + (i === open ? 1 : 0));
    }
  }
  if (first instanceof UserError) throw first;
  throw new Unsupported('a larger batch', `the model was exported for one sample, and cannot be followed with ${batch} (${String(first)}): export it with the batch that it is to have`);
}

/** Ways through the reshapes of a graph that are tried at most. */
const maxAttempts = 256;

function expanded(graph: Graph, expansion: Expansion): Graph {
  const b = new Builder(graph.name);
  b.adopt({ inputs: graph.inputs.map((v) => expansion.input(v)), state: graph.state });
  expansion.ops(b, graph.ops);
  const done = b.finish(graph.outputs.map((o) => ({ name: o.name, value: expansion.output(o.name, o.value) })));
  return { ...done, updates: graph.updates.map((u) => ({ state: u.state, value: expansion.at(u.value) })) };
}

class Expansion {
  readonly #batch: number;
  readonly #follower: Follower;
  readonly #values = new Map<Value, Value>();
  readonly #means = new MeansOverSamples();
  readonly #choices: readonly number[];
  /** How many places each reshape offered, in order. */
  readonly offered: number[] = [];

  constructor(batch: number, choices: readonly number[]) {
    this.#batch = batch;
    this.#choices = choices;
    this.#follower = newFollower(batch);
  }

  at = (v: Value): Value => this.#values.get(v) ?? v;

  input(v: Value): Value {
    if (v.type.shape.length === 0) return v;
    const shape = [this.#batch, ...v.type.shape.slice(1)];
    const made: Value = { type: { dtype: v.type.dtype, shape }, name: v.name };
    this.#values.set(v, made);
    this.#follower.factors.set(made, factorsAt(shape, 0, [{ size: this.#batch, mark: 'n' }]));
    return made;
  }

  /** What an output became: samples stand first. */
  output(name: string, v: Value): Value {
    const value = this.at(v);
    const factors = this.#samples(value);
    if (factors && (v.type.shape[0] !== 1 || sampleAxis(factors) !== 0)) throw new Unsupported('a larger batch', `samples of the output "${name}" do not stand on its first axis: export the model with the batch that it is to have`);
    return value;
  }

  ops(b: Builder, ops: readonly Op[]): void {
    for (const op of ops) {
      b.source = op.source;
      this.#op(b, op, ops);
    }
  }

  #op(b: Builder, op: Op, ops: readonly Op[]): void {
    const operands = op.operands.map((v, i) => this.#means.divisor(b, op, i, ops) ?? this.at(v));
    if (opDef(op.name).family === 'random' && nums(op.attrs, 'shape')[0] === 1) return this.#random(b, op, operands);
    if (op.name === 'loop' && operands.some((v) => this.#samples(v))) return this.#loop(b, op, operands);
    if (op.name === 'if' && !this.#samples(operands[0]!) && operands.some((v) => this.#samples(v))) return this.#branches(b, op, operands);
    if (op.regions.length > 0 && operands.some((v) => this.#samples(v))) throw new Unsupported(`a larger batch through ${op.name}`, `${describe(op)} is in the way of the batch: export the model with the batch that it is to have`);
    if (!operands.some((v) => this.#samples(v))) {
      if (operands.every((v, i) => v === op.operands[i])) b.append(op);
      else this.#keep(op, b.op(op.name, operands, op.attrs, op.regions, op.results.map((r) => r.name)));
      return;
    }
    if (op.name === 'reshape') return this.#reshape(b, op, operands[0]!);
    const results = this.#build(b, op, operands);
    this.#keep(op, results);
    if (this.#follower.follow(b.ops.at(-1)!)) this.#means.note(op, operands[0]!.type.shape);
  }

  readonly #samples = (v: Value): SampleFactors | undefined => this.#follower.factors.get(v);

  #keep(op: Op, results: readonly Value[]): void {
    op.results.forEach((r, i) => this.#values.set(r, results[i]!));
  }

  /** The op on the larger operands; where those that have no samples do not fit, they are repeated. */
  #build(b: Builder, op: Op, operands: readonly Value[]): Value[] {
    const attrs = this.#attrs(op, operands[0]!);
    const names = op.results.map((r) => r.name);
    try {
      return b.op(op.name, operands, attrs, [], names);
    } catch (e) {
      if (!(e instanceof IllTyped)) throw e;
      return b.op(op.name, operands.map((v, i) => this.#repeated(b, op, operands, v, i)), attrs, [], names);
    }
  }

  #attrs(op: Op, x: Value): Attrs {
    const factors = this.#samples(x);
    if (!factors) return op.attrs;
    const axis = sampleAxis(factors);
    switch (op.name) {
      case 'broadcast': {
        const shape = nums(op.attrs, 'shape');
        return { shape: shape.with(axis + shape.length - x.type.shape.length, x.type.shape[axis]!) };
      }
      case 'slice':
      case 'dynamicSlice':
        return { ...op.attrs, sizes: nums(op.attrs, 'sizes').with(axis, x.type.shape[axis]!) };
      default:
        return op.attrs;
    }
  }

  /** An operand without samples, repeated along the axis where another operand of the op has them. */
  #repeated(b: Builder, op: Op, operands: readonly Value[], v: Value, i: number): Value {
    const other = operands.findIndex((x) => this.#samples(x));
    const from = sampleAxis(this.#samples(operands[other]!)!);
    if (this.#samples(v)) return v;
    const letters = op.name === 'contract' ? str(op.attrs, 'spec').split(/,|->/) : undefined;
    const axis = letters ? letters[i]!.indexOf(letters[other]![from]!) : from;
    if (v.type.shape[axis] !== 1) return v;
    const repeated = b.broadcast(v, v.type.shape.with(axis, this.#batch));
    this.#follower.factors.set(repeated, factorsAt(repeated.type.shape, axis, [{ size: this.#batch, mark: 'n' }]));
    return repeated;
  }

  #random(b: Builder, op: Op, operands: readonly Value[]): void {
    const shape = [this.#batch, ...nums(op.attrs, 'shape').slice(1)];
    const results = b.op(op.name, operands, { ...op.attrs, shape }, [], op.results.map((r) => r.name));
    this.#keep(op, results);
    this.#follower.factors.set(results[0]!, factorsAt(shape, 0, [{ size: this.#batch, mark: 'n' }]));
  }

  #reshape(b: Builder, op: Op, x: Value): void {
    const factors = this.#samples(x)!;
    const axis = sampleAxis(factors);
    const n = factors[axis]!.findIndex((f) => f.mark === 'n');
    const product = (sizes: readonly number[]): number => sizes.reduce((p, d) => p * d, 1);
    const before = product(x.type.shape.slice(0, axis)) * product(factors[axis]!.slice(0, n).map((f) => f.size));
    const target = nums(op.attrs, 'shape');
    const starts = target.map((_, a) => product(target.slice(0, a)));
    const ones = target.flatMap((d, a) => (d === 1 && starts[a] === before ? [a] : [])).sort((p, q) => Number(q === axis) - Number(p === axis));
    const inside = target.flatMap((d, a) => (d > 1 && before % starts[a]! === 0 && d % (before / starts[a]!) === 0 ? [a] : []));
    const places = [...ones, ...inside];
    const place = places[this.#choices[this.offered.length] ?? 0];
    this.offered.push(places.length);
    if (place === undefined) throw new Unsupported('a larger batch through a reshape', `${describe(op)} reshapes ${showType(op.operands[0]!.type)} to [${target.join(',')}], where samples have no place: export the model with the batch that it is to have`);
    const size = target[place]!;
    const outer = before / starts[place]!;
    const own: Factor<Mark>[] = [{ size: outer, mark: 'other' as const }, { size: this.#batch, mark: 'n' as const }, { size: size / outer, mark: 'other' as const }].filter((f) => f.mark === 'n' || f.size > 1);
    const shape = target.with(place, size * this.#batch);
    const [y] = b.op('reshape', [x], { shape }, [], op.results.map((r) => r.name));
    this.#keep(op, [y!]);
    this.#follower.factors.set(y!, factorsAt(shape, place, own));
  }

  /** Both branches; what one of them gives without samples is repeated where the other has them. */
  #branches(b: Builder, op: Op, operands: readonly Value[]): void {
    const made = op.regions.map((region) => {
      const inner = new Builder(region.name);
      inner.adopt({ inputs: this.#entered(region, operands.slice(1)), state: [] });
      this.ops(inner, region.ops);
      return { inner, values: region.outputs.map((o) => this.at(o.value)) };
    });
    const [then, otherwise] = made.map(({ inner, values }, k) => values.map((v, i) => {
      const wanted = made[1 - k]!.values[i]!;
      if (this.#samples(v) || !this.#samples(wanted)) return v;
      const repeated = inner.broadcast(v, wanted.type.shape);
      this.#follower.factors.set(repeated, this.#samples(wanted)!);
      return repeated;
    }));
    const regions = [then!, otherwise!].map((values, k) => made[k]!.inner.finish(op.regions[k]!.outputs.map((o, i) => ({ name: o.name, value: values[i]! }))));
    const results = b.op('if', operands, op.attrs, regions, op.results.map((r) => r.name));
    this.#keep(op, results);
    then!.forEach((v, i) => {
      const [factors, other] = [this.#samples(v), this.#samples(otherwise![i]!)];
      if (factors && other && sampleAxis(factors) !== sampleAxis(other)) throw new Unsupported('a larger batch through a branch', `${describe(op)} has its samples in other places in one branch than in the other: export the model with the batch that it is to have`);
      if (factors) this.#follower.factors.set(results[i]!, factors);
    });
  }

  /** Inputs of a region for these operands, which its own stand for from now on. */
  #entered(region: Graph, operands: readonly Value[]): Value[] {
    return region.inputs.map((v, i): Value => {
      const input: Value = { type: operands[i]!.type, name: v.name };
      this.#values.set(v, input);
      const factors = this.#samples(operands[i]!);
      if (factors) this.#follower.factors.set(input, factors);
      return input;
    });
  }

  /** A loop whose carried values may hold samples only once it ran: they are repeated before it. */
  #loop(b: Builder, op: Op, given: readonly Value[]): void {
    const carried = num(op.attrs, 'carried');
    const [region] = op.regions;
    let operands = given;
    for (let attempt = 0; attempt <= carried; attempt++) {
      const inner = new Builder(region!.name);
      const inputs = this.#entered(region!, [region!.inputs[0]!, ...operands.slice(2)]);
      inner.adopt({ inputs, state: [] });
      this.ops(inner, region!.ops);
      const made = region!.outputs.map((o) => this.at(o.value));
      const grown = made.slice(1, 1 + carried).findIndex((v, k) => !sameShape(v.type.shape, inputs[1 + k]!.type.shape));
      if (grown < 0) {
        const results = b.op('loop', operands, op.attrs, [inner.finish(region!.outputs.map((o, i) => ({ name: o.name, value: made[i]! })))], op.results.map((r) => r.name));
        this.#keep(op, results);
        made.slice(1).forEach((v, i) => {
          const factors = this.#samples(v);
          if (factors) this.#follower.factors.set(results[i]!, i < carried ? factors : [[], ...factors].map((f, a) => (a === 0 && results[i]!.type.shape[0]! > 1 ? [{ size: results[i]!.type.shape[0]!, mark: 'other' as const }] : f)));
        });
        return;
      }
      const wanted = made[1 + grown]!;
      const start = b.broadcast(operands[2 + grown]!, wanted.type.shape);
      this.#follower.factors.set(start, this.#samples(wanted)!);
      operands = operands.with(2 + grown, start);
    }
    throw new Unsupported('a larger batch through a loop', `${describe(op)} carries values that grow with the batch in each iteration: export the model with the batch that it is to have`);
  }
}

/** Factors of a shape whose axis has given ones. */
const factorsAt = (shape: readonly number[], axis: number, own: readonly Factor<Mark>[]): SampleFactors => shape.map((size, a) => (a === axis ? own : size === 1 ? [] : [{ size, mark: 'other' }]));
