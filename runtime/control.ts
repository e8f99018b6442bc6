/** The control block at the start of linear memory: i32 cells, a cache line each, where threads and the host meet. */

/** Byte addresses. */
export const control = {
  /** Threads that have arrived at the current barrier. */
  barrierCount: 64,
  /** Grows by one each time a barrier opens. */
  barrierGeneration: 128,
  /** Taken by the first thread that comes to work which cannot be shared; the thread that opens a barrier sets it to 0. */
  chunk: 192,
  /** Not 0: a thread failed (its number + 1) or ended (-1); every barrier tests it and traps. */
  abort: 256,
  /** Number of threads of this run, set by the host. */
  threads: 320,
  /** The host adds 1 to start a run; workers wait on it. */
  epoch: 384,
  /** Threads that have finished this run. */
  done: 448,
  /** Grows by one when the last thread has finished a run; the host waits on it. */
  finished: 704,
  /** Index of the step that is running, for error messages. */
  step: 512,
  /** Threads asleep at the barrier. */
  sleepers: 576,
  /** Index of the entry (manifest.entries) that the host runs. */
  entry: 640,
  /** Not 0: a worker thread ended and will come to no barrier any more. Never set back. */
  lost: 768,
  /** How often a thread looks whether a barrier has opened before it sleeps, set by the host. */
  spins: 832,
  /** Chunks taken of each region of the current step, a cache line each; the thread that opens a barrier sets them to 0. */
  regions: 1024,
  maxRegions: 64,
  /** Bytes of the whole block; data starts here. */
  size: 1024 + 64 * 64,
} as const;

/**
 * What a module imports and exports. `run(thread)` executes the whole entry as one of `control.threads` threads and returns when that thread has
 * finished. The module waits on `barrierGeneration` only where more than one thread runs, and never touches `epoch`, `done` and `finished`: the worker around it does.
 * Before a run the host sets `threads` and zeroes `barrierCount`, `chunk`, `abort`, `done` and `step`. A thread that traps has `abort` set for it, the
 * barrier generation raised and its waiters notified; the others then trap at their barrier.
 */
export const abi = {
  /** Module name of both imports. */
  imports: 'env',
  memory: 'memory',
  /** `() => f64`, milliseconds; imported by a profiling build alone. */
  clock: 'clock',
  run: 'run',
} as const;
