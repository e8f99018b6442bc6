/** The kernels of one op, plain or fused. */
import type { Op } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { emitContraction } from './contract/index.ts';
import { emitElements } from './elements.ts';
import type { KernelCode, Located } from './kernel.ts';
import type { Site } from './machine.ts';
import { emitRows } from './rows.ts';
import { emitScan } from './scan.ts';
import { emitSort } from './sort.ts';

/** What computes an op over placed tensors, in order; nothing where there is nothing to compute. */
export function emitOp(op: Op, operands: readonly Located[], results: readonly Located[], site: Site): KernelCode[] {
  const { family } = opDef(op.name);
  if (family === 'sort') return emitSort(op, operands, results, site);
  if (family === 'contract' || family === 'conv' || (op.name === 'fused' && op.attrs['kind'] === 'contract')) return emitContraction(op, operands, results, site);
  if (family === 'scan') return emitScan(op, operands, results, site) ?? emitElements(op, operands, results, site);
  return emitRows(op, operands, results, site) ?? emitElements(op, operands, results, site);
}
