import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { capturedInput, captures, firstCaptured, isControl } from '../ir/regions.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, isInteger } from '../ir/type.ts';
import { fixedCaptures, isFixed } from './fixed-values.ts';

/**
 * Moves ops out of loops whose operands do not change from trip to trip: they are computed once, and where they depend on weights alone fold-constants
 * evaluates them. Ops that make little data into much stay inside, and so do integer divisions, which a loop without trips must not meet.
 */
export const hoistInvariants = (graph: Graph, _target: Target): Graph => rewriteOps(graph, (op, b) => (op.name === 'loop' ? hoistFrom(op, b, () => true) : undefined));

/** Moves what depends on weights that no update changes out of branches and loops, where fold-constants evaluates it: weights that a norm was folded into, and packed ones. */
export function hoistWeights(graph: Graph, _target: Target): Graph {
  if (!graph.ops.some(isControl)) return graph;
  const known = fixedCaptures(graph);
  return rewriteOps(graph, (op, b, facts) => (isControl(op) ? hoistFrom(op, b, (outer) => isFixed(outer, facts, known)) : undefined));
}

/** Moves out what the regions of an op compute of captured values alone that `movable` names, of a branch whether it runs or not; what only that read is captured no more. */
function hoistFrom(control: Op, b: Builder, movable: (outer: Value) => boolean): readonly Value[] | undefined {
  const { regions } = control;
  /** What a value of a region is outside of it. */
  const outside = new Map(regions.flatMap((region) => captures(control, region).filter(({ outer }) => movable(outer)).map(({ outer, inner }) => [inner, outer] as const)));
  const constants = new Map(regions.flatMap((region) => region.ops.filter((op) => op.name === 'constant').map((op) => [op.results[0]!, op] as const)));
  const hoisted = new Map<Value, Value>();
  const rest = regions.map((region) => region.ops.filter((op) => {
    if (!isInvariant(op, (v) => outside.has(v), (v) => constants.has(v))) return true;
    const operands = op.operands.map((v) => outside.get(v) ?? b.op('constant', [], constants.get(v)!.attrs)[0]!);
    b.op(op.name, operands, op.attrs, [], op.results.map((r) => r.name)).forEach((v, i) => {
      outside.set(op.results[i]!, v);
      hoisted.set(op.results[i]!, v);
    });
    return false;
  }));
  if (hoisted.size === 0) return undefined;
  const read = new Set<Value>([...rest.flat().flatMap((op) => op.operands), ...regions.flatMap((region) => region.outputs.map((o) => o.value))]);
  const first = firstCaptured(control);
  const kept = control.operands.map((_, i) => i < first || regions.some((region) => read.has(capturedInput(region, i))));
  const captured = [...hoisted].filter(([inner]) => read.has(inner));
  const closed = regions.map((region, k): Graph => {
    const own = new Set(region.ops.flatMap((op) => op.results));
    return {
      ...region, ops: rest[k]!,
      inputs: [...region.inputs.filter((_, i) => kept[i + 1]), ...captured.map(([inner]) => (own.has(inner) ? inner : { type: inner.type, name: inner.name }))],
    };
  });
  return b.op(control.name, [...control.operands.filter((_, i) => kept[i]), ...captured.map(([, outer]) => outer)], control.attrs, closed);
}

function isInvariant(op: Op, captured: (v: Value) => boolean, constant: (v: Value) => boolean): boolean {
  if (op.regions.length > 0 || opDef(op.name).family === 'random') return false;
  if (!op.operands.some(captured) || !op.operands.every((v) => captured(v) || constant(v))) return false;
  if (['div', 'mod', 'fmod'].includes(op.name) && isInteger(op.operands[0]!.type.dtype)) return false;
  const [before, after] = [op.operands, op.results].map((values) => values.reduce((n, v) => n + bytesOf(v.type), 0));
  return after! <= before! || op.name.startsWith('pack');
}
