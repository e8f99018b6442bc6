/** The kernels of one op, plain or fused. */
import type { Op } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { emitContraction } from './contract/index.ts';
import { emitElements } from './elements.ts';
import type { KernelCode, Located } from './kernel.ts';
import { emitRows } from './rows.ts';
import { emitScan } from './scan.ts';
import { emitSort } from './sort.ts';

/** What computes an op over placed tensors, in order; nothing where there is nothing to compute. */
export function emitOp(op: Op, operands: readonly Located[], results: readonly Located[]): KernelCode[] {
  const { family } = opDef(op.name);
  if (family === 'sort') return emitSort(op, operands, results);
  if (family === 'contract' || family === 'conv' || (op.name === 'fused' && op.attrs['kind'] === 'contract')) return emitContraction(op, operands, results);
  if (family === 'scan') return emitScan(op, operands, results) ?? emitElements(op, operands, results);
  return emitRows(op, operands, results) ?? emitElements(op, operands, results);
}
