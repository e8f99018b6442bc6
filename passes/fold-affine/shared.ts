import { definitions, uses, type Graph, type Op, type Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import type { Tensor } from '../../ir/type.ts';
import { isFixed } from '../fixed-values.ts';

/** What may move out of a value into all of its readers at once. */
export type Shared = ReadonlyMap<Value, 'scale' | 'scale and shift'>;

/**
 * Values with several readers, all of them convolutions of fixed weights: a factor moves into the weights of each, so that nothing computes it any more; a shift too where none of
 * them is padded.
 */
export function sharedByConvolutions(graph: Graph): Shared {
  const defs = definitions(graph);
  const updated = new Set(graph.updates.map((u) => u.state));
  const known = new Map<Value, boolean>(graph.state.map((s) => [s.value, !updated.has(s.value)]));
  const facts = {
    definition: (v: Value): Op | undefined => defs.get(v),
    constant: (v: Value): Tensor | undefined => (defs.get(v)?.name === 'constant' ? (defs.get(v)!.attrs['value'] as Tensor) : undefined),
  };
  const fixed = (v: Value): boolean => isFixed(v, facts, known);
  const held = new Set([...graph.outputs, ...graph.updates].map((o) => o.value));
  const shared = new Map<Value, 'scale' | 'scale and shift'>();
  for (const [v, ops] of uses(graph)) {
    if (ops.length < 2 || held.has(v) || !ops.every((op) => op.name === 'conv' && op.operands[0] === v && fixed(op.operands[1]!))) continue;
    shared.set(v, ops.some((op) => nums(op.attrs, 'pads').some((p) => p !== 0)) ? 'scale' : 'scale and shift');
  }
  return shared;
}
