/** The order of ops, chosen to lower the bytes held at a time. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { bytesOf } from '../../ir/type.ts';

/** The order that `delayed` gives where it holds fewer bytes at the fullest op, else the graph's own. */
export function lowered(graph: Graph): Graph {
  const moved = delayed(graph);
  return fullest(moved) < fullest(graph) ? moved : graph;
}

/** The most bytes of values, state and constants apart, that are held while an op runs. */
function fullest(graph: Graph): number {
  const last = new Map<Value, number>();
  graph.ops.forEach((op, i) => op.operands.forEach((v) => last.set(v, i)));
  for (const o of graph.outputs) last.set(o.value, graph.ops.length);
  for (const u of graph.updates) last.set(u.value, graph.ops.length);
  let [held, most] = [graph.inputs.reduce((n, v) => n + bytesOf(v.type), 0), 0];
  const counted = new Set<Value>(graph.inputs);
  graph.ops.forEach((op, i) => {
    if (op.name === 'constant') return;
    for (const r of op.results) {
      if (!last.has(r)) continue;
      counted.add(r);
      held += bytesOf(r.type);
    }
    most = Math.max(most, held);
    for (const v of new Set(op.operands)) if (counted.has(v) && last.get(v) === i) held -= bytesOf(v.type);
  });
  return most;
}

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
