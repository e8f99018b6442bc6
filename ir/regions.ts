/** What the regions of `if` and `loop` capture. */
import type { Graph, Op, Value } from './graph.ts';
import { num } from './op.ts';

/** How many operands come before the captured ones: the condition; or limit, start and what is carried. */
export const firstCaptured = (op: Op): number => (op.name === 'if' ? 1 : 2 + num(op.attrs, 'carried'));

/** The region input that stands for a captured operand. */
export const capturedInput = (region: Graph, operand: number): Value => region.inputs[operand - 1]!;

/** The captured operands of a region's op, outside and inside: the same value in every run of the region. */
export function captures(op: Op, region: Graph): { readonly outer: Value; readonly inner: Value }[] {
  const first = firstCaptured(op);
  return op.operands.slice(first).map((outer, i) => ({ outer, inner: capturedInput(region, first + i) }));
}
