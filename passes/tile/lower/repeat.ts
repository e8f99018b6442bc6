/** Serial parts: one op in parts that follow each other on the same tiles. */
import type { Op } from '../../../ir/graph.ts';
import type { Choice } from '../choose.ts';
import { changes, timesOf } from '../serial.ts';
import { computeWhole } from './compute.ts';
import { contributing } from './contributing.ts';
import { gather } from './exchange.ts';
import type { Lowering } from './lowering.ts';
import { computeMerged } from './merge.ts';

/** Computes an op in serial parts: what all of them read is gathered once, the rest in each. */
export function computeRepeated(l: Lowering, op: Op, index: number, choice: Choice): void {
  const merged = choice.contributors > 1;
  const first = merged ? contributing(op, choice.walk.root) : new Set(op.operands.keys());
  const inEach = (k: number): boolean => changes(choice.needs[k]!);
  const once = gather(l, op, choice, (k) => first.has(k) && !inEach(k));
  const from = l.now;
  const before = l.buffers.length;
  l.body = [];
  const each = gather(l, op, choice, (k) => first.has(k) && inEach(k));
  const reads = [...first].map((k) => (inEach(k) ? each : once).shift()!);
  if (merged) computeMerged(l, op, index, choice, reads);
  else computeWhole(l, op, index, choice, reads);
  const { body } = l;
  l.body = undefined;
  l.steps.push({ kind: 'repeat', index: from, times: timesOf(choice.division), body });
  // The next part reads again what was there before the first: it is held until the last part is done.
  for (const b of l.buffers.slice(0, before)) if (b.death >= from) b.death = Math.max(b.death, l.now);
  // And it makes its part beside those that are there.
  l.home(op.results[0]!).birth = from;
}
