/** Tensor data of every element type, raw and in typed fields. The bytes are written out by hand from the formats' definitions. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join as path } from 'node:path';
import { expect, test } from 'vitest';
import { dataTypeNumber } from '../frontend/onnx/data-type.ts';
import { readModelFile } from '../frontend/onnx/external.ts';
import type { TensorProto } from '../frontend/onnx/proto.ts';
import { readSparse, readTensor } from '../frontend/onnx/tensor.ts';
import type { DType } from '../ir/type.ts';
import { floats, int64s } from './onnx-encode.ts';

type TypedField = Pick<TensorProto, 'floatData' | 'doubleData' | 'int32Data' | 'int64Data' | 'uint64Data'>;

/** An element type; raw bytes; the same in its typed field; the elements as the compiler holds them. */
const rows: readonly [DType, readonly number[], TypedField, readonly (number | bigint)[]][] = [
  ['f32', [0, 0, 128, 63, 0, 0, 0, 192], { floatData: [1, -2] }, [1, -2]],
  ['f64', [0, 0, 0, 0, 0, 0, 240, 63], { doubleData: [1] }, [1]],
  ['f16', [0x00, 0x3c, 0x00, 0xc0], { int32Data: [0x3c00, 0xc000] }, [0x3c00, 0xc000]],
  ['bf16', [0x80, 0x3f], { int32Data: [0x3f80] }, [0x3f80]],
  ['f8e4m3fn', [0x38, 0xff], { int32Data: [0x38, 0xff] }, [0x38, 0xff]],
  ['f8e4m3fnuz', [0x80], { int32Data: [0x80] }, [0x80]],
  ['f8e5m2', [0x3c], { int32Data: [0x3c] }, [0x3c]],
  ['f8e5m2fnuz', [0x40], { int32Data: [0x40] }, [0x40]],
  ['f8e8m0', [127], { int32Data: [127] }, [127]],
  ['f4e2m1', [0x2f, 0x07], { int32Data: [0x2f, 0x07] }, [0xf, 0x2, 0x7]],
  ['i64', [254, 255, 255, 255, 255, 255, 255, 255], { int64Data: [-2] }, [-2n]],
  ['i32', [254, 255, 255, 255], { int32Data: [-2] }, [-2]],
  ['i16', [254, 255, 1, 0], { int32Data: [-2, 1] }, [-2, 1]],
  ['i8', [254, 127], { int32Data: [-2, 127] }, [-2, 127]],
  ['i4', [0x7f, 0x08], { int32Data: [0x7f, 0x08] }, [-1, 7, -8]],
  ['i2', [0b11_10_01_00, 0b01], { int32Data: [0b11_10_01_00, 0b01] }, [0, 1, -2, -1, 1]],
  ['u64', [255, 255, 255, 255, 255, 255, 255, 255], {}, [2n ** 64n - 1n]],
  ['u32', [255, 255, 255, 255], { uint64Data: [2 ** 32 - 1] }, [2 ** 32 - 1]],
  ['u16', [255, 255], { int32Data: [65535] }, [65535]],
  ['u8', [0, 200], { int32Data: [0, 200] }, [0, 200]],
  ['u4', [0x7f, 0x08], { int32Data: [0x7f, 0x08] }, [15, 7, 8]],
  ['u2', [0b11_10_01_00, 0b01], { int32Data: [0b11_10_01_00, 0b01] }, [0, 1, 2, 3, 1]],
  ['bool', [0, 1, 5], { int32Data: [0, 1, 5] }, [0, 1, 1]],
];

test.each(rows)('%s', (dtype, bytes, typed, want) => {
  const head: TensorProto = { dataType: dataTypeNumber(dtype), dims: [want.length] };
  const fields: TensorProto[] = [{ ...head, rawData: Uint8Array.from(bytes) }];
  if (Object.keys(typed).length > 0) fields.push({ ...head, ...typed });
  for (const proto of fields) {
    const t = readTensor(proto, 'tensor', undefined);
    if ('kind' in t) throw new Error('strings');
    expect([t.dtype, t.shape, Array.from<number | bigint>(t.data)]).toEqual([dtype, [want.length], want]);
  }
});

test('all element types are covered above', () => {
  expect(new Set(rows.map(([dtype]) => dataTypeNumber(dtype)))).toEqual(new Set([1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26]));
});

test('raw data at an odd offset is copied to an aligned place', () => {
  const bytes = Uint8Array.from([99, 0, 0, 128, 63]).subarray(1);
  expect(readTensor({ dataType: 1, dims: [1], rawData: bytes }, 'tensor', undefined)).toEqual({ dtype: 'f32', shape: [1], data: Float32Array.of(1) });
});

test('a scalar has no dims and one element; an empty tensor has no data', () => {
  expect(readTensor({ dataType: 1, floatData: [3] }, 'tensor', undefined)).toEqual({ dtype: 'f32', shape: [], data: Float32Array.of(3) });
  expect(readTensor({ dataType: 1, dims: [0, 4] }, 'tensor', undefined)).toEqual({ dtype: 'f32', shape: [0, 4], data: new Float32Array() });
});

test('strings are kept for compile time', () => {
  const t = readTensor({ dataType: 8, dims: [2], stringData: [new TextEncoder().encode('a'), new TextEncoder().encode('é')] }, 'tensor', undefined);
  expect(t).toEqual({ kind: 'strings', shape: [2], data: ['a', 'é'] });
});

test('sparse tensors become dense, from linear indices and from coordinates', () => {
  const values = floats('v', [2], [5, 6]);
  const want = { dtype: 'f32', shape: [2, 3], data: Float32Array.of(0, 5, 0, 0, 0, 6) };
  expect(readSparse({ dims: [2, 3], values, indices: int64s('i', [2], [1, 5]) }, 'sparse', undefined)).toEqual(want);
  expect(readSparse({ dims: [2, 3], values, indices: int64s('i', [2, 2], [0, 1, 1, 2]) }, 'sparse', undefined)).toEqual(want);
  expect(() => readSparse({ dims: [2, 3], values, indices: int64s('i', [2], [1, 6]) }, 'sparse', undefined)).toThrow(/index 6 is outside 0\.\.5/);
});

test('model files above 3.5 GiB are refused by name before they are read', () => {
  const folder = mkdtempSync(path(tmpdir(), 'large-'));
  const file = path(folder, 'large.onnx');
  // A hole: it takes no room on the disk.
  const fd = openSync(file, 'w');
  writeSync(fd, Uint8Array.of(8, 8));
  ftruncateSync(fd, 4 * 2 ** 30);
  closeSync(fd);
  try {
    expect(() => readModelFile(file)).toThrow(/large\.onnx is 4\.00 GiB; models of up to 3\.5 GiB can be compiled/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
