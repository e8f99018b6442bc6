/** The whole program as one function: `run(thread)` walks the steps of an entry, sharing chunks with the other threads. */
import type { TileProgram } from '../../../ir/tile.ts';
import { abi, control } from '../../../runtime/control.ts';
import type { Asm } from '../asm.ts';
import { addEntry } from './entry.ts';
import type { StepRow } from '../../../runtime/manifest.ts';
import type { ProgramLayout } from './node.ts';
import { Preparation } from './prepare.ts';

export interface EmittedProgram {
  readonly rows: readonly StepRow[];
  /** Of each entry: its first row, and the one after its last. */
  readonly entryRows: readonly (readonly [number, number])[];
  readonly scratchPerThread: number;
  /** Adds the functions; call it when scratch has its address. */
  finish(scratch: number): void;
}

/** Emits the kernels of all entries. What is exported runs the entry whose index the host wrote to the control block. */
export function emitProgram(asm: Asm, program: TileProgram, layout: ProgramLayout): EmittedProgram {
  const rows: StepRow[] = [];
  const state = new Preparation(asm, program, layout, rows);
  const entries = program.entries.map((entry) => {
    const first = rows.length;
    return { entry, nodes: state.prepare(entry.steps), rows: [first, rows.length] as const };
  });
  const scratchPerThread = Math.ceil(state.scratch / 64) * 64;
  return {
    rows,
    entryRows: entries.map((e) => e.rows),
    scratchPerThread,
    finish(scratch) {
      const names = entries.map(({ entry, nodes }) => addEntry(asm, entry, nodes, { ...layout, scratch, scratchPerThread, rows: rows.length }));
      asm.m.addFunctionExport(names.length === 1 ? names[0]! : dispatch(asm, names), abi.run);
    },
  };
}

/** A function that runs the entry that the control block names. */
function dispatch(asm: Asm, entries: readonly string[]): string {
  const { m } = asm;
  return asm.fn('dispatch', ['i32'], undefined, (f, [thread]) =>
    entries.map((name, i) => f.if(m.i32.eq(m.i32.load(0, 4, asm.i32(control.entry)), asm.i32(i)), [asm.call(name, [f.get(thread!)])])));
}
