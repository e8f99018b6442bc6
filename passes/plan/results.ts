/** Where a result lies: inside a concat, in an output, over the old value of state, over an operand that dies, or in memory of its own. */
import { isElementwise, isRowReduction } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { mayReplace as slabMayReplace } from '../../ir/slabs.ts';
import { dtypes, sameShape } from '../../ir/type.ts';
import { denseStrides, isDense, rowMajorOrder, sameOrder, sameStrides, type Order } from '../layout.ts';
import { partSpot } from './concat.ts';
import { isOverRows } from './orders.ts';
import type { Planning } from './planning.ts';

/** Gives one result of an op its place. `top`: the op is not inside a region, so it may compute straight into outputs and state. */
export function placeResult(p: Planning, r: Value, order: Order, op: Op, operands: readonly Value[], top: boolean): void {
  const part = p.parts.get(r);
  if (part) {
    p.spots.set(r, partSpot(p, part.concat, part.offset, r.type, order));
    return;
  }
  if (top && sameOrder(order, rowMajorOrder(order.length)) && p.graph.outputs.some((o) => o.value === r)) {
    p.spots.set(r, p.newSpot('output', r.type, order));
    return;
  }
  const state = top && sameOrder(order, rowMajorOrder(order.length)) ? p.updates.get(r) : undefined;
  if (state && mayReplace(p, state, r, op, operands)) {
    p.spots.set(r, { root: p.spot(state).root, offset: 0, strides: denseStrides(r.type.shape, order) });
    return;
  }
  const strides = denseStrides(r.type.shape, order);
  const replaceable = (v: Value): boolean => isElementwise(op) || (op.name === 'slabs' && slabMayReplace(op, op.results.indexOf(r), operands.indexOf(v)));
  const reused = operands.find((v) => replaceable(v) && diesHere(p, v, op) && canOverwrite(p, v, r, strides));
  p.spots.set(r, reused && !op.results.some((x) => x !== r && p.spots.get(x)?.root === p.spot(reused).root) ? p.spot(reused) : { root: p.newRoot('temp', p.bytesOf(r.type)), offset: 0, strides });
}

/** Whether the new value of state may be written over the old one: nothing reads that later, and `op` reads it where it writes, if at all. */
function mayReplace(p: Planning, state: Value, r: Value, op: Op, operands: readonly Value[]): boolean {
  const { root } = p.spot(state);
  if (p.keptAlive.has(root) || p.outputs.has(state)) return false;
  for (const [other, spot] of p.spots) {
    if (spot.root === root && (p.outputs.has(other) || (p.readers.get(other) ?? []).some((r) => r !== op && !p.done.has(r)))) return false;
  }
  const reads = operands.filter((v) => p.spot(v).root === root);
  return reads.every((v) => sameShape(v.type.shape, r.type.shape) && isDense(v.type.shape, p.spot(v).strides, rowMajorOrder(v.type.shape.length)) && readsWhereItWrites(op, operands.indexOf(v)));
}

/** Whether an op reads an operand of its one result's shape at no element but the one that it writes next: elementwise ops, the last part of reductions over rows. */
function readsWhereItWrites(op: Op, operand: number): boolean {
  if (isElementwise(op)) return true;
  const [region] = op.regions;
  const [result] = op.results;
  const state = region?.inputs[operand];
  if (!region || !state || op.results.length > 1 || !isOverRows(op) || !sameShape(state.type.shape, result!.type.shape)) return false;
  const reductions = region.ops.filter(isRowReduction);
  if (reductions.every((r) => sameShape(r.operands[0]!.type.shape, result!.type.shape))) return true;
  // The result is what rows were reduced to: a row reads at other elements than its own.
  const inRows = new Set(reductions.map((r) => r.operands[0]!));
  for (const inner of region.ops.toReversed()) if (inner.results.some((r) => inRows.has(r))) inner.operands.forEach((v) => inRows.add(v));
  return !inRows.has(state);
}

/** Whether an elementwise result may take the memory of an operand: same walk, same width, the whole buffer, nothing else in it. */
function canOverwrite(p: Planning, v: Value, r: Value, strides: readonly number[]): boolean {
  const spot = p.spot(v);
  return (
    (spot.root.kind === 'temp' || (p.sharedIo && spot.root.kind === 'input')) && spot.offset === 0 && sameShape(v.type.shape, r.type.shape) && dtypes[v.type.dtype].bytes === dtypes[r.type.dtype].bytes && p.widthOf(v.type.dtype) === p.widthOf(r.type.dtype) &&
    spot.root.bytes === p.bytesOf(r.type) && sameStrides(v.type.shape, spot.strides, strides)
  );
}

/** True if no later step reads anything in v's root: v is a kernel's own result, read by `op` alone, with no views and not kept for the end. */
function diesHere(p: Planning, v: Value, op: Op): boolean {
  const root = p.spot(v).root;
  if (p.keptAlive.has(root)) return false;
  for (const [other, spot] of p.spots) if (spot.root === root && other !== v && readsAhead(p, other)) return false;
  return !p.outputs.has(v) && (p.readers.get(v) ?? []).every((reader) => reader === op || p.done.has(reader));
}

function readsAhead(p: Planning, v: Value): boolean {
  return p.outputs.has(v) || (p.readers.get(v) ?? []).some((r) => !p.done.has(r));
}
