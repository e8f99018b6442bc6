/** Reverse-mode differentiation of a list of ops. */
import type { Builder } from '../../ir/builder.ts';
import { invariant } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { opDef } from '../../ir/ops/index.ts';
import { isFloat } from '../../ir/type.ts';
import { controlCotangents } from './backward-control.ts';

/**
 * Adds the ops that compute cotangents of `wanted` from those of `seeds`, and returns them; a wanted value that nothing flows back to is missing. The ops come in
 * topological order and their values are in the scope of `b`. An op that is piecewise constant passes nothing back; one that cannot be differentiated is refused where something has to pass.
 */
export function backward(b: Builder, ops: readonly Op[], seeds: ReadonlyMap<Value, Value>, wanted: Iterable<Value>): Map<Value, Value> {
  const cotangents = new Map(seeds);
  const active = dependents(ops, wanted);
  const around = b.source;
  for (const op of ops.toReversed()) {
    const incoming = op.results.map((r) => (active.has(r) ? cotangents.get(r) : undefined));
    if (!op.operands.some((v) => active.has(v)) || incoming.every((g) => g === undefined)) continue;
    b.source = op.source;
    operandCotangents(b, op, incoming, active).forEach((g, i) => {
      const v = op.operands[i]!;
      if (!g || !active.has(v)) return;
      const before = cotangents.get(v);
      cotangents.set(v, before ? b.add(before, g) : g);
    });
  }
  b.source = around;
  return new Map([...wanted].flatMap((v) => (cotangents.has(v) ? [[v, cotangents.get(v)!] as const] : [])));
}

function operandCotangents(b: Builder, op: Op, incoming: readonly (Value | undefined)[], active: ReadonlySet<Value>): readonly (Value | undefined)[] {
  if (op.regions.length > 0) return controlCotangents(b, op, incoming, active);
  const { grad } = opDef(op.name);
  if (!('build' in grad)) return op.operands.map(() => undefined);
  const built = grad.build(b, op, incoming);
  invariant(built.length === op.operands.length, `the gradient of ${op.name} has ${built.length} parts for ${op.operands.length} operands`);
  return built;
}

/** Float values that depend on some of `from`, these included: what a gradient can reach. */
export function dependents(ops: readonly Op[], from: Iterable<Value>): Set<Value> {
  const reached = new Set(from);
  for (const op of ops) {
    if (op.operands.some((v) => reached.has(v))) for (const r of op.results) if (isFloat(r.type.dtype)) reached.add(r);
  }
  return reached;
}

/** The op as messages call it: the ONNX node it came from, or its own name. */
export const describe = (op: Op): string => (op.source.length > 0 ? `${op.source.join(', ')} (op ${op.name})` : `op ${op.name}`);
