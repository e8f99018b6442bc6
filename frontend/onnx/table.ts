/** Which row of the op table a node takes, and whether the node fits it. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { LoweringTable, Row } from './lowering.ts';
import type { NodeView } from './model.ts';

/** The row for a node's op and the imported opset, its arity checked. Throws UserError where there is none or the node does not fit. */
export function rowFor(node: NodeView, opsets: ReadonlyMap<string, number>, table: LoweringTable, where: string): { readonly row: Row; readonly opset: number } {
  const rows = rowsOf(node, table, where);
  const opset = opsets.get(node.domain);
  if (opset === undefined) throw new UserError(`${where}: the model imports no opset for the domain "${node.domain}"`);
  const row = rows.findLast((r) => r.since <= opset);
  if (!row) throw new UserError(`${where}: ${node.opType} exists from opset ${rows[0]!.since} on, but the model imports opset ${opset}`);
  checkCount(where, opset, 'input', node.inputs, row.inputs);
  checkCount(where, opset, 'output', node.outputs, row.outputs);
  return { row, opset };
}

function rowsOf(node: NodeView, table: LoweringTable, where: string): readonly Row[] {
  const key = node.domain === '' ? node.opType : `${node.domain}:${node.opType}`;
  if (Object.hasOwn(table, key)) return table[key]!;
  const known = Object.keys(table).some((k) => (k.includes(':') ? k.slice(0, k.lastIndexOf(':')) : '') === node.domain);
  if (!known) throw new Unsupported(`domain ${node.domain}`, `${where}: the domain "${node.domain}" is not known, and the model has no local function ${node.domain}.${node.opType}`);
  throw new Unsupported(node.opType, `${where}: the op ${key} is not known, and the model has no local function of that name`);
}

/** Checks how many names a node lists: empty ones count as given, but too many of them at the end do no harm. */
function checkCount(where: string, opset: number, what: string, names: readonly string[], [least, most]: readonly [number, number]): void {
  const found = Math.max(trimmed(names).length, Math.min(names.length, least));
  if (found >= least && found <= most) return;
  const wanted = least === most ? `${least}` : most === Infinity ? `at least ${least}` : `${least} to ${most}`;
  throw new UserError(`${where} has ${found} ${what}${found === 1 ? '' : 's'}; in opset ${opset} it takes ${wanted}`);
}

/** Names without the empty ones at the end, which stand for nothing. */
export const trimmed = (names: readonly string[]): readonly string[] => names.slice(0, names.findLastIndex((n) => n !== '') + 1);
