/** Compute steps: the vertices of an op on all tiles. */
import type { Op } from '../../../ir/graph.ts';
import type { Division, Spread, StepCycles } from '../../../ir/tiles.ts';
import { sameShape } from '../../../ir/type.ts';
import type { Choice } from '../choose.ts';
import { signature } from '../divide.ts';
import { resultOf } from '../divisions.ts';
import { keyOf } from '../op-key.ts';
import { timesOf } from '../serial.ts';
import { walkOf } from '../walk.ts';
import { resultBuffer, wantedResults } from './homes.ts';
import type { LoweredBuffer, Lowering, Read } from './lowering.ts';

/** What a compute step runs. */
interface Computation {
  /** The op and its number in the graph. */
  readonly op: Op;
  readonly index: number;
  readonly part: 'whole' | 'contribute' | 'merge';
  readonly vertex: string;
  readonly division: Division;
  readonly reads: readonly Read[];
  readonly writes: readonly LoweredBuffer[];
  /** What is written at a time, where the buffers hold more. */
  readonly made?: Spread | undefined;
  /** On the slowest tile. */
  readonly cycles: number;
  readonly macs: number;
}

/** Computes an op with nothing to merge. */
export function computeWhole(l: Lowering, op: Op, index: number, choice: Choice, reads: readonly Read[]): void {
  const { division, walk, made, estimate } = choice;
  // Results of control flow differ in shape.
  const writes = wantedResults(l, op).map((r, i) => resultBuffer(l, r, op, i === 0 || sameShape(r.type.shape, op.results[0]!.type.shape) ? made : resultOf(walk, division, r.type.shape), choice));
  compute(l, { op, index, part: 'whole', vertex: estimate.vertex, division, reads, writes, cycles: estimate.compute, macs: estimate.macs, made: atATime(made) });
}

/** A spread as the `made` of a step: that of a serial part. */
export const atATime = (spread: Spread): Spread | undefined => (timesOf(spread) > 1 ? spread : undefined);

/** Adds a compute step; what it writes lives from there, what it reads until there at least. */
export function compute(l: Lowering, { op, index, part, vertex, division, reads, writes, made, cycles: spent, macs }: Computation): void {
  for (const r of reads) l.touch(r.buffer);
  for (const w of writes) {
    if (w.viewOf === undefined) w.birth = l.now;
    l.touch(w);
  }
  l.vertices.add(vertex);
  const c = l.target.constants;
  const code = c['code.control'] + l.once(`${part} ${keyOf(op)} ${signature(division)}`, () => c['code.vertex'] + c['code.edge'] * (reads.length + writes.length));
  const cycles: StepCycles = { compute: spent, exchange: 0, sync: c.sync + c.control };
  l.push({
    kind: 'compute', index: l.now, op: index, part, name: op.results[0]?.name ?? op.name, source: op.source, root: rootName(op), vertex, division,
    reads: reads.map((r) => ({ buffer: r.buffer.id, slice: r.slice })), writes: writes.map((w) => ({ buffer: w.id, slice: made ?? w.spread })),
    cycles, code, macs,
  });
}

/** What an op is besides its elementwise ops. */
function rootName(op: Op): string {
  const { kind, root } = walkOf(op);
  return kind === 'map' ? 'map' : root.name;
}
