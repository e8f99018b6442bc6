/** Names and places while a model is lowered: scopes hold what ONNX names stand for, frames are graphs under construction. */
import { Builder } from '../../ir/builder.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import type { BoundAttribute } from './attributes.ts';
import { isTensorValue, type Bound } from './lowering.ts';
import type { InitializerView, ModelView } from './model.ts';
import type { LoweringTable } from './lowering.ts';

/** A graph or region under construction. */
export interface Frame {
  readonly b: Builder;
  /** The frame around a region; undefined for the model's graph. */
  readonly parent: Frame | undefined;
  /** Captured values: the parent's value to the region's input (or repeated constant), and back. */
  readonly inner: Map<Value, Value>;
  readonly outer: Map<Value, Value>;
  /** Defining ops, filled as far as `indexed` ops of the builder. */
  readonly defs: Map<Value, Op>;
  indexed: number;
  /** ONNX names of results, with the depth of function calls they come from: names of the caller win. */
  readonly names: Map<Value, { readonly name: string; readonly depth: number }>;
}

/** What names mean inside a graph, a subgraph or the body of a local function. */
export interface Scope {
  /** The scope that a subgraph captures from; undefined for graphs and function bodies. */
  readonly parent: Scope | undefined;
  readonly frame: Frame;
  /** undefined stands for an optional input of a function that the caller leaves out. */
  readonly names: Map<string, Bound | undefined>;
  readonly initializers: ReadonlyMap<string, InitializerView>;
  readonly opsets: ReadonlyMap<string, number>;
  /** Attributes of the function call that this scope is the body of. */
  readonly attributes: ReadonlyMap<string, BoundAttribute<Scope>>;
  /** Function calls around it, innermost last: keys of the functions and names of the calling nodes. */
  readonly calls: readonly { readonly key: string; readonly node: string }[];
}

/** A value that was asked for while importing; or a size that was rounded, or cut to fit another, as it was before. */
export interface CompileTimeRead {
  /** The node, as ops name their source. */
  readonly source: readonly string[];
  /** What it was taken for: "axes". */
  readonly what: string;
  readonly from: Value | number;
}

/** What is shared by one import. */
export interface Session {
  readonly model: ModelView;
  readonly folder: string | undefined;
  readonly table: LoweringTable;
  readonly root: Frame;
  readonly stateInit: Map<Value, Tensor>;
  readonly initialized: Map<InitializerView, Bound>;
  /** Initializers of the model's graph, whose names are taken from the start. */
  readonly ownInitializers: ReadonlyMap<string, InitializerView>;
  readonly stateNames: Set<string>;
  /** Input names of the model's graph, by value. */
  readonly inputNames: Map<Value, string>;
  readonly warnings: Set<string>;
  /** Normalizations and dropout work as in inference. */
  readonly inference: boolean;
  /** Whoever runs the graph gives its random ops a seed. */
  readonly seeded: boolean;
  /** Running statistics among the weights. */
  readonly statistics: Set<Value>;
  /** What decided something at compile time, in order. */
  readonly reads: CompileTimeRead[];
  /** What values became when they got their ONNX names. */
  readonly renamed: Map<Value, Value>;
  lowered: number;
}

export function newFrame(name: string, parent: Frame | undefined): Frame {
  return { b: new Builder(name), parent, inner: new Map(), outer: new Map(), defs: new Map(), indexed: 0, names: new Map() };
}

/** The op that defines a value of this frame; undefined for inputs, state and captured values. */
export function definitionIn(frame: Frame, v: Value): Op | undefined {
  const ops = frame.b.ops;
  for (; frame.indexed < ops.length; frame.indexed++) {
    const op = ops[frame.indexed]!;
    for (const r of op.results) frame.defs.set(r, op);
  }
  return frame.defs.get(v);
}

/** Gives results their ONNX names: a graph equal to `graph` but for the names of values. Regions have theirs already. `renamed` gets the values that changed. */
export function nameValues(graph: Graph, frame: Frame, renamed: Map<Value, Value>): Graph {
  const now = (v: Value): Value => renamed.get(v) ?? v;
  const ops = graph.ops.map((op): Op => {
    const operands = op.operands.map(now);
    const results = op.results.map((v) => {
      const known = frame.names.get(v);
      if (!known) return v;
      const named: Value = { type: v.type, name: known.name };
      renamed.set(v, named);
      return named;
    });
    return { ...op, operands, results };
  });
  return {
    ...graph,
    ops,
    outputs: graph.outputs.map((o) => ({ name: o.name, value: now(o.value) })),
    updates: graph.updates.map((u) => ({ state: u.state, value: now(u.value) })),
  };
}

/** Applies `f` to every tensor that a bound name stands for. */
export function mapBound(x: Bound, f: (v: Value) => Value): Bound {
  if (isTensorValue(x)) return f(x);
  switch (x.kind) {
    case 'sequence':
      return { ...x, items: x.items.map((item) => mapBound(item, f)) };
    case 'optional':
      return { ...x, item: x.item && mapBound(x.item, f) };
    case 'strings':
      return x;
  }
}
