/**
 * The code of the worker threads. Each function here is turned into text and run in another thread: it may use its parameters and the globals of a worker,
 * nothing else, and declares no named function inside (bundlers may wrap those in helpers that are not there).
 */
import type { abi, control } from './control.ts';

export interface SharedInit {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly thread: number;
  readonly control: typeof control;
  readonly abi: typeof abi;
  /** Value of the epoch cell that the worker starts from. */
  readonly epoch: number;
  /** The clock's zero, in milliseconds since 1970. */
  readonly timeOrigin: number;
  /** Milliseconds that the worker looks for the next run before it sleeps. */
  readonly spin: number;
  /** Whether the host wants a message when a run has ended, because it cannot wait on a cell. */
  readonly posts: boolean;
}

export type SharedMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly message: string; readonly step: number };

/** One of several threads over a shared memory. It returns to its event loop when the session is closed: between runs it sleeps on the epoch cell. */
export const sharedWorker = (init: SharedInit, post: (message: SharedMessage) => void): void => {
  const { memory, thread, control: at, abi: names } = init;
  const cells = new Int32Array(memory.buffer);
  const imports = { [names.imports]: { [names.memory]: memory, [names.clock]: () => performance.timeOrigin + performance.now() - init.timeOrigin } };
  let run: (thread: number) => void;
  try {
    run = new WebAssembly.Instance(init.module, imports).exports[names.run] as (thread: number) => void;
  } catch (error) {
    post({ kind: 'failed', message: String(error), step: -1 });
    return;
  }
  post({ kind: 'ready' });
  for (let epoch = init.epoch; ; ) {
    for (const end = performance.now() + init.spin; Atomics.load(cells, at.epoch / 4) === epoch && performance.now() < end; );
    Atomics.wait(cells, at.epoch / 4, epoch);
    const now = Atomics.load(cells, at.epoch / 4);
    if (now === epoch) continue;
    epoch = now;
    // No threads: the session is closed.
    if (Atomics.load(cells, at.threads / 4) === 0) return;
    try {
      run(thread);
    } catch (error) {
      const step = Atomics.load(cells, at.step / 4);
      // Only the first failure is the cause; the others are threads that saw the flag.
      if (Atomics.compareExchange(cells, at.abort / 4, 0, thread + 1) === 0) post({ kind: 'failed', message: String(error), step });
      Atomics.add(cells, at.barrierGeneration / 4, 1);
      Atomics.notify(cells, at.barrierGeneration / 4);
    }
    const last = Atomics.add(cells, at.done / 4, 1) + 1 === Atomics.load(cells, at.threads / 4);
    if (last) {
      Atomics.add(cells, at.finished / 4, 1);
      Atomics.notify(cells, at.finished / 4);
      if (init.posts) post({ kind: 'done' });
    }
    Atomics.notify(cells, at.done / 4);
  }
};

export interface OwnedInit {
  readonly module: WebAssembly.Module;
  readonly pages: number;
  readonly control: typeof control;
  readonly abi: typeof abi;
}

export interface Patch {
  readonly address: number;
  readonly bytes: Uint8Array;
}
export interface Range {
  readonly address: number;
  readonly bytes: number;
}

export type OwnedRequest =
  | { readonly kind: 'write'; readonly patch: Patch }
  | { readonly kind: 'read'; readonly reads: readonly Range[] }
  | { readonly kind: 'run'; readonly writes: readonly Patch[]; readonly reads: readonly Range[] };
export type OwnedMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'written' }
  | { readonly kind: 'result'; readonly reads: readonly Uint8Array<ArrayBuffer>[] }
  | { readonly kind: 'failed'; readonly message: string; readonly step: number };

/** The one thread where memory cannot be shared: it owns the memory and exchanges bytes by messages. */
export const ownedWorker = (init: OwnedInit, post: (message: OwnedMessage) => void, listen: (receive: (request: OwnedRequest) => void) => void): void => {
  const { control: at, abi: names } = init;
  let memory: WebAssembly.Memory;
  let run: (thread: number) => void;
  try {
    memory = new WebAssembly.Memory({ initial: init.pages, maximum: init.pages });
    const imports = { [names.imports]: { [names.memory]: memory, [names.clock]: () => performance.now() } };
    run = new WebAssembly.Instance(init.module, imports).exports[names.run] as (thread: number) => void;
  } catch (error) {
    post({ kind: 'failed', message: String(error), step: -1 });
    return;
  }
  const bytes = new Uint8Array(memory.buffer);
  const cells = new Int32Array(memory.buffer);
  listen((request) => {
    if (request.kind === 'write') {
      bytes.set(request.patch.bytes, request.patch.address);
      post({ kind: 'written' });
      return;
    }
    if (request.kind === 'read') {
      post({ kind: 'result', reads: request.reads.map((r) => bytes.slice(r.address, r.address + r.bytes)) });
      return;
    }
    for (const w of request.writes) bytes.set(w.bytes, w.address);
    for (const cell of [at.barrierCount, at.chunk, at.abort, at.done, at.step]) cells[cell / 4] = 0;
    cells[at.threads / 4] = 1;
    try {
      run(0);
      post({ kind: 'result', reads: request.reads.map((r) => bytes.slice(r.address, r.address + r.bytes)) });
    } catch (error) {
      post({ kind: 'failed', message: String(error), step: cells[at.step / 4] ?? -1 });
    }
  });
  post({ kind: 'ready' });
};
