/** Ops whose results several tiles contribute to: their contributions, the exchange and the merge. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op } from '../../../ir/graph.ts';
import type { Copy, Division, Spread } from '../../../ir/tiles.ts';
import { dtypes, type TensorType } from '../../../ir/type.ts';
import type { Choice } from '../choose.ts';
import { isLocal, largestSlice, totalElements } from '../divide.ts';
import { overTime } from '../serial.ts';
import { toGrain } from '../target.ts';
import { atATime, compute } from './compute.ts';
import { contributing } from './contributing.ts';
import { exchange } from './exchange.ts';
import { resultBuffer, wantedResults } from './homes.ts';
import { nameOf, type LoweredBuffer, type Lowering, type Read } from './lowering.ts';
import { broadcastNeed } from './merge-spread.ts';

/** Contributions of all tiles to a result, their exchange and their merge. `reads`: what contributions need. */
export function computeMerged(l: Lowering, op: Op, index: number, choice: Choice, reads: readonly Read[]): void {
  const { division, walk, made, estimate, contributors } = choice;
  const result = op.results[0]!;
  const name = nameOf(result, op);
  const width = walk.combine === 'moments' ? 3 : 1;
  const dtype = walk.root.results[0]!.type.dtype;
  const type: TensorType = { dtype, shape: result.type.shape };
  const partial = l.newBuffer(type, `${name}.parts`, 'partial', made, op.source, { width });
  compute(l, { op, index, part: 'contribute', vertex: estimate.vertex, division, reads, writes: [partial], cycles: estimate.compute, macs: estimate.macs });

  const { meet: spread } = choice;
  invariant(spread, 'tiles: contributions meet somewhere');
  const elementBytes = contributors * width * dtypes[dtype].bytes;
  const received = largestSlice(spread) * elementBytes;
  const receive = l.newBuffer(type, `${name}.received`, 'receive', spread, op.source, { width: width * contributors, bytes: toGrain(l.target, received) });
  const after = gatherAfter(l, op, walk.root, spread);
  l.touch(partial);
  exchange(l, [{ from: partial.id, to: receive.id, merge: true }, ...after.copies], received + after.largest, totalElements(spread) * elementBytes);
  const writes = wantedResults(l, op).map((r) => resultBuffer(l, r, op, spread, undefined));
  const vertex = `${mergeVertex[walk.combine] ?? walk.combine} ${dtype}`;
  compute(l, { op, index, part: 'merge', vertex, division: mergeDivision(spread), reads: [{ buffer: receive, slice: spread }, ...after.reads], writes, cycles: estimate.merge, macs: 0, made: atATime(spread) });
}

/** Contributions are merged by the vertex that reduces within a tile, moments by one of their own. */
const mergeVertex: Readonly<Record<string, string>> = { sum: 'reduceSum', prod: 'reduceProd', max: 'reduceMax', min: 'reduceMin', moments: 'merge moments' };

/** Operands that only the merge reads, where it reads them, and the copies that bring them there with the contributions. */
function gatherAfter(l: Lowering, op: Op, root: Op, spread: Spread): { readonly reads: readonly Read[]; readonly copies: readonly Copy[]; readonly largest: number } {
  const first = contributing(op, root);
  const reads: Read[] = [];
  const copies: Copy[] = [];
  let largest = 0;
  op.operands.forEach((v, k) => {
    if (first.has(k)) return;
    const slice = broadcastNeed(v, op.results[0]!, spread);
    const home = l.home(v);
    const all = overTime(slice);
    if (all && isLocal(all, home.spread)) {
      reads.push({ buffer: home, slice });
      return;
    }
    const buffer: LoweredBuffer = l.newBuffer(v.type, `${home.value}.copy`, 'gather', slice, []);
    copies.push({ from: home.id, to: buffer.id });
    largest += largestSlice(slice) * dtypes[v.type.dtype].bytes;
    l.touch(home);
    reads.push({ buffer, slice });
  });
  return { reads, copies, largest };
}

/** A merge runs over the axes of the result. */
function mergeDivision(spread: Spread): Division {
  if (spread.flat) return { base: spread.base, dims: spread.dims, ranges: { flat: spread.axes[0]! }, flat: true };
  return { base: spread.base, dims: spread.dims, ranges: Object.fromEntries(spread.axes.map((c, i) => [`@${i}`, c])) };
}
