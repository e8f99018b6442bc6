/** What the memory of a training step is taken by. */
import type { Op, Value } from '../../ir/graph.ts';
import type { Entry, TileProgram } from '../../ir/tile.ts';
import { bytesOf } from '../../ir/type.ts';
import { lossName } from '../../passes/train/differentiate.ts';
import type { StateEntry } from '../../runtime/manifest.ts';
import { bytes } from '../print.ts';

export interface StepMemory {
  /** Bytes of the region that all temporaries share, and the most of it that is live at once. */
  readonly arena: number;
  readonly live: number;
  /** Bytes of state by role. */
  readonly parameters: number;
  readonly moments: number;
  readonly statistics: number;
  readonly averages: number;
  /** Bytes of all that the forward pass leaves for the backward pass; undefined where the step is a loop over micro-batches. */
  readonly saved: number | undefined;
  /** State whose new value is computed elsewhere and copied, because it could not be written in place. */
  readonly copied: readonly string[];
}

/** Takes stock of the step of a training program. */
export function stepMemory(program: TileProgram, roles: ReadonlyMap<string, StateEntry['role']>): StepMemory {
  const entry = program.entries[0]!;
  const graph = entry.graph ?? program.graph;
  const updated = new Set(graph.updates.map((u) => u.state));
  const of = (role: StateEntry['role']): number => graph.state.filter((s) => updated.has(s.value) && roles.get(s.name) === role).reduce((n, s) => n + bytesOf(s.value.type), 0);
  const names = new Map(graph.state.map((s) => [s.value, s.name]));
  const copied = entry.steps.flatMap((s) => (s.kind === 'kernel' && s.op.name === 'copy' && names.has(s.op.results[0]!) ? [names.get(s.op.results[0]!)!] : []));
  return {
    arena: program.memory.temps, live: program.memory.liveBound, parameters: of('parameter'), moments: of('moment'), statistics: of('statistic'), averages: of('average'),
    saved: savedBytes(program, entry), copied,
  };
}

/** Bytes of temporaries that the loss depends on and that ops read which it does not depend on. Views of one buffer count once. */
function savedBytes(program: TileProgram, entry: Entry): number | undefined {
  if (entry.steps.some((s) => s.kind === 'loop')) return undefined;
  const graph = entry.graph ?? program.graph;
  const loss = graph.outputs.find((o) => o.name === lossName)?.value;
  const needed = new Set<Value>(loss ? [loss] : []);
  const forward = new Set<Op>();
  for (const op of graph.ops.toReversed()) {
    if (!op.results.some((v) => needed.has(v))) continue;
    forward.add(op);
    op.operands.forEach((v) => needed.add(v));
  }
  const made = new Set([...forward].flatMap((op) => op.results));
  const temporaries = new Map(program.buffers.filter((b) => b.kind === 'temp').map((b) => [b.id, b.bytes]));
  const saved = new Set(graph.ops.filter((op) => !forward.has(op)).flatMap((op) => op.operands.filter((v) => made.has(v)).map((v) => program.placements.get(v)?.buffer)));
  return [...saved].reduce<number>((n, id) => n + (temporaries.get(id ?? -1) ?? 0), 0);
}

/** One line for people. */
export function showMemory(m: StepMemory): string {
  const state = ([['parameters', m.parameters], ['moments', m.moments], ['running statistics', m.statistics], ['averages', m.averages]] as const).filter(([, n]) => n > 0).map(([what, n]) => `${bytes(n)} ${what}`);
  const saved = m.saved === undefined ? 'in a loop over micro-batches' : `${bytes(m.saved)} of it saved activations`;
  const copied = m.copied.length === 0 ? 'all state is updated in place' : `${m.copied.length} ${m.copied.length === 1 ? 'state is' : 'states are'} copied: ${m.copied.slice(0, 8).join(', ')}${m.copied.length > 8 ? ', …' : ''}`;
  return `memory of a step: arena ${bytes(m.arena)} (${bytes(m.live)} live at once, ${saved}), ${state.join(', ')}; ${copied}`;
}
