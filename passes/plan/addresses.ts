/** Static addresses for all that was planned. */
import type { Graph, Value } from '../../ir/graph.ts';
import type { Buffer, Entry, Placement, TileProgram } from '../../ir/tile.ts';
import { align, allocate, liveBound, type Lifetime } from '../allocate.ts';
import type { Planning, Root } from './planning.ts';

/** Gives every root its address and makes the program. Temporaries share one region by their lifetimes. */
export function finish(p: Planning, entries: readonly Entry[], graph: Graph, scheduleBytes: number): TileProgram {
  const temps = p.roots.filter((r) => r.kind === 'temp');
  const lives: Lifetime[] = temps.map((r) => ({ bytes: r.bytes, from: r.from, to: r.to }));
  const { offsets, end } = allocate(lives);
  const address = new Map<Root, number>();
  let at = 0;
  const bytes = { constant: 0, state: 0, input: 0, output: 0, temp: 0 };
  for (const kind of ['constant', 'state', 'input', 'output'] as const) {
    const start = at;
    for (const r of p.roots) {
      if (r.kind !== kind) continue;
      address.set(r, at);
      at += align(Math.max(1, r.bytes));
    }
    bytes[kind] = at - start;
  }
  temps.forEach((r, i) => address.set(r, at + offsets[i]!));
  const buffers = p.roots.map((r): Buffer => ({ id: r.id, kind: r.kind, bytes: r.bytes, address: address.get(r)! }));
  const placements = new Map<Value, Placement>();
  for (const [v, s] of p.spots) placements.set(v, { buffer: s.root.id, offset: s.offset, strides: s.strides });
  return {
    graph, entries, buffers, placements,
    contents: p.contents,
    memory: { constants: bytes.constant, state: bytes.state, io: bytes.input + bytes.output, temps: end, liveBound: Math.max(liveBound(lives), 0), scheduleBytes },
  };
}
