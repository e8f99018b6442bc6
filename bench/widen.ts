/** A graph in float64: what its formulas give without the rounding of float32. */
import { Builder } from '../ir/builder.ts';
import type { Attrs, Graph, Value } from '../ir/graph.ts';
import type { Tensor, TensorType } from '../ir/type.ts';
import type { NormalizedModel } from '../passes/norm/rewrite-norms.ts';

/** The model with every f32 as f64: inputs, weights, constants, casts and results. Graphs with loops or branches are not among those that are widened. */
export function widenModel({ graph, statistics }: NormalizedModel): NormalizedModel {
  const map = new Map<Value, Value>();
  const at = (v: Value): Value => map.get(v) ?? v;
  const b = new Builder(graph.name);
  for (const v of graph.inputs) map.set(v, b.input(wideType(v.type), v.name));
  for (const { value, name, init } of graph.state) map.set(value, b.state(name, wideType(value.type), init === 'zero' ? init : widen(init)));
  for (const op of graph.ops) {
    if (op.regions.length > 0) throw new Error(`${op.name} has regions, which are not widened`);
    b.source = op.source;
    b.op(op.name, op.operands.map(at), wideAttrs(op.attrs), [], op.results.map((r) => r.name)).forEach((v, i) => map.set(op.results[i]!, v));
  }
  const wide: Graph = b.finish(graph.outputs.map((o) => ({ name: o.name, value: at(o.value) })));
  return { graph: wide, statistics: statistics.map((s) => ({ state: at(s.state), next: s.next && at(s.next) })) };
}

/** A tensor of f32 as f64; others as they are. */
export const widen = (t: Tensor): Tensor => (t.dtype === 'f32' ? { dtype: 'f64', shape: t.shape, data: Float64Array.from(t.data as Float32Array) } : t);

const wideType = (t: TensorType): TensorType => (t.dtype === 'f32' ? { dtype: 'f64', shape: t.shape } : t);

function wideAttrs(attrs: Attrs): Attrs {
  return Object.fromEntries(Object.entries(attrs).map(([key, a]) => {
    if ((key === 'to' || key === 'dtype') && a === 'f32') return [key, 'f64'];
    return [key, typeof a === 'object' && 'data' in a ? widen(a) : a];
  }));
}
