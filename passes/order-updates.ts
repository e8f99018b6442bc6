import type { Graph, Op, Value } from '../ir/graph.ts';

/**
 * Delays each op that gives state its new value until all others that read the old one have run, where they do not need the new one: the value can then be written in place. A
 * topological order stays one.
 */
export function orderUpdates(graph: Graph): Graph {
  const updated = new Map<Value, Value[]>();
  for (const u of graph.updates) if (u.value !== u.state) updated.set(u.value, [...(updated.get(u.value) ?? []), u.state]);
  const readers = new Map<Value, number>();
  for (const op of graph.ops) for (const v of new Set(op.operands)) readers.set(v, (readers.get(v) ?? 0) + 1);
  const own = (op: Op, state: Value): number => (op.operands.includes(state) ? 1 : 0);
  const isEarly = (op: Op): boolean => op.results.some((r) => (updated.get(r) ?? []).some((state) => (readers.get(state) ?? 0) > own(op, state)));

  const ops: Op[] = [];
  let waiting: Op[] = [];
  const pending = new Set<Value>();
  const run = (op: Op): void => {
    ops.push(op);
    for (const v of new Set(op.operands)) readers.set(v, readers.get(v)! - 1);
  };
  const isReady = (op: Op): boolean => !op.operands.some((v) => pending.has(v)) && !isEarly(op);
  const wake = (): void => {
    for (let i = 0; i < waiting.length;) {
      const op = waiting[i]!;
      for (const r of op.results) pending.delete(r);
      if (isReady(op)) {
        waiting.splice(i, 1);
        run(op);
        i = 0;
      } else {
        for (const r of op.results) pending.add(r);
        i++;
      }
    }
  };
  for (const op of graph.ops) {
    if (isReady(op)) run(op);
    else {
      waiting.push(op);
      for (const r of op.results) pending.add(r);
      continue;
    }
    if (waiting.length > 0) wake();
  }
  // What waits for each other keeps its order; its values are copied.
  for (const op of waiting) run(op);
  waiting = [];
  return { ...graph, ops };
}
