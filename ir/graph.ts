/** Graphs: typed SSA values in topological order, with state and regions. Nothing here is mutated after it is built. */
import type { Tensor, TensorType } from './type.ts';

/** One SSA value. Identity is the object; `name` is the name to print (unique only after printing). */
export interface Value {
  readonly type: TensorType;
  /** The ONNX name where there is one; undefined for values that passes made. */
  readonly name: string | undefined;
}

export type Attr = number | bigint | string | boolean | readonly number[] | readonly string[] | Tensor;
export type Attrs = Readonly<Record<string, Attr>>;

/** One op. Region inputs are bound to operands as the op's definition says; a region sees no value from outside but its inputs. */
export interface Op {
  readonly name: string;
  readonly operands: readonly Value[];
  readonly attrs: Attrs;
  readonly results: readonly Value[];
  readonly regions: readonly Graph[];
  /** ONNX nodes that this op came from, as `OpType(nodeName)`; empty for ops that passes made. */
  readonly source: readonly string[];
}

/** A value that outlives a run: a parameter, a running statistic, a moment. Never updated in an inference graph. */
export interface State {
  readonly value: Value;
  /** Name kept from ONNX; unique in the graph. */
  readonly name: string;
  readonly init: Tensor | 'zero';
}

/** A graph. A region uses `inputs`, `ops` and `outputs` alone. */
export interface Graph {
  readonly name: string;
  readonly inputs: readonly Value[];
  readonly state: readonly State[];
  readonly ops: readonly Op[];
  readonly outputs: readonly { readonly name: string; readonly value: Value }[];
  /** New values of state, written in place at the end of a run. */
  readonly updates: readonly { readonly state: Value; readonly value: Value }[];
}

/** The op that defines each value of a graph (regions not entered). */
export function definitions(graph: Graph): Map<Value, Op> {
  const defs = new Map<Value, Op>();
  for (const op of graph.ops) for (const r of op.results) defs.set(r, op);
  return defs;
}

/** The ops that read each value (an op that reads it twice is listed twice; regions read through operands). */
export function uses(graph: Graph): Map<Value, Op[]> {
  const map = new Map<Value, Op[]>();
  for (const op of graph.ops) {
    for (const v of op.operands) {
      const list = map.get(v);
      if (list) list.push(op);
      else map.set(v, [op]);
    }
  }
  return map;
}

/** The tensor a value always has: a `constant`, or state that the graph never updates. Undefined otherwise. */
export function constantOf(graph: Graph, value: Value, defs: Map<Value, Op>): Tensor | undefined {
  const op = defs.get(value);
  if (op) return op.name === 'constant' ? (op.attrs['value'] as Tensor) : undefined;
  const s = graph.state.find((x) => x.value === value);
  if (!s || s.init === 'zero' || graph.updates.some((u) => u.state === value)) return undefined;
  return s.init;
}
