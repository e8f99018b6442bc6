/** A second copy of a model that computes the statistics of a fixed reference batch, for virtual batch normalization. */
import { Builder } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { sameShape, showType, type Tensor } from '../../ir/type.ts';
import { clone } from '../train/clone.ts';
import { rebindBatch } from '../train/rebind-batch.ts';
import { findNorms } from './find-norms.ts';

/** Moments of a value of the reference batch over samples and positions: one element a channel. */
export interface ReferenceMoments {
  readonly mean: Value;
  readonly m2: Value;
  /** Samples of the reference batch. */
  readonly samples: number;
}

/**
 * The ops that compute a model's normalizations for a reference batch, from its weights alone, and the moments of each normalization in the order of the graph. `graph` has them in training
 * form: the reference batch is normalized by its own statistics.
 */
export function referenceBatch(graph: Graph, reference: Tensor | undefined): { readonly ops: readonly Op[]; readonly moments: readonly ReferenceMoments[] } {
  const [input, ...others] = graph.inputs;
  if (!reference) throw new UserError('virtual batch normalization needs a reference batch: samples shaped like the model’s input (--norm-reference FILE.npy)');
  if (!input || others.length > 0) throw new UserError(`virtual batch normalization needs a model with one input, not ${graph.inputs.length}`);
  const samples = reference.shape[0] ?? 0;
  if (reference.dtype !== input.type.dtype || samples < 2 || !sameShape(reference.shape.slice(1), input.type.shape.slice(1))) {
    throw new UserError(`the reference batch is ${showType(reference)}: expected at least two samples like ${showType(input.type)}`);
  }
  const bound = rebindBatch(graph, samples);
  const given: Value = { type: { dtype: reference.dtype, shape: reference.shape }, name: undefined };
  const map = new Map<Value, Value>([[bound.inputs[0]!, given]]);
  const constant: Op = { name: 'constant', operands: [], attrs: { value: reference }, results: [given], regions: [], source: [] };
  const b = new Builder(graph.name);
  b.append(constant);
  bound.ops.forEach((op) => b.append(clone(op, map)));
  const moments = findNorms(bound).map((norm): ReferenceMoments => {
    const x = map.get(norm.x)!;
    const [mean, m2] = b.op('moments', [x], { axes: x.type.shape.flatMap((_, i) => (i === 1 ? [] : [i])) }) as [Value, Value];
    return { mean, m2, samples };
  });
  return { ops: b.ops, moments };
}
