/** Makes one `fused` op of a cluster. */
import type { Attrs, Graph, Op, Value } from '../../ir/graph.ts';
import { isMap, type FusedKind } from '../../ir/fused.ts';
import { broadcastShapes, sameShape, type Tensor } from '../../ir/type.ts';
import { uniform } from '../rules/pattern.ts';

/**
 * A `fused` op with the given results, whose region holds the ops. Constants of one number are put into the region, where emitters can embed them; all
 * other values from outside become operands.
 */
export function fusedOp(kind: FusedKind, ops: readonly Op[], results: readonly Value[], constant: (v: Value) => Tensor | undefined): Op {
  const inner = new Map<Value, Value>();
  const operands: Value[] = [];
  const inputs: Value[] = [];
  const body: Op[] = [];
  const defined = new Set(ops.flatMap((op) => op.results));
  const embedded = new Map<string, Value>();

  const embed = (t: Tensor): Value => {
    const key = `${t.dtype}[${t.shape.join(',')}] ${String(t.data[0])} ${Object.is(t.data[0], -0)}`;
    let value = embedded.get(key);
    if (!value) {
      value = { type: { dtype: t.dtype, shape: t.shape }, name: undefined };
      embedded.set(key, value);
      body.push({ name: 'constant', operands: [], attrs: { value: t }, results: [value], regions: [], source: [] });
    }
    return value;
  };
  const read = (op: Op, at: number): Value => {
    const v = op.operands[at]!;
    const number = isMap(op) && !defined.has(v) ? oneNumber(op, at, constant(v)) : undefined;
    if (number) return embed(number);
    let value = inner.get(v);
    if (!value) {
      value = { type: v.type, name: v.name };
      inner.set(v, value);
      operands.push(v);
      inputs.push(value);
    }
    return value;
  };

  const rebuilt = ops.map((op): Op => {
    const operandValues = op.operands.map((_, i) => read(op, i));
    const own = op.results.map((r): Value => ({ type: r.type, name: r.name }));
    op.results.forEach((r, i) => inner.set(r, own[i]!));
    return { ...op, operands: operandValues, results: own };
  });
  const region = { name: '', inputs, state: [], ops: [...body, ...rebuilt], outputs: results.map((r) => ({ name: '', value: inner.get(r)! })), updates: [] };
  return { name: 'fused', operands, attrs: { kind }, results, regions: [region], source: [...new Set(ops.flatMap((op) => op.source))] };
}

/** An op whose region holds some ops as they are, with the values that they read from outside as its operands. */
export function enclosed(name: string, attrs: Attrs, ops: readonly Op[], results: readonly Value[]): Op {
  const inner = new Map<Value, Value>();
  const own = (v: Value): Value => {
    const value = inner.get(v) ?? { type: v.type, name: v.name };
    inner.set(v, value);
    return value;
  };
  const made = new Set(ops.flatMap((op) => op.results));
  const operands = [...new Set(ops.flatMap((op) => op.operands))].filter((v) => !made.has(v));
  const body = ops.map((op): Op => ({ ...op, operands: op.operands.map(own), results: op.results.map(own) }));
  const region: Graph = { name: '', inputs: operands.map(own), state: [], ops: body, outputs: results.map((r) => ({ name: '', value: own(r) })), updates: [] };
  return { name, operands, attrs, results, regions: [region], source: [...new Set(ops.flatMap((op) => op.source))] };
}

/** The scalar that stands for an operand whose elements are all one number, unless the op takes its shape from it. */
export function oneNumber(op: Op, at: number, t: Tensor | undefined): Tensor | undefined {
  if (!t || uniform(t) === undefined) return undefined;
  const others = broadcastShapes(op.operands.flatMap((v, i) => (i === at ? [] : [v.type.shape])));
  const shape = op.operands.length > 1 && others && sameShape(others, op.results[0]!.type.shape) ? [] : t.shape;
  return shape.length > 0 && t.data.length > 1 ? undefined : { dtype: t.dtype, shape, data: t.data.slice(0, 1) };
}
