/** What an op computes, as a text. */
import type { Op, Value } from '../../ir/graph.ts';

const keys = new WeakMap<Op, string>();

/** What an op computes: equal for ops that differ in the names of their values alone. */
export function keyOf(op: Op): string {
  let key = keys.get(op);
  if (key === undefined) keys.set(op, (key = `${[...op.operands, ...op.results].map(typeOf).join(' ')} ${bodyOf(op)}`));
  return key;
}

const typeOf = (v: Value): string => `${v.type.dtype}[${v.type.shape.join()}]`;

function bodyOf(op: Op): string {
  const attrs = JSON.stringify(Object.entries(op.attrs).filter(([, v]) => typeof v !== 'object' || !('data' in v)), (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v));
  const regions = op.regions.map((r) => {
    const number = new Map<Value, number>();
    for (const v of [...r.inputs, ...r.ops.flatMap((o) => o.results)]) number.set(v, number.size);
    const numbers = (list: readonly Value[]): string => list.map((v) => number.get(v)).join();
    return `{${r.ops.map((o) => `${o.results.map(typeOf).join()}=${bodyOf(o)}(${numbers(o.operands)})`).join(';')} return ${numbers(r.outputs.map((o) => o.value))}}`;
  });
  return `${op.name} ${attrs} ${regions.join(' ')}`;
}
