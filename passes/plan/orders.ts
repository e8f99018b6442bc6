/** In which order of its axes a result is laid out. */
import { isElementwise, isRowReduction } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Step } from '../../ir/tile.ts';
import { opDef } from '../../ir/ops/index.ts';
import { bytesOf, sameShape, sizeOf, type TensorType } from '../../ir/type.ts';
import { channelsLastOrder, denseStrides, orderOf, rootOf, rowMajorOrder, sameOrder, type Order } from '../layout.ts';
import { copied } from './copies.ts';
import type { Copies, Planning } from './planning.ts';

/** Families whose emitters follow any layout of the main operand, so that the result takes it over. */
const followers = new Set(['maxPool', 'sumPool', 'maxPoolGrad', 'sumPoolGrad', 'resample', 'pad', 'cumSum', 'cumProd', 'copy']);
const reductions = new Set(['reduceSum', 'reduceProd', 'reduceMax', 'reduceMin', 'moments', 'argMax', 'argMin']);

/** The order of the axes of an op's results, outermost first; undefined where nothing prefers one. */
export function resultOrder(p: Planning, op: Op, operands: readonly Value[]): Order | undefined {
  const result = op.results[0]!;
  const rank = result.type.shape.length;
  if ((isElementwise(op) || (isOverRows(op) && op.results.length === 1)) && op.results.some((r) => p.updates.has(r))) return rowMajorOrder(rank);
  const root = rootOf(op);
  if (root.name === 'convPacked') return channelsLastOrder(rank);
  if (root.name === 'contract') return wanted(p, result) ?? rowMajorOrder(rank);
  if (reductions.has(root.name) || kindOf(op) === 'reduce') return reducedOrder(p, op, operands);
  if (op.name === 'slabs') {
    const largest = [...operands].sort((a, b) => bytesOf(b.type) - bytesOf(a.type))[0]!;
    return orderOf(largest.type.shape, p.spot(largest).strides);
  }
  if (isElementwise(op) || kindOf(op) === 'row' || followers.has(op.name)) {
    const full = operands.filter((v) => v.type.shape.length === rank && sizeOf(v.type.shape) > 1);
    const sized = full.filter((v) => sameShape(v.type.shape, result.type.shape));
    const main = [...(sized.length > 0 ? sized : full)].sort((a, b) => bytesOf(b.type) - bytesOf(a.type));
    const order = (v: Value): Order => orderOf(v.type.shape, p.spot(v).strides);
    const special = main.find((v) => bytesOf(v.type) === bytesOf(main[0]!.type) && !sameOrder(order(v), rowMajorOrder(rank)));
    const lead = special ?? main[0];
    return lead ? order(lead) : (wanted(p, result) ?? rowMajorOrder(rank));
  }
  return rowMajorOrder(rank);
}

/** For elementwise ops: an operand of the full shape in another order is copied into the result's order if it is large enough to matter. */
export function aligned(p: Planning, v: Value, result: TensorType, order: Order, steps: Step[], copies: Copies): Value {
  if (v.type.shape.length !== order.length || sizeOf(v.type.shape) < 1024 || !sameShape(v.type.shape, result.shape)) return v;
  const spot = p.spot(v);
  return sameOrder(orderOf(v.type.shape, spot.strides), orderOf(v.type.shape, denseStrides(v.type.shape, order))) ? v : copied(p, v, order, steps, copies);
}

/** Fused reductions over rows, with what is computed of each row before and after them. */
export function isOverRows(op: Op): boolean {
  const kind = kindOf(op);
  return kind === 'row' || (kind === 'reduce' && op.regions[0]!.ops.every((o) => isRowReduction(o) || o.name === 'constant' || o.name === 'reshape' || opDef(o.name).family === 'map'));
}

/** A reduction's result keeps its operand's order of the axes that survive. */
function reducedOrder(p: Planning, op: Op, operands: readonly Value[]): Order {
  const rank = op.results[0]!.type.shape.length;
  const inner = kindOf(op) === 'reduce' ? op.regions[0]!.ops.find((o) => reductions.has(o.name) || followers.has(o.name)) : op;
  const main = operands.find((v) => v.type.shape.length === (inner?.operands[0]?.type.shape.length ?? -1)) ?? operands[0]!;
  const order = orderOf(main.type.shape, p.spot(main).strides);
  if (!inner) return rowMajorOrder(rank);
  if (followers.has(inner.name)) return order;
  const gone = new Set((inner.attrs['axes'] as readonly number[] | undefined) ?? [inner.attrs['axis'] as number]);
  const kept = order.filter((a) => !gone.has(a));
  const names = [...kept].sort((a, b) => a - b);
  const reduced = kept.map((a) => names.indexOf(a));
  return reduced.length === rank ? reduced : rowMajorOrder(rank);
}

/** The order in which a sole reader that transposes, or reshapes after a transpose, would find the value laid out row by row. */
function wanted(p: Planning, v: Value): Order | undefined {
  const readers = p.readers.get(v) ?? [];
  const [reader] = readers;
  if (readers.length !== 1 || reader?.name !== 'transpose') return undefined;
  return reader.attrs['perm'] as readonly number[];
}

const kindOf = (op: Op): string | undefined => (op.name === 'fused' ? (op.attrs['kind'] as string) : undefined);
