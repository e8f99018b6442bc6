import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { opDef } from '../ir/ops/index.ts';
import { captures } from '../ir/regions.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { bytesOf, isInteger } from '../ir/type.ts';

/**
 * Moves ops out of loops whose operands do not change from trip to trip: they are computed once, and where they depend on weights alone fold-constants
 * evaluates them. Ops that make little data into much stay inside, and so do integer divisions, which a loop without trips must not meet.
 */
export const hoistInvariants = (graph: Graph, _target: Target): Graph => rewriteOps(graph, (op, b) => (op.name === 'loop' ? hoistFrom(op, b) : undefined));

function hoistFrom(loop: Op, b: Builder): readonly Value[] | undefined {
  const body = loop.regions[0]!;
  /** What a value of the body is outside the loop. */
  const outside = new Map(captures(loop, body).map(({ outer, inner }) => [inner, outer]));
  const constants = new Map<Value, Op>();
  const hoisted = new Map<Value, Value>();
  const rest: Op[] = [];
  for (const op of body.ops) {
    if (op.name === 'constant') constants.set(op.results[0]!, op);
    if (!isInvariant(op, (v) => outside.has(v), (v) => constants.has(v))) {
      rest.push(op);
      continue;
    }
    const operands = op.operands.map((v) => outside.get(v) ?? b.op('constant', [], constants.get(v)!.attrs)[0]!);
    b.op(op.name, operands, op.attrs, [], op.results.map((r) => r.name)).forEach((v, i) => {
      outside.set(op.results[i]!, v);
      hoisted.set(op.results[i]!, v);
    });
  }
  if (hoisted.size === 0) return undefined;
  const read = new Set<Value>([...rest.flatMap((op) => op.operands), ...body.outputs.map((o) => o.value)]);
  const captured = [...hoisted].filter(([inner]) => read.has(inner));
  const region: Graph = { ...body, inputs: [...body.inputs, ...captured.map(([inner]) => inner)], ops: rest };
  return b.op('loop', [...loop.operands, ...captured.map(([, outer]) => outer)], loop.attrs, [region]);
}

function isInvariant(op: Op, captured: (v: Value) => boolean, constant: (v: Value) => boolean): boolean {
  if (op.regions.length > 0 || opDef(op.name).family === 'random') return false;
  if (!op.operands.some(captured) || !op.operands.every((v) => captured(v) || constant(v))) return false;
  if (['div', 'mod', 'fmod'].includes(op.name) && isInteger(op.operands[0]!.type.dtype)) return false;
  const [before, after] = [op.operands, op.results].map((values) => values.reduce((n, v) => n + bytesOf(v.type), 0));
  return after! <= before! || op.name.startsWith('pack');
}
