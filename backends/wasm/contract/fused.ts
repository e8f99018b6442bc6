/** What a contraction kernel is made of: its root, where the root's operands lie among the kernel's, and the operands of its epilogue. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op } from '../../../ir/graph.ts';
import { isContractRoot } from '../../../ir/fused.ts';

export interface Contraction {
  readonly op: Op;
  readonly root: Op;
  /** For each operand of the root, its position among the kernel's operands. */
  readonly roots: readonly number[];
  /** Positions of the operands that only the epilogue reads. */
  readonly extra: readonly number[];
}

/** Takes a plain or fused contraction apart. */
export function contractionOf(op: Op): Contraction {
  if (op.name !== 'fused') return { op, root: op, roots: op.operands.map((_, i) => i), extra: [] };
  const region = op.regions[0]!;
  const root = region.ops.find(isContractRoot);
  invariant(root, 'a fused contraction has a root');
  const roots = root.operands.map((v) => region.inputs.indexOf(v));
  const read = new Set(region.ops.filter((o) => o !== root).flatMap((o) => o.operands));
  return { op, root, roots, extra: region.inputs.flatMap((v, i) => (read.has(v) ? [i] : [])) };
}
