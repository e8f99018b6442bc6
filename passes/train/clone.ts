/** Copies of ops on other operands. */
import type { Builder } from '../../ir/builder.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';

/** Appends a copy of each op that reads, directly or through other copies, a value that `map` replaces; adds to `map` what their results became. */
export function cloneDependents(b: Builder, ops: readonly Op[], map: Map<Value, Value>): void {
  for (const op of ops) if (op.operands.some((v) => map.has(v))) b.append(clone(op, map));
}

/** A copy of an op on mapped operands, with results and regions of its own. */
export function clone(op: Op, map: Map<Value, Value>): Op {
  const operands = op.operands.map((v) => map.get(v) ?? v);
  const results = op.results.map((r) => {
    const copy: Value = { type: r.type, name: undefined };
    map.set(r, copy);
    return copy;
  });
  return { ...op, operands, results, regions: op.regions.map(cloneRegion) };
}

function cloneRegion(region: Graph): Graph {
  const map = new Map<Value, Value>();
  const inputs = region.inputs.map((v) => {
    const copy: Value = { type: v.type, name: v.name };
    map.set(v, copy);
    return copy;
  });
  const ops = region.ops.map((op) => clone(op, map));
  return { ...region, inputs, ops, outputs: region.outputs.map((o) => ({ name: o.name, value: map.get(o.value) ?? o.value })) };
}
