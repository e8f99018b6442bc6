/** NumPy's .npz archives: a zip of .npy files, stored or deflated. */
import { InputError } from '../error.ts';
import { readNpy } from '../npy.ts';
import type { Tensor } from '../tensor.ts';
import { inflate } from './gzip.ts';

const endSignature = 0x06054b50;
const entrySignature = 0x02014b50;
const localSignature = 0x04034b50;

/** Decodes all arrays of an archive, by name without `.npy`; `name` is the file's, for messages. */
export async function readNpz(bytes: Uint8Array, name = 'npz'): Promise<Map<string, Tensor>> {
  const bad = (why: string): never => {
    throw new InputError(`${name} is not a .npz archive that can be read: ${why}`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = endOfDirectory(view);
  if (end === undefined) return bad('it has no zip directory at its end; the file may be cut off');
  const count = view.getUint16(end + 10, true);
  const arrays = new Map<string, Tensor>();
  for (let i = 0, at = view.getUint32(end + 16, true); i < count; i++) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== entrySignature) return bad(`entry ${i} of its directory is malformed`);
    const [method, packed, size] = [view.getUint16(at + 10, true), view.getUint32(at + 20, true), view.getUint32(at + 24, true)];
    const [nameLength, extra, comment, local] = [view.getUint16(at + 28, true), view.getUint16(at + 30, true), view.getUint16(at + 32, true), view.getUint32(at + 42, true)];
    const entry = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    if (packed === 0xffffffff || size === 0xffffffff) return bad(`${entry} is stored as zip64 with sizes above 4 GiB`);
    if (local + 30 > bytes.length || view.getUint32(local, true) !== localSignature) return bad(`${entry} lies outside the file`);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (start + packed > bytes.length) return bad(`${entry} ends at byte ${start + packed}, the file has ${bytes.length}`);
    if (method !== 0 && method !== 8) return bad(`${entry} is compressed by method ${method}; expected stored or deflated`);
    const raw = bytes.subarray(start, start + packed);
    const data = method === 0 ? raw : await inflate(raw, 'deflate-raw', `${name}: ${entry}`);
    if (data.length !== size) return bad(`${entry} has ${data.length} bytes, its directory says ${size}`);
    arrays.set(entry.replace(/\.npy$/, ''), readNpy(data, `${name}: ${entry}`));
    at += 46 + nameLength + extra + comment;
  }
  return arrays;
}

/** The end record stands last, before a comment of at most 65535 bytes. */
function endOfDirectory(view: DataView): number | undefined {
  for (let at = view.byteLength - 22; at >= Math.max(0, view.byteLength - 22 - 65535); at--) if (view.getUint32(at, true) === endSignature) return at;
  return undefined;
}
