/** Values that depend on constants and never-updated state alone. */
import { definitions, type Graph, type Value } from '../ir/graph.ts';
import { captures, isControl } from '../ir/regions.ts';
import { stateConstants, type Facts } from '../ir/rewrite.ts';

/** Whether a value is one; `known` remembers answers. */
export function isFixed(v: Value, facts: Pick<Facts, 'definition' | 'constant'>, known: Map<Value, boolean>): boolean {
  const before = known.get(v);
  if (before !== undefined) return before;
  const op = facts.definition(v);
  const fixed = facts.constant(v) !== undefined || (op !== undefined && op.operands.length > 0 && op.regions.length === 0 && op.operands.every((o) => isFixed(o, facts, known)));
  known.set(v, fixed);
  return fixed;
}

/** The inputs of regions, wherever they stand in a graph, that capture fixed values: what isFixed is to know from the start. */
export function fixedCaptures(graph: Graph): Map<Value, boolean> {
  const inner = new Map<Value, boolean>();
  const state = stateConstants(graph);
  const enter = (g: Graph): void => {
    if (!g.ops.some(isControl)) return;
    const defs = definitions(g);
    const known = new Map(inner);
    const facts: Parameters<typeof isFixed>[1] = { definition: (v) => defs.get(v), constant: (v) => state.get(v) };
    // Constants have no operands.
    for (const op of g.ops) if (op.name === 'constant') known.set(op.results[0]!, true);
    for (const op of g.ops.filter(isControl)) {
      for (const region of op.regions) {
        for (const c of captures(op, region)) if (isFixed(c.outer, facts, known)) inner.set(c.inner, true);
        enter(region);
      }
    }
  };
  enter(graph);
  return inner;
}
