/** The kernels of one op, plain or fused. */
import type { Op } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { emitContraction } from './contract/index.ts';
import { emitElements } from './elements.ts';
import type { KernelCode, Located } from './kernel.ts';
import { emitRows } from './rows.ts';
import { emitSort } from './sort.ts';

/** What computes an op over placed tensors, in order; nothing where there is nothing to compute. */
export function emitOp(op: Op, operands: readonly Located[], results: readonly Located[]): KernelCode[] {
  if (opDef(op.name).family === 'sort') return emitSort(op, operands, results);
  const { family } = opDef(op.name);
  if (family === 'contract' || family === 'conv' || (op.name === 'fused' && op.attrs['kind'] === 'contract')) return emitContraction(op, operands, results);
  return emitRows(op, operands, results) ?? emitElements(op, operands, results);
}
