/** Proves that no sample of a batch influences another, on the forward graph. */
import { UserError } from '../ir/diagnostic.ts';
import type { Attr, Graph, Op, Value } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';
import { sameShape } from '../ir/type.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { foldConstants } from './fold-constants.ts';
import { rebound, rebindBatch } from './train/rebind-batch.ts';
import { MixedSamples, sampleAxis } from './train/sample-factors.ts';
import { followSamples, type Samples } from './train/samples.ts';

/** What is known about the samples of a model. */
export type BatchIndependence =
  | { readonly proved: true }
  /** The first op that makes a sample depend on another, or on how many there are. */
  | { readonly proved: false; readonly op: Op; readonly reason: string };

/** Batch sizes to specialise a model for: primes that are rarely a size of anything else. */
export const proofBatches: readonly [number, number] = [7, 11];

/**
 * Follows the samples from the first axis of every input to the outputs: `proved` where no op reduces, scans, reverses, selects, numbers or pairs them. `other` is the same model specialised
 * for another batch size: what differs but for sample axes (a division by the number of samples) is dependence too. Without it the batch size is the model's own. A model for one sample is
 * given more first; one whose samples cannot be told from other axes is a UserError.
 */
export function proveBatchIndependence(graph: Graph, target: Target, other?: Graph): BatchIndependence {
  const [a, b] = [graph, other].map((g) => g && foldConstants(eliminateDeadCode(g, target), target));
  let samples: Samples;
  let many: Graph;
  try {
    many = a!.inputs[0]?.type.shape[0] === 1 ? rebindBatch(a!, proofBatches[0]) : a!;
    samples = followSamples(many);
  } catch (e) {
    if (!(e instanceof MixedSamples)) throw e;
    const [join] = e.joins;
    return { proved: false, op: join ?? e.op, reason: join ? joined(join) : e.why };
  }
  const [join] = samples.joins;
  if (join) return { proved: false, op: join, reason: joined(join) };
  if (b && !followsBatch(b)) throw new UserError('the two specialisations that are compared have the same batch size');
  return (b && firstDifference(many, samples, b)) ?? lostSamples(many, samples) ?? { proved: true };

  function followsBatch(g: Graph): boolean {
    return g.inputs[0]!.type.shape[0] !== many.inputs[0]!.type.shape[0];
  }
}

const joined = (op: Op): string => `it joins the samples of a batch (${op.name} over the axis that holds them)`;

/** An output that depends on inputs has to hold samples. */
function lostSamples(graph: Graph, samples: Samples): BatchIndependence | undefined {
  const fed = new Set<Value>(graph.inputs);
  const made = new Map<Value, Op>();
  for (const op of graph.ops) {
    op.results.forEach((r) => made.set(r, op));
    if (op.operands.some((v) => fed.has(v))) op.results.forEach((r) => fed.add(r));
  }
  const lost = graph.outputs.find(({ value }) => fed.has(value) && made.has(value) && sampleAxis(samples.factors.get(value) ?? []) < 0);
  return lost && { proved: false, op: made.get(lost.value)!, reason: `the output "${lost.name}" holds no samples` };
}

/** The first op on samples that is not the same for another batch size, but for the axes that count samples. */
function firstDifference(graph: Graph, samples: Samples, other: Graph): BatchIndependence | undefined {
  const expected = rebound(graph, samples, other.inputs[0]!.type.shape[0]!);
  const holding = new Set<Value>(expected.inputs);
  const differing = new Set<Value>();
  const partner = new Map<Value, Value>([...expected.inputs.map((v, i) => [v, other.inputs[i]!] as const), ...statePairs(expected, other)]);
  for (const [i, op] of expected.ops.entries()) {
    const twin = other.ops[i];
    const data = op.operands.some((v) => holding.has(v));
    const same = twin !== undefined && twin.name === op.name && twin.operands.length === op.operands.length
      && op.operands.every((v, k) => partner.get(v) === twin.operands[k]) && op.results.every((r, k) => sameShape(r.type.shape, twin.results[k]!.type.shape)) && sameAttrs(op, twin);
    const fed = op.operands.some((v) => differing.has(v));
    if (data && (!same || fed)) return { proved: false, op, reason: 'it computes with the number of samples: another batch size gives other numbers for the same sample' };
    if (!same || fed) op.results.forEach((r) => differing.add(r));
    op.results.forEach((r, k) => {
      if (data) holding.add(r);
      if (twin?.results[k]) partner.set(r, twin.results[k]);
    });
  }
  return undefined;
}

/** State of the same name, where it also starts the same. */
function statePairs(a: Graph, b: Graph): (readonly [Value, Value])[] {
  const named = new Map(b.state.map((s) => [s.name, s]));
  return a.state.flatMap((s) => {
    const twin = named.get(s.name);
    return twin && sameAttr(s.init, twin.init) ? [[s.value, twin.value] as const] : [];
  });
}

const sameAttrs = (a: Op, b: Op): boolean => Object.keys(a.attrs).every((k) => sameAttr(a.attrs[k]!, b.attrs[k]));

function sameAttr(a: Attr, b: Attr | undefined): boolean {
  if (typeof a !== 'object' || typeof b !== 'object') return Object.is(a, b);
  if ('data' in a || 'data' in b) {
    const [s, t] = [a, b];
    if (!('data' in s) || !('data' in t) || s.dtype !== t.dtype || !sameShape(s.shape, t.shape)) return false;
    return s.data.every((x: number | bigint, i: number) => Object.is(x, t.data[i]));
  }
  return a.length === b.length && a.every((x: number | string, i: number) => x === b[i]);
}
