import { definitions, type Graph, type Op, type Value } from '../ir/graph.ts';

/**
 * Delays each op that gives state its new value until all others that read the old one have run, where they do not need the new one: the value can then be written in place. A
 * topological order stays one.
 */
export function orderUpdates(graph: Graph): Graph {
  const updated = newValues(graph);
  /** What a view shows. */
  const shown = new Map<Value, Value>();
  for (const op of graph.ops) if (views.has(op.name)) shown.set(op.results[0]!, shown.get(op.operands[0]!) ?? op.operands[0]!);
  const read = (op: Op): Set<Value> => new Set(views.has(op.name) ? [] : op.operands.map((v) => shown.get(v) ?? v));
  const readers = new Map<Value, number>();
  for (const op of graph.ops) for (const v of read(op)) readers.set(v, (readers.get(v) ?? 0) + 1);
  const own = (op: Op, state: Value): number => (read(op).has(state) ? 1 : 0);
  const isEarly = (op: Op): boolean => op.results.some((r) => (updated.get(r) ?? []).some((state) => (readers.get(state) ?? 0) > own(op, state)));

  const ops: Op[] = [];
  let waiting: Op[] = [];
  const pending = new Set<Value>();
  const run = (op: Op): void => {
    ops.push(op);
    for (const v of read(op)) readers.set(v, readers.get(v)! - 1);
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

/** Ops whose results show their operand's memory. */
const views: ReadonlySet<string> = new Set(['reshape', 'transpose', 'slice']);

/** The new values of state that stays somewhere else than it is computed, and what they are reshaped from: the elements of a state in their order, with the states they go to. */
export function newValues(graph: Graph): Map<Value, Value[]> {
  const defs = definitions(graph);
  const updated = new Map<Value, Value[]>();
  for (const u of graph.updates) {
    if (u.value === u.state) continue;
    let v: Value | undefined = u.value;
    for (; v && v !== u.state; v = defs.get(v)?.name === 'reshape' ? defs.get(v)!.operands[0] : undefined) updated.set(v, [...(updated.get(v) ?? []), u.state]);
  }
  return updated;
}
