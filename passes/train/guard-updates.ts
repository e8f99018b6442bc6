import { Builder } from '../../ir/builder.ts';
import { invariant } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { lossName } from './differentiate.ts';
import { isFinite } from './finite.ts';
import { finiteName, goodStepsName, scaleName } from './scale-loss.ts';

/**
 * Lets a step whose loss is NaN or infinite change nothing: all state, counters and running statistics included, keeps its value then, so nobody has to keep a copy to undo such a step
 * with. With an automatic loss scale the same goes for steps with a gradient that is not finite; the scale itself changes then. What reads a new value after the loss is known reads the guarded one (a weight its moment, say), so that there is one of each, written in place.
 */
export function guardUpdates(graph: Graph): Graph {
  const loss = graph.outputs.find((o) => o.name === lossName)?.value;
  invariant(loss, 'the graph has no loss');
  const judged = graph.outputs.find((o) => o.name === finiteName)?.value;
  const own = new Set(graph.state.filter((s) => s.name === scaleName || s.name === goodStepsName).map((s) => s.value));
  const states = Map.groupBy(graph.updates.filter((u) => u.value !== u.state && !own.has(u.state)), (u) => u.value);
  const b = new Builder(graph.name);
  b.adopt(graph);
  const readers = new Map<Value, Value>();
  const guarded = new Map<Value, Value>();
  let finite: Value | undefined;
  const guard = (value: Value): void => {
    for (const { state } of states.get(value) ?? []) {
      guarded.set(state, b.select(finite!, value, state));
      readers.set(value, guarded.get(state)!);
    }
  };
  for (const op of graph.ops) {
    b.append({ ...op, operands: op.operands.map((v) => readers.get(v) ?? v) });
    if (op.results.includes(judged ?? loss)) {
      finite = judged ?? b.reshape(isFinite(b, loss), []);
      const before = new Set(b.ops.flatMap((o) => o.results));
      for (const value of states.keys()) if (before.has(value)) guard(value);
    } else if (finite) op.results.forEach(guard);
  }
  const done = b.finish(graph.outputs.filter((o) => o.name !== finiteName));
  return { ...done, updates: graph.updates.map(({ state, value }) => ({ state, value: guarded.get(state) ?? value })) };
}
