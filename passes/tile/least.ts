/** Bytes that no plan of a graph gets below. */
import { definitions, type Graph, type Value } from '../../ir/graph.ts';
import { bytesOf } from '../../ir/type.ts';
import { isView } from './estimate.ts';

/**
 * Bytes over all tiles together: `always` of state and constants, `alive` of the values that are held between two ops where they are most. Operands of an op and copies of them are not counted with its
 * results, since results may take their place. A graph's own results are held to its end.
 */
export function leastBytes(graph: Graph): { readonly always: number; readonly alive: number } {
  const defs = definitions(graph);
  const rootOf = (v: Value): Value => {
    let root = v;
    for (let def = defs.get(root); def && isView(def); def = defs.get(root)) root = def.operands[0]!;
    return root;
  };
  const state = new Set<Value>(graph.state.map((s) => s.value));
  const constants = graph.ops.filter((op) => op.name === 'constant').flatMap((op) => op.results);
  for (const v of constants) state.add(v);
  const always = [...state].reduce((n, v) => n + bytesOf(v.type), 0);
  const left = new Map<Value, number>();
  const reads = (v: Value): void => void left.set(rootOf(v), (left.get(rootOf(v)) ?? 0) + 1);
  for (const op of graph.ops) if (!isView(op)) op.operands.forEach(reads);
  for (const o of graph.outputs) reads(o.value);
  let now = graph.inputs.reduce((n, v) => n + bytesOf(v.type), 0);
  let alive = now;
  // New state takes the place of the old.
  const updates = new Set(graph.updates.map((u) => rootOf(u.value)));
  for (const op of graph.ops) {
    if (isView(op) || op.name === 'constant') continue;
    for (const r of op.results) if (left.has(r) && !updates.has(r)) now += bytesOf(r.type);
    for (const v of op.operands.map(rootOf)) {
      const n = left.get(v)! - 1;
      left.set(v, n);
      if (n === 0 && !state.has(v) && !updates.has(v)) now -= bytesOf(v.type);
    }
    alive = Math.max(alive, now);
  }
  return { always, alive };
}
