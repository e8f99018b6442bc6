import type { Graph, Value } from '../../ir/graph.ts';
import { replaceValues } from '../../ir/rewrite.ts';
import { parametersOf, gradientName } from './extend.ts';

/** Names the value of each gradient after its parameter (`w.grad`), so that dumps and profiles can be read. A value that is the gradient of several parameters is named after the first. */
export function nameGradients(graph: Graph): Graph {
  const own = new Set(graph.ops.flatMap((op) => op.results));
  const named = new Map<Value, Value>();
  for (const { state, gradient } of parametersOf(graph)) {
    if (own.has(gradient) && gradient.name === undefined && !named.has(gradient)) named.set(gradient, { type: gradient.type, name: gradientName(state.name) });
  }
  const at = (v: Value): Value => named.get(v) ?? v;
  const ops = graph.ops.map((op) => (op.results.some((r) => named.has(r)) ? { ...op, results: op.results.map(at) } : op));
  return replaceValues({ ...graph, ops }, at);
}
