/** Writes an artifact's folder: all of it, or nothing. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, rmdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { UserError } from '../../ir/diagnostic.ts';
import { reason } from '../../runtime/bytes.ts';

/** Contents of the files of a folder, by name, in pieces. */
export type Files = Readonly<Record<string, readonly Uint8Array[]>>;

/** The model as ONNX, where training rewrote it. */
export const rewrittenFile = 'rewritten.onnx';
/** Of an artifact for tiles: the plan as JSON, and plan and graph as text. */
export const planFile = 'plan.json';
export const programFile = 'program.txt';

const ours = (file: string): boolean => ['manifest.json', 'weights.safetensors', 'model.js', 'model.d.ts', rewrittenFile, planFile, programFile, 'shaders', 'shaders.json', 'wasm'].includes(file) || file.endsWith('.wasm');

/**
 * Checks that an artifact may be written to a folder: it does not exist, is empty, or holds an artifact and nothing else, and the nearest folder above it
 * that exists takes new ones. Everything else is a UserError, so that no work of somebody is replaced, and nobody waits for a compilation in vain.
 */
export async function checkFolder(folder: string): Promise<void> {
  const target = resolve(folder);
  const found = await stat(target).catch(() => undefined);
  await probe(folder);
  if (!found) return;
  if (!found.isDirectory()) throw new UserError(`cannot write the artifact to ${folder}: it exists and is not a folder; choose another with -o`);
  const files = await readdir(target).catch((e: unknown) => {
    throw new UserError(`cannot write the artifact to ${folder}: ${reason(e)}`);
  });
  if (files.length === 0) return;
  const foreign = files.find((f) => !ours(f));
  if (foreign !== undefined) throw new UserError(`cannot write the artifact to ${folder}: it exists and holds other files (${foreign}); choose an empty folder with -o`);
  const manifest = await readFile(join(target, 'manifest.json'), 'utf8').catch(() => '');
  if (!/"format":\s*"tilewright"/.test(manifest)) throw new UserError(`cannot write the artifact to ${folder}: it exists and is not an artifact of tilewright; choose an empty folder with -o`);
}

/** Makes and removes a folder in the nearest one above the target that exists, where its files would go first. */
async function probe(folder: string): Promise<void> {
  const target = resolve(folder);
  let above = dirname(target);
  while (above !== dirname(above) && !statSync(above, { throwIfNoEntry: false })) above = dirname(above);
  try {
    await rmdir(await mkdtemp(join(above, `.${basename(target)}.probe-`)));
  } catch (e) {
    throw refusal(folder, above, e);
  }
}

/** The UserError for a folder that cannot be written; `above` is where it was tried. */
function refusal(folder: string, above: string, e: unknown): UserError {
  const refused = (e as { code?: unknown }).code === 'ENOENT';
  return new UserError(`cannot write the artifact to ${folder}: ${refused ? `${above} takes no new folder; choose another with -o` : reason(e)}`);
}

/** Writes all files to a new folder beside the target, makes them durable, then puts that folder in the target's place. */
export async function writeFolder(folder: string, files: Files): Promise<void> {
  await checkFolder(folder);
  const target = resolve(folder);
  const mark = randomBytes(6).toString('hex');
  const beside = (kind: string): string => join(dirname(target), `.${basename(target)}.${kind}-${mark}`);
  const fresh = beside('new');
  const old = beside('old');
  let made: string | undefined;
  try {
    made = makeFolders(dirname(target));
    await mkdir(fresh);
    const folders = new Set(Object.keys(files).map((file) => dirname(join(fresh, file))));
    for (const f of folders) if (f !== fresh) await mkdir(f);
    for (const [file, chunks] of Object.entries(files)) await writeDurably(join(fresh, file), chunks);
    for (const f of folders) await syncFolder(f);
    const existed = await rename(target, old).then(() => true, (e: unknown) => {
      if ((e as { code?: unknown }).code === 'ENOENT') return false;
      throw e;
    });
    try {
      await rename(fresh, target);
    } catch (e) {
      if (existed) await rename(old, target);
      throw e;
    }
    await syncFolder(dirname(target));
  } catch (e) {
    await rm(made ?? fresh, { recursive: true, force: true }).catch(() => {});
    throw refusal(folder, dirname(target), e);
  }
  await rm(old, { recursive: true, force: true });
}

/**
 * Makes a folder and those above it that are missing; returns the topmost one it made. (mkdir's own `recursive` never ends where a file system refuses
 * a folder by saying that it does not exist, as /proc does.)
 */
export function makeFolders(path: string): string | undefined {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return undefined;
  const above = makeFolders(dirname(resolve(path)));
  try {
    mkdirSync(path);
  } catch (e) {
    if (above !== undefined) rmSync(above, { recursive: true });
    throw e;
  }
  return above ?? path;
}

async function writeDurably(path: string, chunks: readonly Uint8Array[]): Promise<void> {
  const file = await open(path, 'wx');
  try {
    await file.writeFile(chunks);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Makes a folder's entries durable. Not every system can open a folder; the files themselves are safe then. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r').catch(() => undefined);
  await handle?.sync().catch(() => {});
  await handle?.close();
}
