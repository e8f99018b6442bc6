/** Copies: into another order, into a given place, and several at once. */
import type { Op, Value } from '../../ir/graph.ts';
import type { Step } from '../../ir/tile.ts';
import { isDense, rowMajorOrder, type Order } from '../layout.ts';
import { liesAt } from './concat.ts';
import type { Copies, Planning } from './planning.ts';

/** The value in another order; one copy serves all readers of a region. */
export function copied(p: Planning, v: Value, order: Order, steps: Step[], copies: Copies): Value {
  const key = order.join();
  const known = copies.get(v)?.get(key);
  if (known) return known;
  const made: Value = { type: v.type, name: v.name === undefined ? undefined : `${v.name}.${key.replaceAll(',', '')}` };
  p.spots.set(made, p.newSpot('temp', v.type, order));
  p.emit(copyOp(v, made), steps);
  p.keptAlive.add(p.spot(made).root);
  const map = copies.get(v) ?? new Map<string, Value>();
  map.set(key, made);
  copies.set(v, map);
  return made;
}

/** The value itself where its memory is row-major, else a copy that is. */
export function dense(p: Planning, v: Value, steps: Step[]): Value {
  if (isDense(v.type.shape, p.spot(v).strides, rowMajorOrder(v.type.shape.length))) return v;
  return copied(p, v, rowMajorOrder(v.type.shape.length), steps, new Map());
}

/** Emits a copy of a value into the memory of another of its type. */
export function copyInto(p: Planning, from: Value, to: Value, steps: Step[]): void {
  p.emit(copyOp(from, to), steps);
}

/** Copies all at once: a source in the memory of any target is saved before the first is written, unless it lies where it goes. */
export function assign(p: Planning, from: readonly Value[], to: readonly Value[], steps: Step[]): void {
  const written = new Set(to.map((v) => p.spot(v).root));
  const sources = from.map((v, i) => {
    if (!written.has(p.spot(v).root) || liesAt(p, v, p.spot(to[i]!))) return v;
    const saved: Value = { type: v.type, name: undefined };
    p.spots.set(saved, p.newSpot('temp', v.type, rowMajorOrder(v.type.shape.length)));
    copyInto(p, v, saved, steps);
    return saved;
  });
  sources.forEach((v, i) => {
    if (!liesAt(p, v, p.spot(to[i]!))) copyInto(p, v, to[i]!, steps);
  });
}

/** A step that copies one value into another's memory. */
export function copyOp(from: Value, to: Value): Op {
  return { name: 'copy', operands: [from], attrs: {}, results: [to], regions: [], source: [] };
}
