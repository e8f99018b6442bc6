/** Which operands of an op its contributions read, and which only their merge. */
import type { Op } from '../../../ir/graph.ts';

/** The operands that contributions need, as positions. All positions of a value are in it where one is. */
export function contributing(op: Op, root: Op): ReadonlySet<number> {
  let found = known.get(op);
  if (!found) known.set(op, (found = positions(op, root)));
  return found;
}

const known = new WeakMap<Op, ReadonlySet<number>>();

function positions(op: Op, root: Op): ReadonlySet<number> {
  const direct = op === root ? op.operands : root.operands.map((v) => op.operands[op.regions[0]!.inputs.indexOf(v)]);
  return new Set([...op.operands.keys()].filter((k) => direct.includes(op.operands[k]!) || isBefore(op, root, k)));
}

/** Whether contributions need the operand at a position. */
export function contributes(op: Op, root: Op, k: number): boolean {
  return isBefore(op, root, k) || root.operands.includes(op.regions[0]!.inputs[k]!);
}

/** Whether an operand is read by elementwise ops before the root. */
function isBefore(op: Op, root: Op, k: number): boolean {
  if (op === root) return true;
  const region = op.regions[0]!;
  const input = region.inputs[k]!;
  const at = region.ops.indexOf(root);
  return region.ops.slice(0, at).some((o) => o.operands.includes(input));
}
