/** Means over samples keep being means when the batch changes. */
import type { Builder } from '../../ir/builder.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { nums, tensorAttr } from '../../ir/op.ts';
import { dtypes } from '../../ir/type.ts';

/** Sums over samples, and what replaces the constants that divide them by the number of their terms. */
export class MeansOverSamples {
  /** How many elements each sum joined, and joins now. */
  readonly #joined = new Map<Value, { readonly before: number; readonly now: number }>();

  /** Notes an op that reduces over samples, whose operand has another shape now: sums, and sums of squares, grow with the batch. */
  note(op: Op, shape: readonly number[]): void {
    if (op.name !== 'moments' && op.name !== 'reduceSum') return;
    const count = (of: readonly number[]): number => nums(op.attrs, 'axes').reduce((n, a) => n * of[a]!, 1);
    this.#joined.set(op.results[op.name === 'moments' ? 1 : 0]!, { before: count(op.operands[0]!.type.shape), now: count(shape) });
  }

  /** The new divisor of a mean: where a sum over samples, reshaped or not, is divided by the number of its terms, or multiplied by its reciprocal. */
  divisor(b: Builder, op: Op, operand: number, ops: readonly Op[]): Value | undefined {
    if (op.name === 'reshape' && this.#joined.has(op.operands[0]!)) this.#joined.set(op.results[0]!, this.#joined.get(op.operands[0]!)!);
    if (operand !== 1 || (op.name !== 'div' && op.name !== 'mul')) return undefined;
    const joined = this.#joined.get(op.operands[0]!);
    const constant = joined && ops.find((o) => o.results[0] === op.operands[1] && o.name === 'constant');
    if (!constant) return undefined;
    const { data, dtype, shape } = tensorAttr(constant.attrs, 'value');
    const term = op.name === 'div' ? joined.before : 1 / joined.before;
    if (data.length !== 1 || dtypes[dtype].kind !== 'float' || Math.fround(Number(data[0])) !== Math.fround(term)) return undefined;
    return b.reshape(b.scalar(op.name === 'div' ? joined.now : 1 / joined.now, dtype), shape);
  }
}
