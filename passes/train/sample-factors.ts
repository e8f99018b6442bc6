/** Where values hold the samples of a batch, as factors of their axes, and the error where that cannot be said. */
import type { Piece } from '../../ir/axes.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { describe } from './backward.ts';
import { merged, type Factor, type Factors } from './factors.ts';

/** A factor of an axis: `n` counts samples, `other` anything else. The factor n is never cut. */
export type Mark = 'n' | 'other';
export type SampleFactors = Factors<Mark>;

/** Thrown where samples cannot be followed; says at which op, and why. */
export class MixedSamples extends UserError {
  readonly op: Op;
  readonly why: string;
  /** Ops before it that reduce over samples. */
  joins: readonly Op[] = [];

  constructor(op: Op, why: string) {
    super(`${describe(op)} mixes the samples of a batch: ${why}`);
    this.op = op;
    this.why = why;
  }
}

/** Throws MixedSamples. */
export function refuse(op: Op, why: string): never {
  throw new MixedSamples(op, why);
}

/** Samples of a batch: the first axis of every input but scalars, which are the same for all samples. Undefined where all inputs are scalars. */
export const batchOf = (graph: Pick<Graph, 'inputs'>): number | undefined => graph.inputs.find((v) => v.type.shape.length > 0)?.type.shape[0];

/** The axis that holds samples; -1 where none does. */
export const sampleAxis = (factors: SampleFactors): number => factors.findIndex(holdsSamples);

/** Factors of an input: its first axis counts samples. */
export const leading = (v: Value, batch: number): SampleFactors => v.type.shape.map((size, axis) => (axis === 0 ? [{ size: batch, mark: 'n' }] : plainFactors(size)));

/** Factors of an axis that counts no samples. */
export const plainFactors = (size: number): Factor<Mark>[] => (size === 1 ? [] : [{ size, mark: 'other' }]);

/** Whether some factor of an axis counts samples. */
export const holdsSamples = (factors: readonly Factor<Mark>[]): boolean => factors.some((f) => f.mark === 'n');

/** Factors of the results of a piece, from those of its dims. */
export function resultFactors(op: Op, piece: Piece, dims: ReadonlyMap<string, readonly Factor<Mark>[]>, sizes: ReadonlyMap<string, number>): SampleFactors {
  const shape = op.results[0]!.type.shape;
  return piece.writes.map((place, axis) => {
    const holding = place.terms.some(([d]) => holdsSamples(dims.get(d) ?? []));
    if (!holding) return plainFactors(shape[axis]!);
    const names = merged(place, shape[axis]!, sizes);
    if (!names) return refuse(op, 'it puts samples beside other values on one axis');
    return names.flatMap((d) => dims.get(d) ?? plainFactors(sizes.get(d)!));
  });
}
