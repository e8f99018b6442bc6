/** Finds the activation that follows a value: elementwise ops of that value alone. */
import type { Builder } from '../../ir/builder.ts';
import { isMap } from '../../ir/fused.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { readers } from '../../ir/regions.ts';
import { isFloat, sameShape, sizeOf } from '../../ir/type.ts';
import { dropoutOf } from './dropout.ts';

/** φ(u), as the ops that compute it. */
export interface Activation {
  /** In the order of the graph; operands that are none of their results nor u depend on parameters alone, but for the masks of dropouts. */
  readonly ops: readonly Op[];
  readonly result: Value;
  /** What dropouts between u and the result give, and what they drop elements of: φ has it as it is. */
  readonly dropped: ReadonlyMap<Value, Value>;
}

/**
 * The activation of a value u that has channels on axis 1: the largest set of elementwise ops of the same graph or (open) region that leads from u, alone or with parameters, to one value that is no
 * affine function of u, while nothing else reads what lies between. Parameters count where they are the same for all samples and positions (the slope of PRelu). A scale or shift of each channel
 * behind the last other op is not part of it, nor is dropout, nor what `barred` names: the activation is the same in training and in inference. Undefined where u has no activation of its own.
 */
export function findActivation(graph: Graph, u: Value, parameters: ReadonlySet<Value>, barred: ReadonlySet<Op>, def: (v: Value) => Op | undefined): Activation | undefined {
  const reach = new Map<Value, Op>();
  const affine = new Set<Value>([u]);
  const dropped = new Map<Value, Value>();
  const ofDropouts = new Set<Op>();
  const inside = (v: Value): boolean => v === u || reach.has(v);
  for (const op of graph.ops) {
    if (!isMap(op) || barred.has(op) || !op.operands.some(inside)) continue;
    const result = op.results[0]!;
    const dropout = dropoutOf(op, def);
    if (dropout && inside(dropout.of)) {
      dropped.set(result, dropout.of);
      dropout.ops.forEach((o) => ofDropouts.add(o));
      if (affine.has(dropout.of)) affine.add(result);
      reach.set(result, op);
      continue;
    }
    const alone = op.operands.every((v) => inside(v) || (parameters.has(v) && alongChannels(v, u)));
    if (!alone || !sameShape(result.type.shape, u.type.shape)) continue;
    reach.set(result, op);
    if (isAffine(op, (v) => affine.has(v), inside)) affine.add(result);
  }
  const read = readers(graph);
  const kept = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((x) => x.value)]);
  for (const result of [...reach.keys()].reverse()) {
    const ops = opsBetween(reach, result);
    const between = [u, ...ops.map((op) => op.results[0]!).filter((v) => v !== result)];
    const own = new Set(ops);
    const closed = isFloat(result.type.dtype) && between.every((v) => !kept.has(v) && (read.get(v) ?? []).every((op) => own.has(op)));
    const last = reach.get(result)!;
    if (closed && !affine.has(result) && !ofDropouts.has(last) && !scalesChannels(last, parameters)) return { ops, result, dropped };
  }
  return undefined;
}

/** The activation of u, computed of another value; `operand` gives what else it reads. */
export function applyTo(b: Builder, activation: Activation, u: Value, value: Value, operand: (v: Value) => Value): Value {
  return apply(b, activation.ops, activation.result, new Map([[u, value]]), operand);
}

/** φ of another value: the activation without its dropouts. */
export function applyPlain(b: Builder, activation: Activation, u: Value, value: Value, operand: (v: Value) => Value): Value {
  const { dropped } = activation;
  const bare = (v: Value): Value => (dropped.has(v) ? bare(dropped.get(v)!) : v);
  const ops = plainOps(activation).map((op) => ({ ...op, operands: op.operands.map(bare) }));
  return apply(b, ops, activation.result, new Map([[u, value]]), operand);
}

/** The ops of φ: those of an activation that are no part of a dropout. */
export function plainOps({ ops, result, dropped }: Activation): readonly Op[] {
  const defs = new Map(ops.map((op) => [op.results[0]!, op]));
  const needed = new Set<Value>([result]);
  const plain: Op[] = [];
  for (const op of [...ops].reverse()) {
    const own = op.results[0]!;
    if (!needed.has(own)) continue;
    const through = dropped.get(own);
    if (through) {
      needed.add(through);
      continue;
    }
    plain.push(op);
    op.operands.filter((v) => defs.has(v)).forEach((v) => needed.add(v));
  }
  return plain.reverse();
}

function apply(b: Builder, ops: readonly Op[], result: Value, inner: Map<Value, Value>, operand: (v: Value) => Value): Value {
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

/** Whether an op makes affine functions of affine functions; `computed` tells values from parameters. */
function isAffine(op: Op, affine: (v: Value) => boolean, computed: (v: Value) => boolean): boolean {
  const [p, q] = op.operands as [Value, Value];
  switch (op.name) {
    case 'neg':
      return affine(p);
    case 'cast':
      return affine(p) && isFloat(op.results[0]!.type.dtype);
    case 'add':
    case 'sub':
      return op.operands.every((v) => affine(v) || !computed(v));
    case 'mul':
      return (affine(p) && !computed(q)) || (affine(q) && !computed(p));
    case 'div':
      return affine(p) && !computed(q);
    default:
      return false;
  }
}

const scalesChannels = (op: Op, parameters: ReadonlySet<Value>): boolean =>
  ['add', 'sub', 'mul', 'div'].includes(op.name) && op.operands.some((v) => parameters.has(v) && sizeOf(v.type.shape) > 1);
