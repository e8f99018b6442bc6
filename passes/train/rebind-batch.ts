import { Builder } from '../../ir/builder.ts';
import { Unsupported, UserError, invariant } from '../../ir/diagnostic.ts';
import type { Attrs, Graph, Op, Value } from '../../ir/graph.ts';
import { tensorAttr } from '../../ir/op.ts';
import { dtypes, rowMajor, sameShape, showType, sizeOf, type Tensor, type TypedArray } from '../../ir/type.ts';
import { describe } from './backward.ts';
import { expandBatch } from './expand-batch.ts';
import { MeansOverSamples } from './means-over-samples.ts';
import { batchOf, sampleAxis, type SampleFactors } from './sample-factors.ts';
import { followSamples, type Samples } from './samples.ts';

/**
 * Gives a graph another batch size, by following its samples from the inputs: shapes that count samples change, others that happen to be equal do not. A mean over samples (the statistics
 * of batch norms) keeps dividing by the number of elements that it joins. A graph that does anything else with its batch size is refused by the name of the op.
 */
export function rebindBatch(graph: Graph, batch: number): Graph {
  if (!Number.isInteger(batch) || batch < 1) throw new UserError(`a batch has to be a positive number of samples, not ${batch}`);
  if (batchOf(graph) === 1) return batch === 1 ? graph : expandBatch(graph, batch);
  const samples = followSamples(graph);
  return batch === samples.batch ? graph : rebound(graph, samples, batch);
}

/** The same for a graph whose samples have been followed; `values` gets what each value became. */
export function rebound(graph: Graph, samples: Samples, batch: number, values = new Map<Value, Value>()): Graph {
  const rebind = new Rebinding(samples, batch, values);
  const b = new Builder(graph.name);
  b.adopt({ inputs: graph.inputs.map((v) => rebind.input(v)), state: graph.state });
  rebind.ops(b, graph.ops);
  const done = b.finish(graph.outputs.map((o) => ({ name: o.name, value: rebind.at(o.value) })));
  return { ...done, updates: graph.updates.map((u) => ({ state: u.state, value: rebind.at(u.value) })) };
}

class Rebinding {
  readonly #samples: Samples;
  readonly #batch: number;
  readonly #values: Map<Value, Value>;
  readonly #means = new MeansOverSamples();

  constructor(samples: Samples, batch: number, values: Map<Value, Value>) {
    this.#samples = samples;
    this.#batch = batch;
    this.#values = values;
  }

  at = (v: Value): Value => this.#values.get(v) ?? v;

  input(v: Value): Value {
    const shape = this.#shape(v);
    if (sameShape(shape, v.type.shape)) return v;
    const made: Value = { type: { dtype: v.type.dtype, shape }, name: v.name };
    this.#values.set(v, made);
    return made;
  }

  ops(b: Builder, ops: readonly Op[]): void {
    for (const op of ops) this.#op(b, op, ops);
  }

  /** A value's shape at the new batch size. */
  #shape(v: Value): readonly number[] {
    const factors = this.#samples.factors.get(v);
    return factors ? factors.map((axis, a) => (axis.length === 0 ? v.type.shape[a]! : axis.reduce((n, f) => n * (f.mark === 'n' ? this.#batch : f.size), 1))) : v.type.shape;
  }

  #op(b: Builder, op: Op, ops: readonly Op[]): void {
    const join = this.#samples.joins.includes(op);
    const operands = op.operands.map((v, i) => this.#means.divisor(b, op, i, ops) ?? this.at(v));
    const regions = op.regions.map((r) => this.#region(r));
    const attrs = this.#attrs(op);
    if (operands.every((v, i) => v === op.operands[i]) && regions.every((r, i) => r === op.regions[i]) && attrs === op.attrs) {
      b.append(op);
    } else {
      b.source = op.source;
      const made = b.op(op.name, operands, attrs, regions, op.results.map((r) => r.name));
      op.results.forEach((r, i) => {
        const expected = this.#shape(r);
        if (!sameShape(made[i]!.type.shape, expected)) {
          throw new Unsupported('another batch size', `${describe(op)} gives ${showType(made[i]!.type)} for a batch of ${this.#batch}, expected [${expected.join(',')}]: its shape does not follow the batch`);
        }
        this.#values.set(r, made[i]!);
      });
    }
    if (join) this.#means.note(op, this.#shape(op.operands[0]!));
  }

  #attrs(op: Op): Attrs {
    const [result] = op.results;
    const factors = result && this.#samples.factors.get(result);
    if (!factors || !result) return op.attrs;
    const shape = this.#shape(result);
    switch (op.name) {
      case 'reshape':
      case 'broadcast':
      case 'iota':
      case 'randomUniform':
      case 'randomNormal':
        return { ...op.attrs, shape };
      case 'slice':
      case 'dynamicSlice':
        return { ...op.attrs, sizes: shape };
      case 'constant':
        return { value: repeated(tensorAttr(op.attrs, 'value'), factors, shape) };
      default:
        return op.attrs;
    }
  }

  #region(region: Graph): Graph {
    const b = new Builder(region.name);
    const before = region.inputs.some((v) => this.#samples.factors.has(v)) || region.ops.some((op) => op.results.some((r) => this.#samples.factors.has(r)));
    if (!before) return region;
    b.adopt({ inputs: region.inputs.map((v) => this.input(v)), state: [] });
    this.ops(b, region.ops);
    return b.finish(region.outputs.map((o) => ({ name: o.name, value: this.at(o.value) })));
  }
}

/** A constant that is the same for all samples, for another number of them. */
function repeated(t: Tensor, factors: SampleFactors, shape: readonly number[]): Tensor {
  const axis = sampleAxis(factors);
  invariant(factors[axis]!.length === 1, 'samples of a constant have an axis of their own');
  const [from, to] = [rowMajor(t.shape), rowMajor(shape)];
  const data: TypedArray = new dtypes[t.dtype].array(sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    const at = shape.reduce((n, d, a) => n + (a === axis ? 0 : (Math.floor(i / to[a]!) % d) * from[a]!), 0);
    data[i] = t.data[at]!;
  }
  return { dtype: t.dtype, shape: [...shape], data };
}
