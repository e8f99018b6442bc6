/** Branches and loops: their regions work in the memory of the graph around them. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import type { Step } from '../../ir/tile.ts';
import { rowMajorOrder } from '../layout.ts';
import { assign, copyInto, dense } from './copies.ts';
import type { Planning } from './planning.ts';
import { planRegion } from './steps.ts';

/** Plans both branches; each ends with copies into the results. */
export function planIf(p: Planning, op: Op, steps: Step[]): void {
  const [condition, ...captured] = op.operands;
  for (const r of op.results) p.spots.set(r, p.newSpot('temp', r.type, rowMajorOrder(r.type.shape.length)));
  const start = p.position++;
  const branch = (region: Graph): Step[] => {
    bindRegion(p, region, captured);
    const inner = planRegion(p, region, false);
    region.outputs.forEach((o, i) => copyInto(p, o.value, op.results[i]!, inner));
    return inner;
  };
  const then = branch(op.regions[0]!);
  const otherwise = branch(op.regions[1]!);
  for (const v of op.operands) p.touch(v);
  for (const r of op.results) p.spot(r).root.from = Math.min(p.spot(r).root.from, start);
  p.position++;
  p.done.add(op);
  steps.push({ kind: 'if', op, condition: condition!, then, otherwise });
}

/** Plans the body once; carried values have memory of their own that every round ends by writing. */
export function planLoop(p: Planning, op: Op, steps: Step[]): void {
  const [limit, startFlag, ...rest] = op.operands;
  const region = op.regions[0]!;
  const carriedCount = num(op.attrs, 'carried');
  const inits = rest.slice(0, carriedCount);
  const captured = rest.slice(carriedCount);
  const [index, ...inputs] = region.inputs;
  const carried = inputs.slice(0, carriedCount);
  const proceed: Value = { type: startFlag!.type, name: undefined };
  const start = p.position;
  for (const v of [proceed, index!, ...carried]) {
    const spot = p.newSpot('temp', v.type, rowMajorOrder(v.type.shape.length));
    p.spots.set(v, spot);
    p.keptAlive.add(spot.root);
  }
  copyInto(p, startFlag!, proceed, steps);
  inits.forEach((v, i) => copyInto(p, v, carried[i]!, steps));
  const scans = op.results.slice(carriedCount);
  for (const r of scans) p.spots.set(r, p.newSpot('temp', r.type, rowMajorOrder(r.type.shape.length)));
  bindRegion(p, { ...region, inputs: inputs.slice(carriedCount) }, captured);
  const before = new Set(p.roots);
  const body = planRegion(p, region, false);
  const [goOn, ...outs] = region.outputs.map((o) => o.value);
  outs.slice(carriedCount).forEach((v, i) => {
    const row = dense(p, v, body);
    p.touch(row);
    p.touch(scans[i]!);
    body.push({ kind: 'move', from: [row], to: [{ stack: scans[i]!, index: index! }], op });
    p.position++;
  });
  assign(p, [goOn!, ...outs.slice(0, carriedCount)], [proceed, ...carried], body);
  const end = p.position++;
  // What was made before the body and is read in it is read again in the next round.
  for (const root of before) if (root.to >= start) root.to = Math.max(root.to, end);
  for (const v of op.operands) p.touch(v);
  op.results.slice(0, carriedCount).forEach((r, i) => p.spots.set(r, p.spot(carried[i]!)));
  for (const v of op.results) p.touch(v);
  p.done.add(op);
  steps.push({ kind: 'loop', op, index: index!, limit: limit!, proceed, body });
}

function bindRegion(p: Planning, region: Graph, values: readonly Value[]): void {
  region.inputs.forEach((input, i) => {
    const spot = p.spot(values[i]!);
    p.spots.set(input, spot);
    p.keptAlive.add(spot.root);
  });
}
