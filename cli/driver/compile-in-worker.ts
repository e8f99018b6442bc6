/** Compiles in a worker thread, so that the calling thread's event loop stays free. */
import { existsSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { InternalError, Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { ArtifactObject } from '../../runtime/artifact.ts';
import type { CompileOptions } from './compile/options.ts';

/** What a compiling worker is given. */
export interface CompileRequest {
  readonly model: string | Uint8Array;
  readonly options: CompileOptions;
}

/** What it answers: the artifact, or what compile() threw. `feature`: of an Unsupported. */
export type CompileAnswer =
  | { readonly artifact: ArtifactObject }
  | { readonly error: { readonly user: boolean; readonly feature: string | undefined; readonly message: string; readonly stack: string | undefined } };

// As this file: TypeScript in the repository, JavaScript in the package.
const entry = new URL(`./compile-worker${extname(import.meta.url)}`, import.meta.url);

/** The last compilation that was asked for: one runs at a time, since each takes the memory of a whole model. */
let last: Promise<unknown> = Promise.resolve();

/** Compiles as compile() does, without its callbacks, in a worker thread; compilations that are asked for at once run one after another. Rejects with what compile() throws. */
export function compileInWorker(model: string | Uint8Array, options: CompileOptions): Promise<ArtifactObject> {
  const result = last.then(() => start(model, options));
  last = result.catch(() => {});
  return result;
}

/** Whether the worker's file is where it belongs; a bundle of an application may hold this file and not that one. */
export const workerExists = (): boolean => existsSync(fileURLToPath(entry));

function start(model: string | Uint8Array, options: CompileOptions): Promise<ArtifactObject> {
  const { onGraph: _, onProgress: __, ...data } = options;
  return new Promise((resolve, reject) => {
    // No flags of this process: a worker would refuse some of them, and needs none.
    const worker = new Worker(entry, { workerData: { model, options: data } satisfies CompileRequest, execArgv: [] });
    worker.on('message', (answer: CompileAnswer) => ('artifact' in answer ? resolve(answer.artifact) : reject(errorOf(answer.error))));
    worker.on('error', (e) => reject(new InternalError(`the thread that compiles failed: ${String(e)}`, { cause: e })));
    worker.on('exit', (code) => reject(new InternalError(`the thread that compiles ended with code ${code}`)));
  });
}

function errorOf({ user, feature, message, stack }: Extract<CompileAnswer, { error: unknown }>['error']): Error {
  if (user) return feature === undefined ? new UserError(message) : new Unsupported(feature, message);
  const error = new InternalError(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
