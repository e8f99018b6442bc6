/** Threads that a thread of its own watches over, for a host that sleeps while they work: it could not be told that one of them ended. Node alone. */
import type { control } from './control.ts';
import { codeOf, spawn, type Body, type Thread } from './spawn.ts';

interface WatchInit<Init> {
  readonly code: string;
  readonly inits: readonly Init[];
  readonly memory: WebAssembly.Memory;
  readonly control: typeof control;
}
type WatchMessage<Out> = { readonly thread: number; readonly message: Out } | { readonly thread: number; readonly lost: string };

/** Starts a thread for each of `inits`, and one that notes in the control block when one of them ends, so that all that wait for it stop waiting. */
export function spawnWatched<Init, Out>(body: Body<Init, never, Out>, inits: readonly Init[], memory: WebAssembly.Memory, at: typeof control): Thread<never, Out>[] {
  if (inits.length === 0) return [];
  const watch = spawn<WatchInit<Init>, never, WatchMessage<Out>>(watcher, { code: codeOf(body), inits, memory, control: at });
  const listeners = new Map<number, { receive(message: Out): void; lost(reason: string): void }>();
  watch.listen(
    (m) => ('lost' in m ? listeners.get(m.thread)?.lost(m.lost) : listeners.get(m.thread)?.receive(m.message)),
    (reason) => listeners.forEach((l) => l.lost(reason)),
  );
  let ended: Promise<void> | undefined;
  return inits.map((_, thread) => ({
    post: () => {},
    listen: (receive, lost) => void listeners.set(thread, { receive, lost }),
    hold: (alive) => watch.hold(alive),
    // The threads end with the one that started them.
    terminate: () => (ended ??= watch.terminate()),
  }));
}

/** Runs in the watching thread: see worker.ts for what it may use. */
const watcher = <Init, Out>(init: WatchInit<Init>, post: (message: WatchMessage<Out>) => void): void => {
  const { Worker } = process.getBuiltinModule('node:worker_threads');
  const { control: at } = init;
  const cells = new Int32Array(init.memory.buffer);
  init.inits.forEach((workerData, thread) => {
    const worker = new Worker(init.code, { eval: true, workerData, execArgv: [] });
    let cause: string | undefined;
    worker.on('message', (message: Out) => post({ thread, message }));
    worker.on('error', (e: unknown) => (cause = String(e)));
    worker.on('exit', (code) => {
      // In this order: a run that starts now clears `abort` and then looks at `lost`.
      Atomics.store(cells, at.lost / 4, 1);
      Atomics.compareExchange(cells, at.abort / 4, 0, -1);
      Atomics.add(cells, at.barrierGeneration / 4, 1);
      Atomics.notify(cells, at.barrierGeneration / 4);
      Atomics.notify(cells, at.done / 4);
      post({ thread, lost: cause ?? `a worker thread ended with code ${code}` });
    });
  });
};
