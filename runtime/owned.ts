/** One worker that owns its memory, for pages that are not cross-origin isolated: the page stays responsive, bytes travel by messages. */
import { abi, control } from './control.ts';
import type { Executor, Failure } from './executor.ts';
import { spawn } from './spawn.ts';
import { ownedWorker, type OwnedInit, type OwnedMessage, type OwnedRequest } from './worker.ts';

const chunkBytes = 1 << 24;

/** Starts the worker and waits until it has instantiated the module. */
export async function startOwned(module: WebAssembly.Module, pages: number, failure: Failure): Promise<Executor> {
  const worker = spawn<OwnedInit, OwnedRequest, OwnedMessage>(ownedWorker, { module, pages, control, abi });
  let pending: { resolve(message: OwnedMessage): void; reject(error: Error): void } | undefined;
  const answer = (): Promise<OwnedMessage> => new Promise((resolve, reject) => (pending = { resolve, reject }));
  worker.listen(
    (message) => (message.kind === 'failed' ? pending?.reject(failure(message.message, message.step)) : pending?.resolve(message)),
    (reason) => pending?.reject(failure(reason, -1)),
  );
  const ask = (request: OwnedRequest, transfer: ArrayBuffer[] = []): Promise<OwnedMessage> => {
    const reply = answer();
    worker.hold(true);
    worker.post(request, transfer);
    return reply.finally(() => worker.hold(false));
  };
  try {
    await answer();
  } catch (error) {
    await worker.terminate();
    throw error;
  }
  worker.hold(false);
  return {
    threads: 1,
    async fill(address, size, read) {
      for (let at = 0; at < size; at += chunkBytes) {
        const bytes = new Uint8Array(Math.min(chunkBytes, size - at));
        await read(at, bytes);
        await ask({ kind: 'write', patch: { address: address + at, bytes } }, [bytes.buffer]);
      }
    },
    async read(ranges) {
      const message = await ask({ kind: 'read', reads: ranges });
      return message.kind === 'result' ? message.reads : [];
    },
    async run(writes, reads) {
      // A view would be cloned with all of the buffer behind it.
      const copies = writes.map((w) => ({ address: w.address, bytes: w.bytes.slice() }));
      const message = await ask({ kind: 'run', writes: copies, reads }, copies.map((c) => c.bytes.buffer));
      return message.kind === 'result' ? [...message.reads] : [];
    },
    close: () => worker.terminate(),
  };
}
