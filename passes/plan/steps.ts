/** From the ops of a graph or region to steps. */
import { isElementwise } from '../../ir/fused.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import type { Step } from '../../ir/tile.ts';
import type { Tensor } from '../../ir/type.ts';
import { channelsLastOrder, demandOf, meets, orderFor, orderOf, rowMajorOrder, sameOrder, type Order } from '../layout.ts';
import { planConcat } from './concat.ts';
import { planIf, planLoop } from './control-flow.ts';
import { copied } from './copies.ts';
import { aligned, resultOrder } from './orders.ts';
import type { Copies, Planning } from './planning.ts';
import { placeResult } from './results.ts';
import { planView } from './views.ts';

/** Plans the ops of the graph (`top`: its outputs may be computed straight into output buffers) or of a region. */
export function planRegion(p: Planning, graph: Graph, top: boolean): Step[] {
  const steps: Step[] = [];
  const copies: Copies = new Map();
  for (const op of graph.ops) planOp(p, op, steps, copies, top);
  return steps;
}

function planOp(p: Planning, op: Op, steps: Step[], copies: Copies, top: boolean): void {
  switch (op.name) {
    case 'constant': {
      const v = op.results[0]!;
      if (!p.isUsed(v)) return;
      const spot = p.newSpot('constant', v.type, rowMajorOrder(v.type.shape.length));
      p.spots.set(v, spot);
      p.content(v, v.name ?? `constant.${spot.root.id}`, op.attrs['value'] as Tensor);
      return;
    }
    case 'reshape':
    case 'transpose':
    case 'slice':
      if (planView(p, op, steps, copies)) return;
      break;
    case 'concat':
      planConcat(p, op, steps);
      return;
    case 'if':
      planIf(p, op, steps);
      return;
    case 'loop':
      planLoop(p, op, steps);
      return;
  }
  planKernel(p, op, steps, copies, top);
}

function planKernel(p: Planning, op: Op, steps: Step[], copies: Copies, top: boolean): void {
  const operands = op.operands.map((v, i) => {
    const demand = p.demands ? demandOf(op, i) : 'any';
    return meets(demand, v.type.shape, p.spot(v).strides) ? v : copied(p, v, orderFor(demand, v.type.shape.length), steps, copies);
  });
  if (op.name === 'maxPoolGrad') {
    // Cotangents walk with the positions that choose among them.
    const [dy, positions] = operands as [Value, Value];
    const kept = orderOf(positions.type.shape, p.spot(positions).strides);
    if (!sameOrder(orderOf(dy.type.shape, p.spot(dy).strides), kept)) operands[0] = copied(p, dy, kept, steps, copies);
  }
  const order = resultOrder(p, op, operands);
  const follow = order && isElementwise(op) ? operands.map((v) => aligned(p, v, op.results[0]!.type, order, steps, copies)) : operands;
  // Results that nobody reads are dropped from the end (a pool's positions).
  let kept = op.results.length;
  while (kept > 1 && !p.isUsed(op.results[kept - 1]!)) kept--;
  const results = op.results.slice(0, kept);
  const orderOfResult = ({ type: { shape } }: Value): Order => (op.name === 'momentBlocks' ? channelsLastOrder(shape.length) : order && shape.length === order.length ? order : rowMajorOrder(shape.length));
  for (const r of results) placeResult(p, r, orderOfResult(r), op, follow, top);
  p.emit({ ...op, operands: follow, results }, steps);
  p.done.add(op);
}
