/** Concat: operands computed in place need nothing; the others are copied into their part. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import type { Step } from '../../ir/tile.ts';
import { bytesOf, sizeOf, type TensorType } from '../../ir/type.ts';
import { orderOf, rowMajorOrder, sameStrides, type Order } from '../layout.ts';
import { copyOp } from './copies.ts';
import type { Planning, Spot } from './planning.ts';

/** Notes who reads what, and which concat operands are computed in place; regions included. */
export function noteGraph(p: Planning, graph: Graph): void {
  for (const o of [...graph.outputs, ...graph.updates]) p.outputs.add(o.value);
  for (const op of graph.ops) {
    for (const v of op.operands) {
      const list = p.readers.get(v);
      if (list) list.push(op);
      else p.readers.set(v, [op]);
    }
  }
  const defs = new Map(graph.ops.flatMap((op) => op.results.map((r) => [r, op] as const)));
  for (const op of graph.ops) {
    if (op.name !== 'concat') continue;
    let offset = 0;
    for (const v of op.operands) {
      const def = defs.get(v);
      if (def && makesOwnMemory(def) && !p.outputs.has(v) && !p.parts.has(v) && sizeOf(v.type.shape) > 0) p.parts.set(v, { concat: op, offset });
      offset += v.type.shape[num(op.attrs, 'axis')]!;
    }
  }
  for (const op of graph.ops) if (op.name === 'concat') noteContainer(p, op);
  for (const op of graph.ops) if (op.name === 'if' || op.name === 'loop') for (const r of op.regions) noteGraph(p, r);
}

/** Plans the copies of operands that were not computed in place. */
export function planConcat(p: Planning, op: Op, steps: Step[]): void {
  const axis = num(op.attrs, 'axis');
  const rank = op.results[0]!.type.shape.length;
  const lead = [...op.operands].sort((a, b) => bytesOf(b.type) - bytesOf(a.type))[0]!;
  const order = orderOf(lead.type.shape, p.spot(lead).strides);
  let offset = 0;
  for (const v of op.operands) {
    const spot = sizeOf(v.type.shape) > 0 ? partSpot(p, op, offset, v.type, order.length === rank ? order : rowMajorOrder(rank)) : undefined;
    if (spot && !liesAt(p, v, spot)) {
      const made: Value = { type: v.type, name: undefined };
      p.spots.set(made, spot);
      p.emit({ ...copyOp(v, made), source: op.source }, steps);
    }
    offset += v.type.shape[axis]!;
  }
  if (!p.spots.has(op.results[0]!)) p.spots.set(op.results[0]!, p.newSpot('temp', op.results[0]!.type, rowMajorOrder(rank)));
  p.touch(op.results[0]!);
  p.done.add(op);
}

/** The place of a concat operand inside the result, which gets memory in this order if it has none yet. */
export function partSpot(p: Planning, concat: Op, offset: number, type: TensorType, order: Order): Spot {
  const whole = concat.results[0]!;
  let spot = p.spots.get(whole);
  if (!spot) {
    const part = p.parts.get(whole);
    spot = part ? partSpot(p, part.concat, part.offset, whole.type, order) : p.newSpot('temp', whole.type, order);
    p.spots.set(whole, spot);
  }
  spot.root.from = Math.min(spot.root.from, p.position);
  invariant(type.shape.length === whole.type.shape.length, 'plan: concat operand of another rank');
  return { root: spot.root, offset: spot.offset + offset * spot.strides[num(concat.attrs, 'axis')]!, strides: spot.strides };
}

/** Whether a value lies at this place already. */
export function liesAt(p: Planning, v: Value, spot: Spot): boolean {
  const own = p.spot(v);
  return own.root === spot.root && own.offset === spot.offset && sameStrides(v.type.shape, own.strides, spot.strides);
}

/** A concat whose operands follow each other in a longer one is a part of that: chains that concatenate all results so far grow in one buffer. */
function noteContainer(p: Planning, op: Op): void {
  const [whole] = op.results;
  const [first] = op.operands;
  if (!whole || !first || p.outputs.has(whole) || p.parts.has(whole) || sizeOf(whole.type.shape) === 0) return;
  const axis = num(op.attrs, 'axis');
  for (const other of p.readers.get(first) ?? []) {
    if (other.name !== 'concat' || num(other.attrs, 'axis') !== axis || other.operands.length <= op.operands.length) continue;
    const at = other.operands.findIndex((_, i) => op.operands.every((v, k) => other.operands[i + k] === v));
    if (at < 0) continue;
    const offset = other.operands.slice(0, at).reduce((n, v) => n + v.type.shape[axis]!, 0);
    p.parts.set(whole, { concat: other, offset });
    return;
  }
}

/** Whether an op writes its results into memory of its own (not a view, a constant or a region's results). */
const makesOwnMemory = (op: Op): boolean => !['constant', 'reshape', 'transpose', 'slice', 'if', 'loop'].includes(op.name);
