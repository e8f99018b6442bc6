/** The whole program as one function: `run(thread)` walks the steps of an entry, sharing chunks with the other threads. */
import type { TileProgram } from '../../../ir/tile.ts';
import type { Asm } from '../asm.ts';
import { addEntry } from './entry.ts';
import type { ProgramLayout, StepRow } from './node.ts';
import { Preparation } from './prepare.ts';

export type { StepRow } from './node.ts';

export interface EmittedProgram {
  readonly rows: readonly StepRow[];
  readonly scratchPerThread: number;
  /** Adds the functions; call it when scratch has its address. */
  finish(scratch: number): void;
}

/** Emits the kernels of all entries. The first entry is exported as `run`, the others under their names. */
export function emitProgram(asm: Asm, program: TileProgram, layout: ProgramLayout): EmittedProgram {
  const rows: StepRow[] = [];
  const state = new Preparation(asm, program, layout, rows);
  const entries = program.entries.map((entry) => ({ entry, nodes: state.prepare(entry.steps) }));
  const scratchPerThread = Math.ceil(state.scratch / 64) * 64;
  return {
    rows,
    scratchPerThread,
    finish(scratch) {
      entries.forEach(({ entry, nodes }, i) => addEntry(asm, entry, nodes, i === 0 ? 'run' : entry.name, { ...layout, scratch, scratchPerThread, rows: rows.length }));
    },
  };
}
