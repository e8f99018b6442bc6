/** Starts a function in another thread, in Node and in browsers, without a file of its own, so that bundles and packages need no second entry. */
import type * as NodeWorkers from 'node:worker_threads';
import { RunError } from './error.ts';

/** A running worker. */
export interface Thread<In, Out> {
  post(message: In, transfer?: ArrayBuffer[]): void;
  /** Receives messages; `lost` is called if the worker ends by itself (out of memory, killed). */
  listen(receive: (message: Out) => void, lost: (reason: string) => void): void;
  /** Whether this worker keeps the process alive (Node). New workers do. */
  hold(alive: boolean): void;
  terminate(): Promise<void>;
}

export type Body<Init, In, Out> = (init: Init, post: (message: Out) => void, listen: (receive: (message: In) => void) => void) => void;

/** Starts `body` with `init`, which is cloned (shared memory and modules are shared). `body` must not refer to anything but its parameters. */
export function spawn<Init, In, Out>(body: Body<Init, In, Out>, init: Init): Thread<In, Out> {
  const threads = globalThis.process?.getBuiltinModule?.('node:worker_threads');
  return threads ? spawnNode(threads, body, init) : spawnWeb(body, init);
}

/** The text of a Node worker that runs `body`, to be evaluated with its init as workerData. */
export function codeOf<Init, In, Out>(body: Body<Init, In, Out>): string {
  return `const { parentPort, workerData } = require('node:worker_threads');
(${body.toString()})(workerData, (m) => parentPort.postMessage(m), (receive) => parentPort.on('message', receive));`;
}

function spawnNode<Init, In, Out>(threads: typeof NodeWorkers, body: Body<Init, In, Out>, init: Init): Thread<In, Out> {
  // No flags of this process: a worker would refuse some of them, and needs none.
  const worker = new threads.Worker(codeOf(body), { eval: true, workerData: init, execArgv: [] });
  let closing = false;
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    listen(receive, lost) {
      worker.on('message', receive);
      worker.on('error', (e: unknown) => lost(String(e)));
      worker.on('exit', (code) => {
        if (!closing) lost(`a worker thread ended with code ${code}`);
      });
    },
    hold: (alive) => (alive ? worker.ref() : worker.unref()),
    async terminate() {
      closing = true;
      await worker.terminate();
    },
  };
}

/** An error without a message: the worker's code did not even load. */
const blocked = 'the browser did not start a worker; where the page has a content security policy, it must allow worker-src blob:';

function spawnWeb<Init, In, Out>(body: Body<Init, In, Out>, init: Init): Thread<In, Out> {
  const code = `'use strict';
addEventListener('message', (first) => (${body.toString()})(first.data, (m) => postMessage(m), (receive) => addEventListener('message', (e) => receive(e.data))), { once: true });`;
  const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  let worker: Worker;
  try {
    worker = new Worker(url);
  } catch (error) {
    throw new RunError(`${blocked} (${String(error)})`);
  }
  worker.postMessage(init);
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    listen(receive, lost) {
      worker.addEventListener('message', (e: MessageEvent<Out>) => receive(e.data));
      worker.addEventListener('error', (e) => lost(e.message || blocked));
    },
    hold() {},
    async terminate() {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
}
