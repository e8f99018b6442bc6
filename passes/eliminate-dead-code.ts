import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Target } from '../ir/tile.ts';

/**
 * Drops ops whose results nobody reads, and state that is neither read, updated nor an output. Inputs stay: they are the model's interface.
 * Returns the same graph where all of it is alive. Regions may be open (ir/regions.ts).
 */
export function eliminateDeadCode(graph: Graph, _target: Target): Graph {
  const live = new Set<Value>();
  const swept = withoutDeadOps(graph, live);
  swept.updates.forEach((u) => live.add(u.state));
  const state = swept.state.filter((s) => live.has(s.value));
  return state.length === swept.state.length ? swept : { ...swept, state };
}

/** `live` collects what is read. */
function withoutDeadOps(graph: Graph, live: Set<Value>): Graph {
  [...graph.outputs, ...graph.updates].forEach(({ value }) => live.add(value));
  const ops: Op[] = [];
  let changed = false;
  for (const op of graph.ops.toReversed()) {
    if (!op.results.some((r) => live.has(r))) {
      changed = true;
      continue;
    }
    const regions = op.regions.map((region) => withoutDeadOps(region, live));
    const same = regions.every((g, i) => g === op.regions[i]);
    changed ||= !same;
    op.operands.forEach((v) => live.add(v));
    ops.push(same ? op : { ...op, regions });
  }
  return changed ? { ...graph, ops: ops.reverse() } : graph;
}
