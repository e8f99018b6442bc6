/** Random access to bytes that lie in a file, behind a URL or in memory, read straight to where they are wanted. */
import type * as NodeFs from 'node:fs';
import { InputError } from './error.ts';

/** Reads that go forward; a read past the end is an InputError. */
export interface ByteSource {
  /** For messages. */
  readonly name: string;
  /** Bytes in all, where known in advance. */
  readonly size: number | undefined;
  /** Fills `into` with the bytes at `offset`. Over a network, offsets must not go back. */
  read(offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Node's file system, or undefined in a browser. Asked for at run time so that bundles for browsers need no stand-in for node:fs. */
const nodeFs = (): typeof NodeFs | undefined => globalThis.process?.getBuiltinModule?.('node:fs');

export function memorySource(bytes: Uint8Array, name = 'weights'): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    async read(offset, into) {
      if (offset + into.byteLength > bytes.byteLength) throw short(name, offset + into.byteLength, bytes.byteLength);
      into.set(bytes.subarray(offset, offset + into.byteLength));
    },
    async close() {},
  };
}

/** Bytes in pieces that follow each other, read without joining them. */
export function chunkSource(chunks: readonly Uint8Array[], name: string): ByteSource {
  const starts: number[] = [];
  let size = 0;
  for (const c of chunks) {
    starts.push(size);
    size += c.byteLength;
  }
  return {
    name,
    size,
    async read(offset, into) {
      if (offset + into.byteLength > size) throw short(name, offset + into.byteLength, size);
      let piece = starts.findLastIndex((s) => s <= offset);
      for (let at = 0; at < into.byteLength; piece++) {
        const from = offset + at - starts[piece]!;
        const part = chunks[piece]!.subarray(from, from + into.byteLength - at);
        into.set(part, at);
        at += part.byteLength;
      }
    },
    async close() {},
  };
}

export async function fileSource(path: string): Promise<ByteSource> {
  const fs = nodeFs();
  if (!fs) throw new InputError(`cannot read ${path}: no file system here; pass a URL`);
  const file = await fs.promises.open(path).catch((e: unknown) => {
    throw new InputError(`cannot read ${path}: ${reason(e)}`);
  });
  const { size } = await file.stat();
  return {
    name: path,
    size,
    async read(offset, into) {
      for (let at = 0; at < into.byteLength;) {
        const { bytesRead } = await file.read(into, at, Math.min(into.byteLength - at, 1 << 26), offset + at);
        if (bytesRead === 0) throw short(path, offset + into.byteLength, size);
        at += bytesRead;
      }
    },
    close: () => file.close(),
  };
}

export async function urlSource(url: URL): Promise<ByteSource> {
  const response = await fetch(url).catch((e: unknown) => {
    throw new InputError(`cannot fetch ${url.href}: ${reason(e)}`);
  });
  if (!response.ok || !response.body) throw new InputError(`cannot fetch ${url.href}: HTTP status ${response.status}`);
  const reader = response.body.getReader();
  // `chunk` holds the bytes from `start` on.
  let chunk = new Uint8Array(0);
  let start = 0;
  return {
    name: url.href,
    size: undefined,
    async read(offset, into) {
      if (offset < start) throw new InputError(`${url.href} can only be read forward`);
      for (let at = 0; at < into.byteLength;) {
        const want = offset + at;
        if (want >= start + chunk.byteLength) {
          start += chunk.byteLength;
          const { value, done } = await reader.read().catch((e: unknown) => {
            throw new InputError(`cannot fetch ${url.href}: the connection failed after ${start} bytes: ${reason(e)}`);
          });
          if (done) throw short(url.href, offset + into.byteLength, start);
          chunk = value;
          continue;
        }
        const part = chunk.subarray(want - start, want - start + into.byteLength - at);
        into.set(part, at);
        at += part.byteLength;
      }
    },
    // A stream that has failed refuses to be cancelled.
    close: () => reader.cancel().catch(() => {}),
  };
}

/** All bytes of a source of known or unknown size. */
export async function readAll(from: string | URL): Promise<Uint8Array> {
  if (from instanceof URL && from.protocol !== 'file:') {
    const response = await fetch(from).catch((e: unknown) => {
      throw new InputError(`cannot fetch ${from.href}: ${reason(e)}`);
    });
    if (!response.ok) throw new InputError(`cannot fetch ${from.href}: HTTP status ${response.status}`);
    return new Uint8Array(await response.arrayBuffer().catch((e: unknown) => {
      throw new InputError(`cannot fetch ${from.href}: ${reason(e)}`);
    }));
  }
  const fs = nodeFs();
  if (!fs) throw new InputError(`cannot read ${String(from)}: no file system here; pass a URL`);
  return fs.promises.readFile(from).catch((e: unknown) => {
    throw new InputError(`cannot read ${String(from)}: ${reason(e)}`);
  });
}

const short = (name: string, want: number, have: number): InputError => new InputError(`${name} ends after ${have} bytes, expected at least ${want}`);

/** What went wrong, for a message: the system's code in words where there is one. */
export function reason(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  if (code === 'ENOENT') return 'it does not exist';
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied';
  if (code === 'EISDIR') return 'it is a folder';
  if (code === 'ENOTDIR' || code === 'EEXIST') return 'a part of the path is not a folder';
  if (code === 'ENOSPC') return 'the disk is full';
  if (code === 'EROFS') return 'the file system is read-only';
  return error instanceof Error ? error.message : String(error);
}

/** The same for a file that could not be written: what does not exist is its folder. */
export const writeReason = (error: unknown): string => ((error as { code?: unknown } | null)?.code === 'ENOENT' ? 'its folder does not exist' : reason(error));
