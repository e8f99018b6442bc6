/** Rebuilds graphs: the one place that maps values, so that passes only say what an op becomes. */
import { Builder } from './builder.ts';
import { invariant } from './diagnostic.ts';
import type { Attrs, Graph, Op, State, Value } from './graph.ts';
import type { Tensor } from './type.ts';

/** What is known about the values of the graph that is being rebuilt. */
export interface Facts {
  /** The op of the new graph that defines a value; undefined for inputs and state. */
  definition(v: Value): Op | undefined;
  /** The tensor that a value always has: a constant, or state that is never updated. */
  constant(v: Value): Tensor | undefined;
  /** How often a value is read, outputs and updates counted: exact for values of the old graph, 0 for those that the rewrite just made. */
  readers(v: Value): number;
  /** Adds state to the new graph under a name that is not yet taken (`name`, else `name~1`, ...). Not in a region: those have no state. */
  addState(name: string, init: Tensor): Value;
  /** Whether the graph is the region of an op. */
  readonly region: boolean;
}

/** What an op becomes: values for its results, or undefined to keep it. Its operands are values of the new graph; new ops go through `b`. */
export type Visit = (op: Op, b: Builder, facts: Facts) => readonly Value[] | undefined;

/**
 * Rebuilds a graph in order, giving each op to `visit`. Returns the same graph where `visit` kept every op. New ops inherit the ONNX sources of the op
 * they replace, and new values its names. Regions of control flow are rebuilt too, by `regions` where it is given; those of `fused` never are.
 */
export function rewriteOps(graph: Graph, visit: Visit, options: { readonly regions?: (region: Graph) => Graph } = {}): Graph {
  return rebuild(graph, visit, options.regions ?? ((region) => rebuildRegion(region, visit)), false);
}

/** Regions of control flow inside regions are rebuilt with the same visit. */
const rebuildRegion = (region: Graph, visit: Visit): Graph => rebuild(region, visit, (inner) => rebuildRegion(inner, visit), true);

function rebuild(graph: Graph, visit: Visit, onRegion: (region: Graph) => Graph, region: boolean): Graph {
  const map = new Map<Value, Value>();
  const at = (v: Value): Value => map.get(v) ?? v;
  const ops: Op[] = [];
  const addedState: State[] = [];
  const defs = new Map<Value, Op>();
  const readers = readerCounts(graph);
  const constants = stateConstants(graph);
  const taken = new Set(graph.state.map((s) => s.name));
  let changed = false;

  const facts: Facts = {
    region,
    definition: (v) => defs.get(v),
    constant: (v) => {
      const op = defs.get(v);
      return op ? (op.name === 'constant' ? (op.attrs['value'] as Tensor) : undefined) : constants.get(v);
    },
    readers: (v) => readers.get(v) ?? 0,
    addState: (wanted, init) => {
      invariant(!region, 'a region has no state');
      let name = wanted;
      for (let i = 1; taken.has(name); i++) name = `${wanted}~${i}`;
      taken.add(name);
      const value: Value = { type: { dtype: init.dtype, shape: init.shape }, name };
      addedState.push({ value, name, init });
      constants.set(value, init);
      return value;
    },
  };
  const append = (op: Op): void => {
    ops.push(op);
    for (const r of op.results) defs.set(r, op);
  };

  for (const old of graph.ops) {
    const op = withOperands(old, at, old.name === 'fused' ? undefined : onRegion);
    const b = new Builder('');
    b.source = op.source;
    const values = visit(op, tracked(b, defs), facts);
    if (!values) {
      changed ||= op !== old;
      append(op);
      continue;
    }
    changed = true;
    invariant(values.length === old.results.length, `${old.name} was replaced by ${values.length} values`);
    const { made, named } = nameResults(b.ops, values, old.results);
    for (const o of made) append(o);
    old.results.forEach((r, i) => {
      const v = named[i]!;
      if (v === r) return;
      map.set(r, v);
      readers.set(v, (readers.get(v) ?? 0) + (readers.get(r) ?? 0));
    });
  }
  if (!changed && addedState.length === 0) return graph;
  return {
    ...graph,
    state: [...graph.state, ...addedState],
    ops,
    outputs: graph.outputs.map((o) => ({ name: o.name, value: at(o.value) })),
    updates: graph.updates.map((u) => ({ state: u.state, value: at(u.value) })),
  };
}

/** A graph with each value replaced by what `at` gives for it. */
export function replaceValues(graph: Graph, at: (v: Value) => Value): Graph {
  return {
    ...graph,
    ops: graph.ops.map((op) => withOperands(op, at)),
    outputs: graph.outputs.map((o) => ({ name: o.name, value: at(o.value) })),
    updates: graph.updates.map((u) => ({ state: u.state, value: at(u.value) })),
  };
}

/** An op, and the ops of its regions, on other values: `become` is asked once for each, and `attrs` for the attributes of each op. */
export function withValues(op: Op, become: (v: Value) => Value, attrs: (o: Op) => Attrs = (o) => o.attrs): Op {
  const made = new Map<Value, Value>();
  const own = (v: Value): Value => {
    const value = made.get(v) ?? become(v);
    made.set(v, value);
    return value;
  };
  const rebuilt = (o: Op): Op => ({
    ...o, operands: o.operands.map(own), results: o.results.map(own), attrs: attrs(o),
    regions: o.regions.map((r) => ({ ...r, inputs: r.inputs.map(own), ops: r.ops.map(rebuilt), outputs: r.outputs.map((x) => ({ ...x, value: own(x.value) })) })),
  });
  return rebuilt(op);
}

/** How often each value is read by ops, outputs and updates. */
function readerCounts(graph: Graph): Map<Value, number> {
  const counts = new Map<Value, number>();
  const count = (v: Value): unknown => counts.set(v, (counts.get(v) ?? 0) + 1);
  for (const op of graph.ops) op.operands.forEach(count);
  for (const o of graph.outputs) count(o.value);
  for (const u of graph.updates) count(u.value);
  return counts;
}

/** The tensors of state that is never updated. */
export function stateConstants(graph: Graph): Map<Value, Tensor> {
  const updated = new Set(graph.updates.map((u) => u.state));
  return new Map(graph.state.flatMap((s) => (s.init === 'zero' || updated.has(s.value) ? [] : [[s.value, s.init] as const])));
}

/** An op with mapped operands and regions; the same object where nothing changes. */
function withOperands(op: Op, at: (v: Value) => Value, region: (g: Graph) => Graph = (g) => g): Op {
  const operands = op.operands.map(at);
  const regions = op.regions.map(region);
  const same = operands.every((v, i) => v === op.operands[i]) && regions.every((g, i) => g === op.regions[i]);
  return same ? op : { ...op, operands, regions };
}

/** A builder whose new ops are seen by `facts.definition` as soon as they are made. */
function tracked(b: Builder, defs: Map<Value, Op>): Builder {
  const build = b.op.bind(b);
  b.op = (...args) => {
    const values = build(...args);
    const op = b.ops.at(-1)!;
    for (const v of op.results) defs.set(v, op);
    return values;
  };
  return b;
}

/** Gives values that a visit made without a name the names of the results they stand for. */
function nameResults(made: readonly Op[], values: readonly Value[], results: readonly Value[]): { made: readonly Op[]; named: readonly Value[] } {
  const own = new Set(made.flatMap((o) => o.results));
  const renamed = new Map<Value, Value>();
  values.forEach((v, i) => {
    const name = results[i]!.name;
    if (name !== undefined && v.name === undefined && own.has(v) && !renamed.has(v)) renamed.set(v, { type: v.type, name });
  });
  if (renamed.size === 0) return { made, named: values };
  const at = (v: Value): Value => renamed.get(v) ?? v;
  return { made: made.map((o) => ({ ...o, operands: o.operands.map(at), results: o.results.map(at) })), named: values.map(at) };
}
