/** What the regions of `if` and `loop` capture, and a form of graphs in which they need not. */
import type { Graph, Op, Value } from './graph.ts';
import { num } from './op.ts';

/** Whether an op is control flow, whose regions capture values. */
export const isControl = (op: Op): boolean => op.name === 'if' || op.name === 'loop';

/** How many operands come before the captured ones: the condition; or limit, start and what is carried. */
export const firstCaptured = (op: Op): number => (op.name === 'if' ? 1 : 2 + num(op.attrs, 'carried'));

/** The region input that stands for a captured operand. */
export const capturedInput = (region: Graph, operand: number): Value => region.inputs[operand - 1]!;

/** The captured operands of a region's op, outside and inside: the same value in every run of the region. */
export function captures(op: Op, region: Graph): { readonly outer: Value; readonly inner: Value }[] {
  const first = firstCaptured(op);
  return op.operands.slice(first).map((outer, i) => ({ outer, inner: capturedInput(region, first + i) }));
}

/**
 * The same graph with regions of control flow that read values of the graphs around them as they are, not through captured operands. It is for within a pass that looks at and changes ops
 * wherever they stand: a value is one object in all regions. `closeRegions` ends it. A graph that is open already, or has no control flow, comes back as it is.
 */
export function openRegions(graph: Graph): Graph {
  const outside = new Map<Value, Value>();
  const at = (v: Value): Value => outside.get(v) ?? v;
  return open(graph);

  function open(g: Graph): Graph {
    const ops = g.ops.map((op) => {
      const operands = op.operands.map(at);
      if (!isControl(op)) return operands.every((v, i) => v === op.operands[i]) ? op : { ...op, operands };
      const first = firstCaptured(op);
      const regions = op.regions.map((region) => {
        captures({ ...op, operands }, region).forEach(({ outer, inner }) => outside.set(inner, outer));
        const inside = open(region);
        return operands.length === first ? inside : { ...inside, inputs: region.inputs.slice(0, first - 1) };
      });
      const same = operands.length === first && operands.every((v, i) => v === op.operands[i]) && regions.every((r, i) => r === op.regions[i]);
      return same ? op : { ...op, operands: operands.slice(0, first), regions };
    });
    const outputs = g.outputs.map((o) => ({ name: o.name, value: at(o.value) }));
    const same = ops.every((op, i) => op === g.ops[i]) && outputs.every((o, i) => o.value === g.outputs[i]!.value);
    return same ? g : { ...g, ops, outputs };
  }
}

/** Captures what regions of an open graph read from outside, each value once, the same list for all regions of an op. */
export function closeRegions(graph: Graph): Graph {
  if (!graph.ops.some(isControl)) return graph;
  return { ...graph, ops: graph.ops.map((op) => (isControl(op) ? closed({ ...op, regions: op.regions.map(closeRegions) }) : op)) };
}

function closed(op: Op): Op {
  const captured = readOutside(op);
  const regions = op.regions.map((region): Graph => {
    const inner = new Map(captured.map((v) => [v, { type: v.type, name: v.name }]));
    const at = (v: Value): Value => inner.get(v) ?? v;
    return {
      ...region,
      inputs: [...region.inputs, ...inner.values()],
      ops: region.ops.map((o) => (o.operands.some((v) => inner.has(v)) ? { ...o, operands: o.operands.map(at) } : o)),
      outputs: region.outputs.map((o) => ({ name: o.name, value: at(o.value) })),
    };
  });
  return { ...op, operands: [...op.operands, ...captured], regions };
}

/** What the regions of an op read that is made outside of them, in order; nothing where they capture it. */
function readOutside(op: Op): Value[] {
  const made = new Set<Value>();
  const read = new Set<Value>();
  const walk = (region: Graph): void => {
    region.inputs.forEach((v) => made.add(v));
    for (const o of region.ops) {
      o.operands.forEach((v) => read.add(v));
      o.regions.forEach(walk);
      o.results.forEach((v) => made.add(v));
    }
    region.outputs.forEach((o) => read.add(o.value));
  };
  op.regions.forEach(walk);
  return [...read].filter((v) => !made.has(v));
}

/** The ops of a graph that read each value, in regions of their own included. */
export function readers(graph: Graph): Map<Value, Op[]> {
  const map = new Map<Value, Op[]>();
  for (const op of graph.ops) for (const v of [...op.operands, ...readOutside(op)]) map.set(v, [...(map.get(v) ?? []), op]);
  return map;
}

/** An op, and the control flow in whose regions it stands, outermost first. */
export interface Placed {
  readonly op: Op;
  readonly within: readonly Op[];
}

/** All ops of a graph and of the regions of its control flow: what a region holds before the op that holds the region. */
export function placedOps(graph: Graph, within: readonly Op[] = []): Placed[] {
  return graph.ops.flatMap((op) => [...(isControl(op) ? op.regions.flatMap((region) => placedOps(region, [...within, op])) : []), { op, within }]);
}
