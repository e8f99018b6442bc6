import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';

/**
 * Drops ops whose results nobody reads, and state that is neither read, updated nor an output. Inputs stay: they are the model's interface.
 * Returns the same graph where all of it is alive.
 */
export function eliminateDeadCode(graph: Graph, _target: Target): Graph {
  const swept = withoutDeadOps(graph);
  const read = new Set<Value>([...swept.ops.flatMap((op) => op.operands), ...swept.outputs.map((o) => o.value), ...swept.updates.flatMap((u) => [u.state, u.value])]);
  const state = swept.state.filter((s) => read.has(s.value));
  return state.length === swept.state.length ? swept : { ...swept, state };
}

function withoutDeadOps(graph: Graph): Graph {
  const live = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  const ops: Op[] = [];
  let changed = false;
  for (const op of graph.ops.toReversed()) {
    if (!op.results.some((r) => live.has(r))) {
      changed = true;
      continue;
    }
    const regions = op.regions.map(withoutDeadOps);
    const same = regions.every((g, i) => g === op.regions[i]);
    changed ||= !same;
    op.operands.forEach((v) => live.add(v));
    ops.push(same ? op : { ...op, regions });
  }
  return changed ? { ...graph, ops: ops.reverse() } : graph;
}
