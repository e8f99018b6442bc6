/** Memory orders and views: which strides a value has, and when a reshape, slice or transpose needs no copy. */
import { copiesRows, geometryOf } from '../ir/ops/packing/geometry.ts';
import type { Op } from '../ir/graph.ts';
import { matchAxes, reshapeStrides } from '../ir/strides.ts';
import { rowMajor, sameShape } from '../ir/type.ts';

/** The axes of a tensor from outermost to innermost in memory. */
export type Order = readonly number[];

export const rowMajorOrder = (rank: number): Order => Array.from({ length: rank }, (_, i) => i);
/** N, spatial axes, C. */
export const channelsLastOrder = (rank: number): Order => (rank < 3 ? rowMajorOrder(rank) : [0, ...Array.from({ length: rank - 2 }, (_, i) => i + 2), 1]);

/** Dense strides of a shape in an order. */
export function denseStrides(shape: readonly number[], order: Order): number[] {
  const packed = rowMajor(order.map((axis) => shape[axis]!));
  const strides = new Array<number>(shape.length).fill(1);
  order.forEach((axis, i) => (strides[axis] = packed[i]!));
  return strides;
}

/** The order that strides follow: descending, axes of size 1 kept before their right neighbour. */
export function orderOf(shape: readonly number[], strides: readonly number[]): Order {
  const key = shape.map((d, i) => (d === 1 ? undefined : strides[i]!));
  const axes = rowMajorOrder(shape.length).filter((i) => key[i] !== undefined);
  axes.sort((a, b) => key[b]! - key[a]! || a - b);
  // Axes of size 1 fit anywhere: put each before the next larger axis number that has a place.
  const order = [...axes];
  for (let i = shape.length - 1; i >= 0; i--) {
    if (key[i] !== undefined) continue;
    const before = order.indexOf(i + 1);
    if (before >= 0) order.splice(before, 0, i);
    else order.push(i);
  }
  return order;
}

export const sameOrder = (a: Order, b: Order): boolean => a.length === b.length && a.every((x, i) => x === b[i]);

/** Whether strides walk the shape in this order without gaps (axes of size 1 are free). */
export function isDense(shape: readonly number[], strides: readonly number[], order: Order): boolean {
  const dense = denseStrides(shape, order);
  return shape.some((d) => d === 0) || shape.every((d, i) => d === 1 || strides[i] === dense[i]);
}

/** Whether two stride lists address a shape alike. */
export const sameStrides = (shape: readonly number[], a: readonly number[], b: readonly number[]): boolean => shape.every((d, i) => d <= 1 || a[i] === b[i]);

/**
 * The order for a copy of a value that a reshape can then view: axes that become one axis follow each other, and these groups keep the order in which
 * memory has them, so that channels that lie side by side still do.
 */
export function orderForReshape(from: readonly number[], strides: readonly number[], to: readonly number[]): Order {
  if (from.some((d) => d === 0)) return rowMajorOrder(from.length);
  const groups = matchAxes(from, to).map((g) => ({ axes: g.from, step: Math.min(...g.from.map((axis) => strides[axis]!)) }));
  const order = groups.sort((a, b) => b.step - a.step || a.axes[0]! - b.axes[0]!).flatMap((g) => g.axes);
  return [...rowMajorOrder(from.length).filter((axis) => from[axis] === 1), ...order];
}

/** What an op asks of an operand's strides. */
export type Demand = 'any' | 'channelsLast' | 'rows' | 'rowMajor';

/** The op whose walk decides the layout: the root of a fused contraction, else the op itself. */
export function rootOf(op: Op): Op {
  if (op.name === 'bands') return rootOf(op.regions[0]!.ops.at(-1)!);
  if (op.name === 'momentBlocks') return rootOf(op.regions[0]!.ops[0]!);
  if (op.name !== 'fused' || op.attrs['kind'] !== 'contract') return op;
  return op.regions[0]!.ops.find((o) => contractions.has(o.name)) ?? op;
}

const contractions = new Set(['contract', 'contractPacked', 'conv', 'convPacked', 'convData', 'convWeight']);

/** What an op's operand must look like. Fused contractions: the root's data operand, found through the region's inputs. */
export function demandOf(op: Op, operand: number): Demand {
  if (op.name === 'bands' || op.name === 'momentBlocks') {
    const region = op.regions[0]!;
    const demands = region.ops.flatMap((o) => o.operands.flatMap((v, i) => (v === region.inputs[operand] ? [demandOf(o, i)] : [])));
    return demands.find((d) => d !== 'any') ?? 'any';
  }
  const root = rootOf(op);
  if (root.name === 'convWeight') return (root.attrs['parts'] as number) > 0 ? 'channelsLast' : 'any';
  if (root.name === 'strassenSums') return 'rows';
  if (root.name !== 'convPacked' && root.name !== 'contractPacked') return root.name === 'packConv' || root.name === 'packMatmul' ? 'rowMajor' : 'any';
  const at = root === op ? operand : root.operands.indexOf(op.regions[0]!.inputs[operand]!);
  if (at >= 1) return 'rowMajor';
  if (root.name === 'contractPacked') return at === 0 || sameShape(op.operands[operand]!.type.shape, op.results[0]!.type.shape) ? 'rows' : 'any';
  if (at === 0) return copiesRows(geometryOf(root.attrs), root.attrs['dilations'] as readonly number[]) ? 'any' : 'channelsLast';
  const rank = op.results[0]!.type.shape.length;
  return op.operands[operand]!.type.shape.length === rank ? 'channelsLast' : 'any';
}

/** Whether placed strides meet a demand. `rows`: innermost axis contiguous, all others equally spaced as one axis of rows. */
export function meets(demand: Demand, shape: readonly number[], strides: readonly number[]): boolean {
  switch (demand) {
    case 'any':
      return true;
    case 'rowMajor':
      return isDense(shape, strides, rowMajorOrder(shape.length));
    case 'channelsLast':
      return shape.length < 2 || shape[1]! <= 1 || strides[1] === 1;
    case 'rows': {
      const rank = shape.length;
      if (rank === 0) return true;
      if (shape[rank - 1]! > 1 && strides[rank - 1] !== 1) return false;
      const lead = shape.slice(0, -1);
      return reshapeStrides(lead, strides.slice(0, -1), [lead.reduce((n, d) => n * d, 1)]) !== undefined;
    }
  }
}

/** The order that a demand is met by. */
export const orderFor = (demand: Demand, rank: number): Order => (demand === 'channelsLast' ? channelsLastOrder(rank) : rowMajorOrder(rank));
