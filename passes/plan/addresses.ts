/** Static addresses for all that was planned. */
import type { Graph, Value } from '../../ir/graph.ts';
import type { Buffer, Entry, Placement, TileProgram } from '../../ir/tile.ts';
import { align, allocate, liveBound, type Lifetime } from '../allocate.ts';
import type { Planning, Root } from './planning.ts';

/** Gives every root its address and makes the program. Temporaries share one region by their lifetimes. */
export function finish(p: Planning, entries: readonly Entry[], graph: Graph, scheduleBytes: number): TileProgram {
  const temps = p.roots.filter((r) => r.kind === 'temp' || (p.sharedIo && isIo(r)));
  const lives: Lifetime[] = temps.map((r) => ({ bytes: r.bytes, from: r.from, to: r.to }));
  const { offsets, end } = allocate(lives);
  const address = new Map<Root, number>();
  let at = 0;
  const bytes = { constant: 0, state: 0 };
  const placeAll = (roots: readonly Root[]): number => {
    const start = at;
    for (const r of roots) {
      address.set(r, at);
      at += align(Math.max(1, r.bytes));
    }
    return at - start;
  };
  for (const kind of ['constant', 'state'] as const) bytes[kind] = placeAll(p.roots.filter((r) => r.kind === kind));
  const io = p.roots.filter(isIo);
  if (!p.sharedIo) placeAll(io);
  temps.forEach((r, i) => address.set(r, at + offsets[i]!));
  const buffers = p.roots.map((r): Buffer => ({ id: r.id, kind: r.kind, bytes: r.bytes, address: address.get(r)! }));
  const placements = new Map<Value, Placement>();
  for (const [v, s] of p.spots) placements.set(v, { buffer: s.root.id, offset: s.offset, strides: s.strides });
  return {
    graph, entries, buffers, placements,
    contents: p.contents,
    ...(p.division && { division: p.division }),
    memory: { constants: bytes.constant, state: bytes.state, io: io.reduce((n, r) => n + align(Math.max(1, r.bytes)), 0), temps: end, liveBound: Math.max(liveBound(lives), 0), scheduleBytes },
  };
}

const isIo = (r: Root): boolean => r.kind === 'input' || r.kind === 'output';
