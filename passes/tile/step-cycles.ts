/** Estimated cycles of the steps that a choice is lowered to: exchanges, vertices and merges, all serial parts of them. */
import type { Division, Spread } from '../../ir/tiles.ts';
import { dtypes } from '../../ir/type.ts';
import { exchangeCycles } from './cost.ts';
import { isLocal, largestSlice } from './divide.ts';
import type { Estimate } from './estimate.ts';
import { contributing } from './lower/contributing.ts';
import { broadcastNeed } from './lower/merge-spread.ts';
import { changes, overTime, timesOf } from './serial.ts';
import { toGrain, type TileTarget } from './target.ts';
import type { Walk } from './walk.ts';

/** What the cycles of an op depend on, beside where its operands lie. */
export interface Costed {
  readonly walk: Walk;
  readonly division: Division;
  readonly estimate: Estimate;
  readonly needs: readonly Spread[];
  readonly local: readonly boolean[];
  readonly contributors: number;
}

/** Cycles of all steps of an op. `homes`: where its operands lie; `meet`: where contributions to its result meet, if there are several. */
export function stepCycles(t: TileTarget, c: Costed, homes: readonly Spread[], meet: Spread | undefined): number {
  const { sync, control } = t.constants;
  const { op, root } = c.walk;
  const times = timesOf(c.division);
  const own = c.estimate.compute + sync + control;
  if (!meet) {
    if (times === 1) return gatherCycles(t, c, homes, () => true) + own;
    return gatherCycles(t, c, homes, (k) => !changes(c.needs[k]!)) + times * (gatherCycles(t, c, homes, (k) => changes(c.needs[k]!)) + own);
  }
  const first = contributing(op, root);
  const merge = meetCycles(t, c, homes, meet) + c.estimate.merge + sync + control;
  if (times === 1) return gatherCycles(t, c, homes, (k) => first.has(k)) + own + merge;
  return gatherCycles(t, c, homes, (k) => first.has(k) && !changes(c.needs[k]!)) + times * (gatherCycles(t, c, homes, (k) => first.has(k) && changes(c.needs[k]!)) + own + merge);
}

/** The exchange that brings operands to where they are read. */
function gatherCycles(t: TileTarget, c: Costed, homes: readonly Spread[], wanted: (k: number) => boolean): number {
  const { op } = c.walk;
  let [received, sent, streamed] = [0, 0, 0];
  for (let k = 0; k < op.operands.length; k++) {
    if (c.local[k] || !wanted(k) || op.operands.some((v, j) => j < k && v === op.operands[k] && !c.local[j] && wanted(j))) continue;
    const size = dtypes[op.operands[k]!.type.dtype].bytes;
    received += largestSlice(c.needs[k]!) * size;
    sent = Math.max(sent, toGrain(t, largestSlice(homes[k]!) * size) / timesOf(c.needs[k]!));
    if (k === 0) streamed = streamedBytes(c);
  }
  return exchangeCycles(t, received, streamed, sent);
}

/** The exchange that brings contributions, and what only their merge reads, to where they meet. */
function meetCycles(t: TileTarget, { walk, contributors }: Costed, homes: readonly Spread[], meet: Spread): number {
  const { op, root } = walk;
  const first = contributing(op, root);
  let received = largestSlice(meet) * contributors * (walk.combine === 'moments' ? 3 : 1) * dtypes[root.results[0]!.type.dtype].bytes;
  let sent = 0;
  for (let k = 0; k < op.operands.length; k++) {
    if (first.has(k)) continue;
    const slice = broadcastNeed(op.operands[k]!, op.results[0]!, meet);
    const all = overTime(slice);
    if (all && isLocal(all, homes[k]!)) continue;
    const size = dtypes[op.operands[k]!.type.dtype].bytes;
    received += largestSlice(slice) * size;
    sent = Math.max(sent, toGrain(t, largestSlice(homes[k]!) * size) / timesOf(slice));
  }
  return exchangeCycles(t, received, 0, sent);
}

/** Bytes of a product's first operand that two tiles of a pair both read, so that they receive them together. */
export function streamedBytes({ walk, local, division, needs: [first] }: Pick<Costed, 'walk' | 'local' | 'division' | 'needs'>): number {
  if (walk.kind !== 'contract' || local[0]) return 0;
  const paired = division.dims.some((d, i) => d.parts % 2 === 0 && d.stride % 2 === 1 && !first!.axes.some((c) => c.by.includes(i)));
  return paired ? largestSlice(first!) * dtypes[walk.op.operands[0]!.type.dtype].bytes : 0;
}
