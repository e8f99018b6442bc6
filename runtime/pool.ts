/** Worker threads over one shared memory, which the host reads and writes directly. */
import { abi, control } from './control.ts';
import type { Executor, Failure } from './executor.ts';
import { cores } from './features.ts';
import { spawn, type Thread } from './spawn.ts';
import { spawnWatched } from './watched.ts';
import { sharedWorker, type Patch, type Range, type SharedInit, type SharedMessage } from './worker.ts';

export interface PoolOptions {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly threads: number;
  /** Thread 0 is the caller's own, through runSync. */
  readonly sync: boolean;
  readonly failure: Failure;
}

/** What `abort` says where a worker ended. */
const lost = -1;
/** Milliseconds after which a caller that waits for the threads looks again whether all are there. */
const patience = 50;

/**
 * Milliseconds that a worker looks for the next run before it sleeps: longer than the host takes to hear of a result and to ask for the next, since waking a
 * thread costs some 50 microseconds.
 */
const spinMs = 0.5;

/**
 * How often a thread looks whether a barrier has opened before it sleeps. Where each has a core, for about a millisecond: two threads that were woken on one core are only moved apart
 * by the system while both want to run. Where they share cores, for some tens of microseconds.
 */
const spins = { alone: 400_000, sharing: 20_000 } as const;

/** Starts the workers and waits until each has instantiated the module. */
export async function startPool(options: PoolOptions): Promise<Executor> {
  const { memory, threads, failure } = options;
  const bytes = new Uint8Array(memory.buffer);
  const cells = new Int32Array(memory.buffer);
  const timeOrigin = performance.timeOrigin + performance.now();
  const first = options.sync ? 1 : 0;
  // One core stays free for the host, which has to take the result first.
  const spinning = Math.min(threads, cores() - 1);
  Atomics.store(cells, control.spins / 4, threads <= cores() ? spins.alone : spins.sharing);
  const posts = typeof Atomics.waitAsync !== 'function';
  /** Settles the run under way. */
  let finish: { done(): void; failed(error: Error): void } | undefined;
  let firstFailure: Error | undefined;

  const inits = Array.from({ length: threads - first }, (_, i): SharedInit =>
    ({ module: options.module, memory, thread: first + i, control, abi, epoch: Atomics.load(cells, control.epoch / 4), timeOrigin, spin: first + i < spinning ? spinMs : 0, posts }));
  // A caller that works as thread 0 hears nothing until it has finished.
  const workers: Thread<never, SharedMessage>[] = options.sync ? spawnWatched(sharedWorker, inits, memory, control) : inits.map((init) => spawn(sharedWorker, init));
  const openBarrier = (): void => {
    Atomics.add(cells, control.barrierGeneration / 4, 1);
    Atomics.notify(cells, control.barrierGeneration / 4);
  };

  const close = async (): Promise<void> => {
    // Some engines cannot end a worker that sleeps on a cell.
    Atomics.store(cells, control.threads / 4, 0);
    Atomics.add(cells, control.epoch / 4, 1);
    Atomics.notify(cells, control.epoch / 4);
    // A run that was lost is not waited for any longer.
    Atomics.notify(cells, control.finished / 4);
    await Promise.all(workers.map((w) => w.terminate()));
  };
  const ready = workers.map((worker) =>
    new Promise<void>((resolve, reject) => {
      let started = false;
      const fail = (error: Error): void => {
        firstFailure ??= error;
        reject(error);
        finish?.failed(error);
      };
      worker.listen(
        (message) => {
          if (message.kind === 'ready') {
            started = true;
            resolve();
          } else if (message.kind === 'failed') fail(failure(message.message, message.step));
          else finish?.done();
        },
        (reason) => {
          // The others would wait for it.
          Atomics.compareExchange(cells, control.abort / 4, 0, lost);
          openBarrier();
          fail(failure(reason, started ? Atomics.load(cells, control.step / 4) : -1));
        },
      );
    }));
  try {
    await Promise.all(ready);
  } catch (error) {
    await close();
    throw error;
  }
  for (const w of workers) w.hold(false);

  const begin = (writes: readonly Patch[]): void => {
    for (const w of writes) bytes.set(w.bytes, w.address);
    for (const c of [control.barrierCount, control.chunk, control.abort, control.done, control.step]) Atomics.store(cells, c / 4, 0);
    Atomics.store(cells, control.threads / 4, threads);
    Atomics.add(cells, control.epoch / 4, 1);
    Atomics.notify(cells, control.epoch / 4);
  };
  const collect = (reads: readonly Range[]): Uint8Array<ArrayBuffer>[] => reads.map((r) => new Uint8Array(bytes.subarray(r.address, r.address + r.bytes)));

  const executor: Executor = {
    threads,
    fill: (address, size, read) => read(0, bytes.subarray(address, address + size)),
    read: async (ranges) => collect(ranges),
    async run(writes, reads) {
      if (firstFailure) throw firstFailure;
      // One worker that is held keeps the process alive until the run has ended.
      workers[0]?.hold(true);
      try {
        await new Promise<void>((resolve, reject) => {
          // After a failure the cause comes from the worker that failed, by a message.
          const done = (): void => {
            if (Atomics.load(cells, control.abort / 4) === 0) resolve();
          };
          finish = { done, failed: reject };
          const runs = Atomics.load(cells, control.finished / 4);
          begin(writes);
          if (posts) return;
          const ended = Atomics.waitAsync(cells, control.finished / 4, runs);
          if (ended.async) void ended.value.then(done);
          else done();
        });
        return collect(reads);
      } finally {
        finish = undefined;
        workers[0]?.hold(false);
      }
    },
    close,
  };
  if (!options.sync) return executor;

  const own = new WebAssembly.Instance(options.module, { [abi.imports]: { [abi.memory]: memory, [abi.clock]: () => performance.timeOrigin + performance.now() - timeOrigin } });
  const runOwn = own.exports[abi.run] as (thread: number) => void;
  const isLost = (): boolean => Atomics.load(cells, control.lost / 4) !== 0;
  const runSync = (writes: readonly Patch[], reads: readonly Range[]): Uint8Array<ArrayBuffer>[] => {
    if (firstFailure) throw firstFailure;
    begin(writes);
    if (isLost()) throw failure('a worker thread ended', -1);
    let caught: unknown;
    try {
      runOwn(0);
    } catch (error) {
      caught = error;
      Atomics.compareExchange(cells, control.abort / 4, 0, 1);
      openBarrier();
    }
    Atomics.add(cells, control.done / 4, 1);
    for (let n = Atomics.load(cells, control.done / 4); n < threads && !isLost(); n = Atomics.load(cells, control.done / 4)) Atomics.wait(cells, control.done / 4, n, patience);
    const culprit = Atomics.load(cells, control.abort / 4);
    if (isLost()) throw failure('a worker thread ended', Atomics.load(cells, control.step / 4));
    if (culprit !== 0) throw failure(culprit === 1 ? String(caught) : `thread ${culprit - 1} failed`, Atomics.load(cells, control.step / 4));
    return collect(reads);
  };
  return { ...executor, runSync, run: async (writes, reads) => runSync(writes, reads) };
}
