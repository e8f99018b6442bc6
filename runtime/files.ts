/** Files of a Node process, written so that a crash leaves the old contents or the new, never a part. */
import type * as NodeFs from 'node:fs';
import type * as NodePath from 'node:path';
import { writeReason } from './bytes.ts';
import { InputError } from './error.ts';

/** Node's modules, asked for at run time so that bundles for browsers need no stand-in; an InputError where there is no file system. */
export function nodeFiles(what: string): { readonly fs: typeof NodeFs.promises; readonly path: typeof NodePath } {
  const fs = globalThis.process?.getBuiltinModule?.('node:fs');
  const path = globalThis.process?.getBuiltinModule?.('node:path');
  if (!fs || !path) throw new InputError(`${what} needs a file system, and there is none here`);
  return { fs: fs.promises, path };
}

/** The name of a file that is being written; what a crash leaves under it may be deleted. */
export const temporaryName = (path: string): string => `${path}.part-${globalThis.process.pid}`;

/** Writes a file under a temporary name, makes it durable, and puts it in place. Failures are InputErrors that say why, and leave what was there. */
export async function writeAtomically(path: string, chunks: readonly Uint8Array[]): Promise<void> {
  const node = nodeFiles(`writing ${path}`);
  const part = temporaryName(path);
  try {
    const file = await node.fs.open(part, 'w');
    try {
      for (const chunk of chunks) await file.writeFile(chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await node.fs.rename(part, path);
    await syncFolder(node.path.dirname(path), node.fs);
  } catch (e) {
    await node.fs.rm(part, { force: true }).catch(() => {});
    throw new InputError(`cannot write ${path}: ${writeReason(e)}`);
  }
}

/** Makes a folder's entries durable. Not every system can open a folder; the files themselves are safe then. */
async function syncFolder(folder: string, fs: typeof NodeFs.promises): Promise<void> {
  const handle = await fs.open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
