/** Finds the activation that follows a value: elementwise ops of that value alone. */
import type { Builder } from '../../ir/builder.ts';
import { isMap } from '../../ir/fused.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { readers } from '../../ir/regions.ts';
import { isFloat, sameShape, sizeOf } from '../../ir/type.ts';

/** φ(u), as the ops that compute it. */
export interface Activation {
  /** In the order of the graph; operands that are none of their results nor u depend on parameters alone. */
  readonly ops: readonly Op[];
  readonly result: Value;
}

/**
 * The activation of a value u that has channels on axis 1: the largest set of elementwise ops of the same graph or (open) region that leads from u, alone or with parameters, to one value,
 * while nothing else reads what lies between. Parameters count where they are the same for all samples and positions (the slope of PRelu). A scale or shift of each channel behind the last other op is not part
 * of it, nor is what `barred` names. Undefined where u has no activation of its own.
 */
export function findActivation(graph: Graph, u: Value, parameters: ReadonlySet<Value>, barred: ReadonlySet<Op>): Activation | undefined {
  const reach = new Map<Value, Op>();
  const inside = (v: Value): boolean => v === u || reach.has(v);
  for (const op of graph.ops) {
    if (!isMap(op) || barred.has(op) || !op.operands.some(inside)) continue;
    const alone = op.operands.every((v) => inside(v) || (parameters.has(v) && alongChannels(v, u)));
    if (alone && sameShape(op.results[0]!.type.shape, u.type.shape)) reach.set(op.results[0]!, op);
  }
  const read = readers(graph);
  const kept = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((x) => x.value)]);
  for (const result of [...reach.keys()].reverse()) {
    const ops = opsBetween(reach, result);
    const between = [u, ...ops.map((op) => op.results[0]!).filter((v) => v !== result)];
    const own = new Set(ops);
    const closed = isFloat(result.type.dtype) && between.every((v) => !kept.has(v) && (read.get(v) ?? []).every((op) => own.has(op)));
    if (closed && !isAffine(reach.get(result)!, parameters)) return { ops, result };
  }
  return undefined;
}

/** The activation of u, computed of another value; `operand` gives the parameters that it reads. */
export function applyTo(b: Builder, { ops, result }: Activation, u: Value, value: Value, operand: (v: Value) => Value): Value {
  const inner = new Map<Value, Value>([[u, value]]);
  for (const op of ops) {
    b.source = op.source;
    inner.set(op.results[0]!, b.one(op.name, op.operands.map((v) => inner.get(v) ?? operand(v)), op.attrs));
  }
  return inner.get(result)!;
}

/** Whether a parameter differs between channels at most, once it is broadcast to the shape of u. */
const alongChannels = (v: Value, u: Value): boolean => {
  const lead = u.type.shape.length - v.type.shape.length;
  return lead >= 0 && v.type.shape.every((size, i) => size === 1 || (i + lead === 1 && size === u.type.shape[1]));
};

/** The ops that lead to a value, in the order of the graph. */
function opsBetween(reach: ReadonlyMap<Value, Op>, result: Value): Op[] {
  const needed = new Set<Value>([result]);
  const ops: Op[] = [];
  for (const [v, op] of [...reach].reverse()) {
    if (!needed.has(v)) continue;
    ops.push(op);
    op.operands.forEach((x) => needed.add(x));
  }
  return ops.reverse();
}

const isAffine = (op: Op, parameters: ReadonlySet<Value>): boolean =>
  ['add', 'sub', 'mul', 'div'].includes(op.name) && op.operands.some((v) => parameters.has(v) && sizeOf(v.type.shape) > 1);
