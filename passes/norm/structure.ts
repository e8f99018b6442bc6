/** Lookups that matching of normalizations needs, in a graph with open regions. */
import type { Graph, Op, State, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { isControl, openRegions, placedOps, type Placed } from '../../ir/regions.ts';
import { sizeOf, type DType, type Tensor } from '../../ir/type.ts';
import { uniform } from '../rules/pattern.ts';

/** The mean or the variance of a value over its batch: over all axes but that of the channels, 1; not corrected for the number of elements. */
export interface BatchStatistic {
  readonly kind: 'mean' | 'variance';
  readonly of: Value;
}

/** Values that depend on parameters and constants alone, in a loop also on the number of the iteration; those of regions as they are where regions are open. */
export function parameterValues(graph: Graph): Set<Value> {
  const known = new Set<Value>(graph.state.map((s) => s.value));
  const visit = (ops: readonly Op[]): void => {
    for (const op of ops) {
      const alone = opDef(op.name).family !== 'random' && op.operands.every((v) => known.has(v));
      if (isControl(op)) enter(op, alone);
      else if (alone) op.results.forEach((r) => known.add(r));
    }
  };
  // What a loop carries may be anything after an iteration; a branch gives what both of its regions know.
  const enter = (op: Op, alone: boolean): void => {
    if (op.name === 'loop') known.add(op.regions[0]!.inputs[0]!);
    op.regions.forEach((region) => visit(region.ops));
    if (op.name === 'if' && alone) op.results.forEach((r, i) => op.regions.every((region) => known.has(region.outputs[i]!.value)) && known.add(r));
  };
  visit(openRegions(graph).ops);
  return known;
}

export class Structure {
  readonly placed: readonly Placed[];
  readonly parameters: ReadonlySet<Value>;
  readonly #defs: ReadonlyMap<Value, Op>;
  readonly #states: ReadonlyMap<Value, State>;
  readonly #statistics = new Map<Value, BatchStatistic | undefined>();

  constructor(graph: Graph) {
    this.placed = placedOps(graph);
    this.#defs = new Map(this.placed.flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
    this.#states = new Map(graph.state.map((s) => [s.value, s]));
    this.parameters = parameterValues(graph);
  }

  def(v: Value): Op | undefined {
    return this.#defs.get(v);
  }

  /** What a value is before reshapes and casts. */
  peel(v: Value): Value {
    const op = this.#defs.get(v);
    return op && (op.name === 'reshape' || op.name === 'cast') ? this.peel(op.operands[0]!) : v;
  }

  /** What a value is before casts. */
  uncast(v: Value): Value {
    const op = this.#defs.get(v);
    return op?.name === 'cast' ? this.uncast(op.operands[0]!) : v;
  }

  /** The number that a constant equals everywhere, or a single number that the model keeps among its weights, as exporters do with an epsilon. */
  number(v: Value): number | undefined {
    const bare = this.peel(v);
    const init = this.#states.get(bare)?.init;
    if (init !== undefined && sizeOf(bare.type.shape) === 1) return init === 'zero' ? 0 : uniform(init);
    const op = this.#defs.get(bare);
    return op?.name === 'constant' ? uniform(op.attrs['value'] as Tensor) : undefined;
  }

  /** Whether the model keeps a value among its weights: it is one, a part of one (an iteration's of a loop's), or a constant, not computed. */
  isKept(v: Value): boolean {
    const op = this.#defs.get(v);
    if (!op || op.name === 'constant') return this.parameters.has(v);
    return (op.name === 'cast' || ['move', 'index'].includes(opDef(op.name).family)) && this.isKept(op.operands[0]!);
  }

  /** The statistic of a batch that a value is, however it is spelled: by `moments`, or by sums of the value and of squares. */
  statistic(v: Value): BatchStatistic | undefined {
    const bare = this.peel(v);
    if (!this.#statistics.has(bare)) this.#statistics.set(bare, this.parameters.has(bare) ? undefined : this.#statisticOf(bare));
    return this.#statistics.get(bare);
  }

  #statisticOf(v: Value): BatchStatistic | undefined {
    const op = this.def(v);
    if (op?.name === 'moments') return v === op.results[0] && overBatch(op) ? { kind: 'mean', of: this.uncast(op.operands[0]!) } : undefined;
    if (op?.name === 'sub') return this.#varianceByRawMoments(op);
    const sum = this.#summed(op);
    if (!sum) return undefined;
    if (sum.name === 'moments') return { kind: 'variance', of: this.uncast(sum.operands[0]!) };
    const whole = this.uncast(sum.operands[0]!);
    const distance = this.#square(whole);
    const own = distance && this.#distanceFromMean(distance);
    return own ? { kind: 'variance', of: own } : { kind: 'mean', of: whole };
  }

  /** The reduction whose result over the batch an op divides by the number of elements. */
  #summed(op: Op | undefined): Op | undefined {
    if (op?.name !== 'div' && op?.name !== 'mul') return undefined;
    const [p, q] = op.operands as [Value, Value];
    for (const [part, other] of op.name === 'div' ? [[p, q]] as const : [[p, q], [q, p]] as const) {
      const bare = this.peel(part);
      const sum = this.def(bare);
      const fits = sum && (sum.name === 'reduceSum' || (sum.name === 'moments' && bare === sum.results[1])) && overBatch(sum);
      const factor = fits ? this.number(other) : undefined;
      if (factor === undefined || !sum) continue;
      const { shape } = sum.operands[0]!.type;
      const count = sizeOf(shape) / shape[1]!;
      if (Math.abs((op.name === 'div' ? factor : 1 / factor) - count) <= roundingOf(sum.results[0]!.type.dtype) * count) return sum;
    }
    return undefined;
  }

  /** The mean of squares less the square of the mean. */
  #varianceByRawMoments(op: Op): BatchStatistic | undefined {
    const [squares, squared] = op.operands.map((v) => this.peel(v)) as [Value, Value];
    const mean = this.#square(squared);
    const stat = mean && this.statistic(mean);
    const other = this.statistic(squares);
    const of = other?.kind === 'mean' ? this.#square(other.of) : undefined;
    return of && stat?.kind === 'mean' && this.uncast(of) === stat.of ? { kind: 'variance', of: stat.of } : undefined;
  }

  /** x of x · x or x². */
  #square(v: Value): Value | undefined {
    const op = this.def(v);
    if (op?.name === 'mul' && op.operands[0] === op.operands[1]) return op.operands[0];
    return op?.name === 'pow' && this.number(op.operands[1]!) === 2 ? op.operands[0] : undefined;
  }

  /** x of x - mean(x). */
  #distanceFromMean(v: Value): Value | undefined {
    const op = this.def(this.uncast(v));
    if (op?.name !== 'sub') return undefined;
    const [p, q] = op.operands as [Value, Value];
    for (const [x, mean] of [[p, q], [q, p]] as const) {
      const stat = this.statistic(mean);
      if (stat?.kind === 'mean' && stat.of === this.uncast(x)) return stat.of;
    }
    return undefined;
  }

}

/** How far a number of elements, or its reciprocal, may be off: by its rounding, and less than by one element of a small batch. */
const roundingOf = (dtype: DType): number => ({ f16: 2 ** -10, bf16: 2 ** -7 } as Partial<Record<DType, number>>)[dtype] ?? 2 ** -22;

/** Whether a reduction goes over all axes but the channels. */
export function overBatch(reduction: Op): boolean {
  const rank = reduction.operands[0]!.type.shape.length;
  const axes = nums(reduction.attrs, 'axes');
  return rank >= 2 && axes.length === rank - 1 && !axes.includes(1);
}
