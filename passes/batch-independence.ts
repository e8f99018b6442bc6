/** Proves that no sample of a batch influences another, on the forward graph. */
import { UserError } from '../ir/diagnostic.ts';
import type { Attr, Graph, Op, Value } from '../ir/graph.ts';
import { num } from '../ir/op.ts';
import { isControl } from '../ir/regions.ts';
import type { Target } from '../ir/tile.ts';
import { sameShape } from '../ir/type.ts';
import { countInData, countInShapes, type ImportedGraph } from './batch-independence/count-dependence.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { foldConstants } from './fold-constants.ts';
import { rebound, rebindBatch } from './train/rebind-batch.ts';
import { batchOf, MixedSamples, sampleAxis } from './train/sample-factors.ts';
import { followSamples, type Samples } from './train/samples.ts';

/** What is known about the samples of a model. */
export type BatchIndependence =
  | { readonly proved: true }
  /** The first op that makes a sample depend on another, or on how many there are. */
  | { readonly proved: false; readonly op: Pick<Op, 'name' | 'source'>; readonly reason: string };

/** Batch sizes to specialise a model for: primes that are rarely a size of anything else. */
export const proofBatches: readonly [number, number] = [7, 11];

/**
 * Follows the samples from the first axis of every input but scalars to the outputs: `proved` where no op reduces, scans, reverses, selects, numbers or pairs them. `other` is the same model specialised
 * for another batch size: what differs but for sample axes (a division by the number of samples) is dependence too, and so is a number that follows from it, whether or not it differs at these
 * two sizes. Where shapes come from arithmetic on shapes (an import), `imported` is the model at both sizes before it was rewritten: what the importer computed is judged the same. Without `other` the
 * batch size is the model's own. A model for one sample is given more first; one whose samples cannot be told from other axes is a UserError.
 */
export function proveBatchIndependence(graph: Graph, target: Target, other?: Graph, imported?: readonly [ImportedGraph, ImportedGraph]): BatchIndependence {
  const live = [graph, other].map((g) => g && eliminateDeadCode(g, target));
  // Weights stay as they are: one that is repeated for every sample (a class token) would be as many weights as there are samples.
  const [a, b] = live.map((g) => g && foldConstants(g, target, { weights: false }));
  let samples: Samples;
  let many: Graph;
  try {
    many = batchOf(a!) === 1 ? rebindBatch(a!, proofBatches[0]) : a!;
    samples = followSamples(many);
  } catch (e) {
    if (!(e instanceof MixedSamples)) throw e;
    const [join] = e.joins;
    return { proved: false, op: join ?? e.op, reason: join ? joined(join) : e.why };
  }
  const [join] = samples.joins;
  if (join) return { proved: false, op: join, reason: joined(join) };
  if (b && !followsBatch(b)) throw new UserError('the two specialisations that are compared have the same batch size');
  const difference = b && firstDifference(many, samples, b);
  if (difference) return difference;
  const sizes = [samples.batch, (b && batchOf(b)) ?? samples.batch] as const;
  const counted = b && (countInData(live[0]!, live[1]!, sizes) ?? (imported && countInShapes(...imported, sizes)));
  return counted ? { proved: false, ...counted } : (lostSamples(many, samples) ?? { proved: true });

  function followsBatch(g: Graph): boolean {
    return batchOf(g) !== batchOf(many);
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
  const expected = rebound(graph, samples, batchOf(other)!);
  const comparison = new Comparison([...expected.inputs.map((v, i) => [v, other.inputs[i]!] as const), ...statePairs(expected, other)], expected.inputs);
  return comparison.ops(expected.ops, other.ops);
}

/** Compares a graph with its twin at another batch size, op by op, regions included. */
class Comparison {
  readonly #partner: Map<Value, Value>;
  /** What is made of inputs. */
  readonly #holding: Set<Value>;
  /** What is another value in the twin. */
  readonly #differing = new Set<Value>();

  constructor(pairs: Iterable<readonly [Value, Value]>, inputs: Iterable<Value>) {
    this.#partner = new Map(pairs);
    this.#holding = new Set(inputs);
  }

  /** The first op on data that differs. */
  ops(ops: readonly Op[], twins: readonly Op[]): BatchIndependence | undefined {
    for (const [i, op] of ops.entries()) {
      const found = this.#op(op, twins[i]);
      if (found) return found;
    }
    return undefined;
  }

  #op(op: Op, twin: Op | undefined): BatchIndependence | undefined {
    const same = twin !== undefined && twin.name === op.name && twin.operands.length === op.operands.length && twin.regions.length === op.regions.length
      && op.operands.every((v, k) => this.#partner.get(v) === twin.operands[k]) && op.results.every((r, k) => sameShape(r.type.shape, twin.results[k]!.type.shape)) && sameAttrs(op, twin);
    if (same && isControl(op)) return this.#control(op, twin);
    const data = op.operands.some((v) => this.#holding.has(v));
    const fed = op.operands.some((v) => this.#differing.has(v));
    if (data && (!same || fed)) return { proved: false, op, reason: numbered };
    op.results.forEach((r, k) => this.#pair(r, twin?.results[k], data, !same || fed));
    return undefined;
  }

  /** Regions see what the operands are; what a loop carries may become data, or differ, after an iteration. */
  #control(op: Op, twin: Op): BatchIndependence | undefined {
    const loop = op.name === 'loop';
    const [course, carried, first] = [loop ? 2 : 1, loop ? num(op.attrs, 'carried') : 0, loop ? 1 : 0];
    const turned = op.operands.slice(0, course).some((v) => this.#differing.has(v));
    for (const [k, region] of op.regions.entries()) {
      region.inputs.forEach((v, i) => {
        const operand = i < first ? undefined : op.operands[course + i - first];
        this.#pair(v, twin.regions[k]!.inputs[i], operand !== undefined && this.#holding.has(operand), operand !== undefined && this.#differing.has(operand));
      });
    }
    for (;;) {
      const before = this.#holding.size + this.#differing.size;
      for (const [k, region] of op.regions.entries()) {
        const found = this.ops(region.ops, twin.regions[k]!.ops);
        if (found) return found;
        region.outputs.forEach(({ value }, i) => {
          const differs = turned || this.#differing.has(value) || this.#partner.get(value) !== twin.regions[k]!.outputs[i]!.value;
          const result = op.results[i - first];
          if (result) this.#pair(result, twin.results[i - first], this.#holding.has(value), differs);
          const next = i >= first && i < first + carried ? region.inputs[i] : undefined;
          if (next) this.#pair(next, twin.regions[k]!.inputs[i], this.#holding.has(value), differs);
        });
      }
      const mixed = op.results.find((r) => this.#holding.has(r) && this.#differing.has(r));
      if (mixed) return { proved: false, op, reason: numbered };
      if (this.#holding.size + this.#differing.size === before) return undefined;
    }
  }

  #pair(v: Value, twin: Value | undefined, holds: boolean, differs: boolean): void {
    if (twin) this.#partner.set(v, twin);
    if (holds) this.#holding.add(v);
    if (differs) this.#differing.add(v);
  }
}

const numbered = 'it computes with the number of samples: another batch size gives other numbers for the same sample';

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
