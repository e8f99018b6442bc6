/** Files of a model: the model itself, and tensor data stored beside it. Nothing outside the model's folder is ever opened. */
import { closeSync, fstatSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { isAbsolute, join, relative, sep } from 'node:path';
import { Unsupported, UserError } from '../../ir/diagnostic.ts';

/** Largest model file: protobuf lengths are 32 bits and a module's memory is 4 GiB. */
export const maxFileBytes = 3.5 * 2 ** 30;
/** One read call takes at most 2 GiB. */
const piece = 2 ** 30;

/** Reads a whole model file of up to 3.5 GiB. */
export function readModelFile(path: string): Uint8Array {
  return withFile(path, path, (fd, size) => {
    if (size > maxFileBytes) throw new Unsupported('models above 3.5 GiB', `${path} is ${(size / 2 ** 30).toFixed(2)} GiB; models of up to 3.5 GiB can be compiled`);
    return readRange(fd, 0, size, path);
  });
}

/**
 * Reads the bytes that a tensor's external_data entries name. The location must be a relative path whose real place, links resolved, lies in
 * the model's folder; offset and length must fit the file and the tensor's size in bytes.
 */
export function readExternal(entries: readonly { readonly key?: string | null; readonly value?: string | null }[], bytes: number, what: string, folder: string | undefined): Uint8Array {
  const fields = new Map(entries.map((e) => [e.key ?? '', e.value ?? '']));
  const location = fields.get('location') ?? '';
  const fail = (why: string): never => {
    throw new UserError(`${what} is stored outside the model, at "${location}": ${why}`);
  };
  if (location === '') fail('external_data has no location');
  if (folder === undefined) fail('the model was given as bytes; give the path of its file, so that its folder is known');
  if (isAbsolute(location) || /^[A-Za-z]:|^[\\/]/.test(location)) fail("an absolute path is refused; external data must lie in the model's folder");
  if (location.split(/[\\/]/).includes('..')) fail("a path with .. is refused; external data must lie in the model's folder");
  const path = join(folder!, location);
  let real = '';
  try {
    real = realpathSync(path);
  } catch {
    fail(`there is no such file in the model's folder (${folder})`);
  }
  const inside = relative(realpathSync(folder!), real);
  if (inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)) fail(`it is a link that leaves the model's folder (to ${real}), which is refused`);

  const offset = count(fields.get('offset'), 0);
  const length = count(fields.get('length'), undefined);
  if (offset === 'bad' || length === 'bad') fail(`offset "${fields.get('offset') ?? ''}" and length "${fields.get('length') ?? ''}" must be whole numbers of bytes`);
  return withFile(real, `${what}: ${path}`, (fd, size) => {
    const from = offset as number;
    const long = (length as number | undefined) ?? size - from;
    if (from + Math.max(0, long) > size || from > size) fail(`bytes ${from} to ${from + long} are asked for, but the file has ${size}`);
    if (long !== bytes) fail(`the tensor takes ${bytes} bytes, but ${long} are stored`);
    return readRange(fd, from, long, path);
  });
}

function count(text: string | undefined, otherwise: number | undefined): number | undefined | 'bad' {
  if (text === undefined) return otherwise;
  const n = Number(text);
  return /^\d+$/.test(text) && Number.isSafeInteger(n) ? n : 'bad';
}

function withFile<T>(path: string, what: string, use: (fd: number, size: number) => T): T {
  let fd: number;
  try {
    // Asked before opening: opening a pipe would wait for its writer.
    const stat = statSync(path);
    if (!stat.isFile()) throw new UserError(`${what} is ${stat.isDirectory() ? 'a folder' : 'not a regular file'}, not a file`);
    fd = openSync(path, 'r');
  } catch (e) {
    if (e instanceof UserError) throw e;
    const code = (e as NodeJS.ErrnoException).code;
    throw new UserError(`${what}: ${code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'the file may not be read (permission denied)' : `the file cannot be opened (${code ?? String(e)})`}`);
  }
  try {
    return use(fd, fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}

function readRange(fd: number, offset: number, length: number, what: string): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const n = readSync(fd, bytes, at, Math.min(piece, length - at), offset + at);
    if (n === 0) throw new UserError(`${what} ended after ${offset + at} bytes while it was read`);
    at += n;
  }
  return bytes;
}
