/** The idx format of MNIST and its relatives: a type, the dimensions, then big-endian elements. */
import { InputError } from '../error.ts';
import type { DTypeName } from '../manifest.ts';
import { byteLength, describe, dtypeFacts, tensorOver, type Tensor } from '../tensor.ts';

const types: Readonly<Record<number, DTypeName>> = { 0x08: 'u8', 0x09: 'i8', 0x0b: 'i16', 0x0c: 'i32', 0x0d: 'f32', 0x0e: 'f64' };

/** Decodes an idx file that is not compressed; `name` is the file's, for messages. */
export function readIdx(bytes: Uint8Array, name = 'idx'): Tensor {
  const bad = (why: string): never => {
    throw new InputError(`${name} is not an idx file that can be read: ${why}`);
  };
  if (bytes.length < 4 || bytes[0] !== 0 || bytes[1] !== 0) return bad('it does not start with two zero bytes');
  const dtype = types[bytes[2]!];
  const rank = bytes[3]!;
  if (dtype === undefined) return bad(`its element type ${bytes[2]} is unknown`);
  const start = 4 + 4 * rank;
  if (bytes.length < start) return bad(`its header takes ${start} bytes, the file has ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const info = { dtype, shape };
  if (bytes.length - start !== byteLength(info)) return bad(`its header says ${describe(info)}, which takes ${byteLength(info)} bytes, but ${bytes.length - start} follow: the file is ${bytes.length - start < byteLength(info) ? 'cut off' : 'too long'}`);
  const data = new Uint8Array(bytes.subarray(start));
  const { bytes: width } = dtypeFacts[dtype];
  if (width > 1) for (let i = 0; i < data.length; i += width) data.subarray(i, i + width).reverse();
  return tensorOver(info, data);
}
