/** A tile program as a WebAssembly module. */
import { InternalError, invariant } from '../../ir/diagnostic.ts';
import type { Step, TileProgram } from '../../ir/tile.ts';
import { control } from '../../runtime/control.ts';
import binaryen from 'binaryen';
import { Asm, type Features } from './asm.ts';
import type { StepRow } from '../../runtime/manifest.ts';
import { emitProgram } from './program/index.ts';

/** An emitted module and what the manifest says about it. Addresses and sizes in bytes. */
export interface WasmModule {
  readonly binary: Uint8Array;
  /** File offset of the memory import's limits flag: 3 (shared) as emitted, 1 for an unshared memory. */
  readonly memoryFlag: number;
  /** Thread t has [scratch + t * scratchPerThread, ...). */
  readonly scratch: number;
  readonly scratchPerThread: number;
  /** Address of f64 pairs (start, end in ms), one per step; -1 without profiling. */
  readonly profile: number;
  readonly steps: readonly StepRow[];
  /** Rows of `steps` that belong to each entry: the first, and the one after the last. */
  readonly entrySteps: readonly (readonly [number, number])[];
}

export interface EmitOptions {
  /** Imports a clock and notes the time of every step. */
  readonly profile?: boolean;
  /** Has binaryen check the module: for tests, since it takes as long as emission. */
  readonly validate?: boolean;
}

/** Pages of the largest 32-bit memory. */
const maximumPages = 65536;
const pageBytes = 65536;
const align = (n: number, to: number): number => Math.ceil(n / to) * to;

/**
 * Emits the module: it imports a shared memory (and a clock when profiling) and exports `run(thread)`. Memory holds the control block, the program's
 * buffers, step times, constant tables of the code, and scratch for each thread. The same program and options give the same bytes.
 */
export function emitWasm(program: TileProgram, features: Features, options: EmitOptions = {}): WasmModule {
  const data = control.size;
  const dataEnd = data + program.buffers.reduce((n, b) => Math.max(n, b.address + b.bytes), 0);
  const timesAt = align(dataEnd, 64);
  const profile = options.profile ? timesAt : -1;
  const tablesAt = align(timesAt + (options.profile ? 16 * program.entries.reduce((n, e) => n + countSteps(e.steps), 0) : 0), 64);
  const asm = new Asm(features, tablesAt, program.division);
  try {
    if (options.profile) asm.m.addFunctionImport('clock', 'env', 'clock', binaryen.none, binaryen.f64);
    const emitted = emitProgram(asm, program, { data, profile });
    const scratch = align(tablesAt + asm.tables.bytes.length, 64);
    emitted.finish(scratch);
    const end = scratch + emitted.scratchPerThread;
    invariant(end <= maximumPages * pageBytes, `the program needs ${end} bytes of memory, WebAssembly has ${maximumPages * pageBytes}`);
    const binary = asm.finish(Math.ceil(end / pageBytes), maximumPages);
    if (options.validate && !asm.m.validate()) throw new InternalError('binaryen finds the emitted module invalid');
    return { binary, memoryFlag: memoryFlagOf(binary), scratch, scratchPerThread: emitted.scratchPerThread, profile, steps: emitted.rows, entrySteps: emitted.entryRows };
  } finally {
    asm.m.dispose();
  }
}

/** At least the number of step rows that a list of steps makes. */
function countSteps(steps: readonly Step[]): number {
  return steps.reduce((n, s) => {
    switch (s.kind) {
      case 'kernel': return n + 1;
      case 'if': return n + countSteps(s.then) + countSteps(s.otherwise);
      case 'loop': return n + countSteps(s.body);
      case 'move': return n + s.from.length;
    }
  }, 0);
}

/** Finds the limits flag of the memory import in the import section. */
function memoryFlagOf(binary: Uint8Array): number {
  let at = 8;
  const leb = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = binary[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  const skipName = (): void => {
    const length = leb();
    at += length;
  };
  while (at < binary.length) {
    const id = binary[at++];
    const size = leb();
    if (id !== 2) {
      at += size;
      continue;
    }
    for (let count = leb(); count > 0; count--) {
      skipName();
      skipName();
      const kind = binary[at++];
      if (kind === 2) return at;
      invariant(kind === 0, 'the module imports functions and a memory alone');
      leb();
    }
  }
  throw new InternalError('the module imports no memory');
}
