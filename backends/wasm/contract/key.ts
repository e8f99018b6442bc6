/** Keys of elementwise chains that do not depend on shapes, so that layers of different sizes share a micro-kernel. */
import type { Attr, Op, Value } from '../../../ir/graph.ts';

/** A text that is equal for chains of the same ops on the same inputs, whatever the shapes. */
export function chainKey(ops: readonly Op[], inputs: readonly Value[], output: Value): string {
  const ids = new Map<Value, number>(inputs.map((v, i) => [v, i]));
  const id = (v: Value): number => {
    const known = ids.get(v);
    if (known !== undefined) return known;
    ids.set(v, ids.size);
    return ids.size - 1;
  };
  const one = (op: Op): string => {
    const attrs = op.name === 'reshape' || op.name === 'broadcast' ? '' : Object.entries(op.attrs).map(([k, v]) => `${k}=${attrText(v)}`).join(';');
    return `${id(op.results[0]!)}:${op.results[0]!.type.dtype}=${op.name}{${attrs}}(${op.operands.map(id).join(',')})`;
  };
  return `${ops.map(one).join(' ')} ->${id(output)}`;
}

function attrText(v: Attr): string {
  if (typeof v !== 'object') return String(v);
  return 'dtype' in v ? `${v.dtype}:${v.data.join(',')}` : v.join(',');
}
