/** Which ops are computed in parts together: those that a cut of one value spreads to. */
import { definitions, uses, type Graph, type Op, type Value } from '../../../ir/graph.ts';
import { cutByOperand, cutByResult, type OpCut } from './cut.ts';

/** Ops that are cut, each with its way. */
export interface Region { readonly parts: number; readonly cuts: ReadonlyMap<Op, OpCut> }

/** Where a region begins: an axis of a value, in so many parts. */
export interface Seed { readonly value: Value; readonly axis: number; readonly parts: number }

/**
 * The region that grows from a value: ops that make it or read it, and all that they pass the cut on to. Sums over what is cut end it, as do ops that cannot be cut. Only ops at positions
 * `from` to `to` belong to it.
 */
export function regionOf(graph: Graph, { value, axis, parts }: Seed, from = 0, to = graph.ops.length - 1): Region {
  const place = new Map(graph.ops.map((op, i) => [op, i]));
  const within = (op: Op): boolean => place.get(op)! >= from && place.get(op)! <= to && op.name !== 'constant';
  const defs = definitions(graph);
  const readers = uses(graph);
  const inputs = new Set(graph.inputs);
  const cuts = new Map<Op, OpCut>();
  const axes = new Map<Value, number>([[value, axis]]);
  const waiting = [value];
  const spread = (v: Value, at: number): void => {
    // The parts of a constant are made without a reader, and say nothing of its other readers.
    const def = defs.get(v);
    if (axes.has(v) || (def ? def.name === 'constant' : !inputs.has(v))) return;
    axes.set(v, at);
    waiting.push(v);
  };
  const take = (op: Op, cut: OpCut | undefined): void => {
    if (!cut || cuts.has(op)) return;
    cuts.set(op, cut);
    op.operands.forEach((v, k) => cut.operands[k] !== undefined && spread(v, cut.operands[k]));
    if (cut.result !== undefined) op.results.forEach((r) => spread(r, cut.result!));
  };
  for (let v = waiting.shift(); v; v = waiting.shift()) {
    const at = axes.get(v)!;
    const def = defs.get(v);
    if (def && within(def)) take(def, cutByResult(def, at, parts));
    for (const op of readers.get(v) ?? []) if (within(op)) take(op, cutByOperand(op, op.operands.indexOf(v), at, parts));
  }
  return { parts, cuts };
}
