/** NumPy's .npy format, versions 1 to 3, little-endian and row-major. */
import { InputError } from './error.ts';
import type { DTypeName } from './manifest.ts';
import { byteLength, bytesOf, tensorFromBytes, type Tensor } from './tensor.ts';

const codes: Readonly<Record<string, DTypeName>> = {
  f8: 'f64', f4: 'f32', f2: 'f16', i8: 'i64', i4: 'i32', i2: 'i16', i1: 'i8', u8: 'u64', u4: 'u32', u2: 'u16', u1: 'u8', b1: 'bool',
};
const codeOf: Readonly<Partial<Record<DTypeName, string>>> = {
  ...Object.fromEntries(Object.entries(codes).map(([code, dtype]) => [dtype, code])),
  // Types that numpy lacks are written as the integers that hold them.
  bf16: 'u2', f8e4m3fn: 'u1', f8e4m3fnuz: 'u1', f8e5m2: 'u1', f8e5m2fnuz: 'u1', f8e8m0: 'u1', f4e2m1: 'u1', i4: 'i1', i2: 'i1', u4: 'u1', u2: 'u1',
};
const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/** Decodes a .npy file; `name` is the file's, for messages. Big-endian and column-major files are refused. */
export function readNpy(bytes: Uint8Array, name = 'npy'): Tensor {
  const bad = (why: string): never => {
    throw new InputError(`${name} is not a .npy file that can be read: ${why}`);
  };
  if (bytes.length < 10 || magic.some((b, i) => bytes[i] !== b)) return bad('it does not start with the .npy signature');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[6]! >= 2;
  if (bytes[6]! < 1 || bytes[6]! > 3 || bytes.length < 12) return bad(`version ${bytes[6]} is unknown`);
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  if (start + length > bytes.length) return bad(`the header claims ${length} bytes, the file has ${bytes.length}`);
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const dims = /'shape'\s*:\s*\(([^)]*)\)/.exec(header)?.[1];
  if (descr === undefined || order === undefined || dims === undefined) return bad('the header lacks descr, fortran_order or shape');
  if (descr.startsWith('>')) return bad(`it is big-endian (${descr}); save it with astype("<${descr.slice(1)}")`);
  const dtype = codes[descr.slice(1)];
  if (dtype === undefined) return bad(`its dtype ${descr} is not supported; supported are ${Object.keys(codes).join(', ')}`);
  const shape = dims.split(',').map((d) => d.trim()).filter((d) => d !== '').map(Number);
  if (!shape.every((d) => Number.isSafeInteger(d) && d >= 0)) return bad(`its shape (${dims}) is malformed`);
  const data = bytes.subarray(start + length);
  if (data.length !== byteLength({ dtype, shape })) return bad(`it has ${data.length} bytes of data, its shape ${dtype}[${shape.join(',')}] needs ${byteLength({ dtype, shape })}`);
  if (order === 'True' && shape.length > 1) return bad('it is in column-major (Fortran) order; save it with numpy.ascontiguousarray');
  return tensorFromBytes({ dtype, shape }, data);
}

/** Encodes a tensor as .npy, version 1, row-major. */
export function writeNpy(tensor: Tensor): Uint8Array {
  const code = codeOf[tensor.dtype]!;
  const descr = `${code.endsWith('1') ? '|' : '<'}${code}`;
  const shape = tensor.shape.length === 1 ? `(${tensor.shape[0]},)` : `(${tensor.shape.join(', ')})`;
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${shape}, }`;
  const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
  const out = new Uint8Array(10 + length + tensor.data.byteLength);
  out.set([...magic, 1, 0]);
  new DataView(out.buffer).setUint16(8, length, true);
  out.set(new TextEncoder().encode(`${text.padEnd(length - 1)}\n`), 10);
  out.set(bytesOf(tensor.data), 10 + length);
  return out;
}
