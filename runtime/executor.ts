/** What runs a module: threads over a shared memory, or one thread that owns its memory. */
import type { Patch, Range } from './worker.ts';

export interface Executor {
  readonly threads: number;
  /** Fills memory at an address; `read` is called for consecutive parts, in order, and writes into memory itself where it is shared. */
  fill(address: number, bytes: number, read: (at: number, into: Uint8Array) => Promise<void>): Promise<void>;
  /** Copies ranges of memory without running anything. */
  read(ranges: readonly Range[]): Promise<readonly Uint8Array<ArrayBuffer>[]>;
  /** Writes inputs, runs all threads, returns copies of the ranges to read. One at a time. */
  run(writes: readonly Patch[], reads: readonly Range[]): Promise<Uint8Array<ArrayBuffer>[]>;
  /** The same on the calling thread, which works as thread 0. */
  runSync?(writes: readonly Patch[], reads: readonly Range[]): Uint8Array<ArrayBuffer>[];
  /** Ends the threads. A run under way is lost. */
  close(): Promise<void>;
}

/** Makes the error for a failed run: what the engine said, and the index of the step that ran. */
export type Failure = (message: string, step: number) => Error;
