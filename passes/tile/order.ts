/** The order of ops, chosen to lower the bytes held at a time. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { bytesOf } from '../../ir/type.ts';

/**
 * Moves ops to right before their first reader where their results take more than what they alone still hold: values that follow from constants, masks, broadcasts. An op that reads state
 * which the graph updates stays, as the new value is to lie where the old one does.
 */
export function delayed(graph: Graph): Graph {
  const updated = new Set(graph.updates.map((u) => u.state));
  const kept = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  const always = new Set<Value>([...graph.state.map((s) => s.value), ...graph.ops.filter((op) => op.name === 'constant').flatMap((op) => op.results)]);
  /** Read by an op that stands further down. */
  const later = new Set<Value>();
  const waiting = new Map<Value, Op>();
  const staying: Op[] = [];
  // From the last op to the first, so that what leads to an op that moves can follow it.
  for (const op of [...graph.ops].reverse()) {
    const held = op.operands.reduce((n, v, k) => (later.has(v) || always.has(v) || op.operands.indexOf(v) !== k ? n : n + bytesOf(v.type)), 0);
    const made = op.results.reduce((n, r) => n + bytesOf(r.type), 0);
    const stays = op.name === 'constant' || op.results.some((r) => kept.has(r) || !later.has(r)) || op.operands.some((v) => updated.has(v)) || made <= held;
    if (stays) staying.push(op);
    else for (const r of op.results) waiting.set(r, op);
    for (const v of op.operands) later.add(v);
  }
  const order: Op[] = [];
  const done = new Set<Op>();
  const emit = (op: Op): void => {
    if (done.has(op)) return;
    done.add(op);
    for (const v of op.operands) {
      const def = waiting.get(v);
      if (def) emit(def);
    }
    order.push(op);
  };
  for (const op of staying.reverse()) emit(op);
  return { ...graph, ops: order };
}
