/** Compressed bytes, unpacked with what browsers and Node have built in. */
import { InputError } from '../error.ts';

/** Whether bytes start as a gzip file does. */
export const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b;

/** Unpacks gzip, or the bare deflate stream of a zip archive; damaged or cut-off data is an InputError that names the file. */
export async function inflate(bytes: Uint8Array, format: 'gzip' | 'deflate-raw', name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream(format));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (e) {
    throw new InputError(`${name} cannot be unpacked: its compressed data is damaged or cut off (${e instanceof Error && e.message !== '' ? e.message : String(e)})`);
  }
}
