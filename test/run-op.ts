/** Runs one op on the interpreter. */
import { Builder } from '../ir/builder.ts';
import { evaluateOp } from '../ir/evaluate.ts';
import type { Attrs, Graph } from '../ir/graph.ts';
import { toRef } from '../ir/number.ts';
import type { Tensor, TensorType } from '../ir/type.ts';

/** The results of an op on tensors; its types are checked as in a graph. */
export function run(op: string, operands: readonly Tensor[], attrs: Attrs = {}, regions: readonly Graph[] = []): Tensor[] {
  const b = new Builder('one');
  b.op(op, operands.map((x) => b.input({ dtype: x.dtype, shape: x.shape })), attrs, regions);
  return evaluateOp(b.ops[0]!, operands);
}

/** The elements of the first result as numbers, whatever the dtype. */
export const values = ([first]: readonly Tensor[]): number[] => Array.from(toRef(first!).data as Float64Array, Number);

/** The result types of an op on operand types. */
export const inferred = (op: string, operands: readonly TensorType[], attrs: Attrs = {}): readonly TensorType[] => {
  const b = new Builder('types');
  return b.op(op, operands.map((type) => b.input(type)), attrs).map((v) => v.type);
};
