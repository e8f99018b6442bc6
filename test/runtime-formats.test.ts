import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { afterAll, describe, expect, test } from 'vitest';
import { pictureShape, pictureTensor, readPicture, resize, type ImageOptions, type Picture } from '../cli/image.ts';
import { decodeFloat } from '../ir/number.ts';
import { hasRelaxedSimd, hasSimd, noThreads } from '../runtime/features.ts';
import { inputBytes, tensorOf } from '../runtime/inputs.ts';
import { readNpy, readSafetensors, writeNpy, writeSafetensors, type DTypeName, type Tensor } from '../runtime/index.ts';
import { dtypeFacts, toBFloat16, toFloat16 } from '../runtime/tensor.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-formats-'));
afterAll(() => rmSync(folder, { recursive: true }));
const python = hasNumpy();

function hasNumpy(): boolean {
  try {
    execFileSync('python3', ['-c', 'import numpy'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** One tensor of every dtype, values that tell bytes and order apart. */
const samples: Tensor[] = (Object.keys(dtypeFacts) as DTypeName[]).map((dtype) => {
  const data = new dtypeFacts[dtype].array(6);
  for (let i = 0; i < 6; i++) data[i] = (data instanceof BigInt64Array || data instanceof BigUint64Array ? BigInt(i * 3 + 1) : dtype === 'bool' ? i % 2 : i + 1);
  return { dtype, shape: [2, 3], data };
});

describe('.npy', () => {
  test('bytes are those of the format, version 1', () => {
    const bytes = writeNpy({ dtype: 'f32', shape: [2], data: Float32Array.of(1, -2) });
    const header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
    expect(Buffer.from(bytes).toString('latin1')).toBe(`\x93NUMPY\x01\x00\x76\x00${header}${' '.repeat(118 - header.length - 1)}\n\x00\x00\x80\x3f\x00\x00\x00\xc0`);
  });
  test.each(['f64', 'f32', 'f16', 'i64', 'i32', 'i16', 'i8', 'u64', 'u32', 'u16', 'u8', 'bool'] as const)('%s comes back as it was', (dtype) => {
    const t = samples.find((s) => s.dtype === dtype)!;
    expect(readNpy(writeNpy(t))).toEqual(t);
    const scalar = { ...t, shape: [], data: t.data.slice(0, 1) };
    expect(readNpy(writeNpy(scalar))).toEqual(scalar);
  });
  test.skipIf(!python)('is what numpy reads and writes (skipped where python3 has no numpy)', () => {
    writeFileSync(join(folder, 'a.npy'), writeNpy({ dtype: 'i16', shape: [2, 2], data: Int16Array.of(1, -2, 3, 400) }));
    execFileSync('python3', ['-c', 'import numpy, sys; a = numpy.load(sys.argv[1]); assert a.dtype == numpy.int16; numpy.save(sys.argv[2], a.astype(numpy.float64) * 2)', join(folder, 'a.npy'), join(folder, 'b.npy')]);
    expect(readNpy(readFileSync(join(folder, 'b.npy')))).toEqual({ dtype: 'f64', shape: [2, 2], data: Float64Array.of(2, -4, 6, 800) });
  });
});

describe('safetensors', () => {
  test('bytes are those of the format', () => {
    const bytes = writeSafetensors([{ name: 'a', dtype: 'u8', shape: [3], data: Uint8Array.of(7, 8, 9) }]);
    const header = '{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}';
    expect(Buffer.from(bytes).toString('latin1')).toBe(`${String.fromCharCode(56)}\0\0\0\0\0\0\0${header.padEnd(56)}\x07\x08\x09`);
  });
  test('tensors come back as they were, aligned, whatever their order', async () => {
    const named = samples.map((t) => ({ ...t, name: `t.${t.dtype}` }));
    const read = await readSafetensors(writeSafetensors(named));
    for (const t of named) expect(read.get(t.name)!.data).toEqual(t.data);
    expect(read.get('t.bf16')).toMatchObject({ dtype: 'bf16', shape: [2, 3] });
  });
  const with64 = (header: string, data = ''): Uint8Array => {
    const bytes = Buffer.from(`\0\0\0\0\0\0\0\0${header}${data}`, 'latin1');
    bytes.writeBigUInt64LE(BigInt(header.length));
    return bytes;
  };
  test.each<[string, Uint8Array, string]>([
    ['too short', new Uint8Array(4), 'it has 4 bytes'],
    ['a header beyond the end', Uint8Array.of(255, 0, 0, 0, 0, 0, 0, 0, 1), 'the header claims 255 bytes'],
    ['no JSON', with64('hello'), 'not a JSON object'],
    ['an unknown dtype', with64('{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', '12345678'), 'tensor "a" has the unknown dtype "C64"'],
    ['a size that differs from the shape', with64('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', '12345678'), 'tensor "a" has 8 bytes, its shape f32[3] needs 12'],
    ['data beyond the end', with64('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', '1234'), 'tensor "a" ends at byte'],
    ['a negative offset', with64('{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}', '1234'), 'malformed shape or offsets'],
  ])('%s is refused', async (_, bytes, message) => {
    await expect(readSafetensors(bytes, 'w.safetensors')).rejects.toThrow(message);
  });
});

describe('numbers become elements', () => {
  test('halves and bfloat16 are rounded to the nearest, ties to even', () => {
    // Every half is itself; a point between two neighbours goes to the nearer, and the middle to the even one.
    for (let bits = 0; bits < 0x7c00; bits++) {
      const x = decodeFloat('f16', bits);
      const next = decodeFloat('f16', bits + 1);
      if (toFloat16(x) !== bits || toFloat16(-x) !== (bits | 0x8000)) throw new Error(`f16 ${bits}`);
      if (bits === 0x7bff) continue;
      const middle = (x + next) / 2;
      if (toFloat16(middle) !== bits + (bits & 1) || toFloat16(middle + (next - x) / 8) !== bits + 1 || toFloat16(middle - (next - x) / 8) !== bits) throw new Error(`f16 after ${bits}`);
    }
    expect([toFloat16(65519), toFloat16(65520), toFloat16(-Infinity), toFloat16(NaN)]).toEqual([0x7bff, 0x7c00, 0xfc00, 0x7e00]);
    for (let bits = 0; bits < 0x7f80; bits += 7) if (toBFloat16(decodeFloat('bf16', bits)) !== bits) throw new Error(`bf16 ${bits}`);
    expect([toBFloat16(1 + 2 ** -8), toBFloat16(1 + 3 * 2 ** -8), toBFloat16(NaN)]).toEqual([0x3f80, 0x3f82, 0x7fc0]);
  });
  test.each<[DTypeName, number | bigint | boolean, string]>([
    ['i8', 128, '128 is out of range for i8[1]'],
    ['u8', -1, '-1 is out of range for u8[1]'],
    ['i32', 1.5, '1.5 is not a whole number'],
    ['bool', 2, '2 is out of range for bool[1]'],
    ['i64', 2 ** 60, 'is not a whole number that can be held exactly'],
    ['u64', -1n, '-1 is out of range for u64[1]'],
    ['f8e5m2', 1, 'must be given as bits'],
  ])('%s refuses %s', (dtype, x, message) => {
    expect(() => inputBytes({ name: 'x', dtype, shape: [1] }, [x])).toThrow(message);
  });
  test('of every integer type, and big integers from numbers', () => {
    expect(tensorOf({ name: 'x', dtype: 'i64', shape: [3] }, [1, -2n, true]).data).toEqual(BigInt64Array.of(1n, -2n, 1n));
    expect(tensorOf({ name: 'x', dtype: 'u4', shape: [2] }, [15, 0]).data).toEqual(Uint8Array.of(15, 0));
    expect(tensorOf({ name: 'x', dtype: 'f16', shape: [] }, 1.5).data).toEqual(Uint16Array.of(0x3e00));
  });
});

test('this engine has SIMD, relaxed SIMD and threads (Node 22.18 and later do)', () => {
  expect([hasSimd(), hasRelaxedSimd(), noThreads()]).toEqual([true, true, undefined]);
});

describe('a picture', () => {
  const plain: ImageOptions = { size: undefined, layout: undefined, scale: undefined, mean: [], std: [], gray: false };
  const gray = (width: number, height: number, data: number[]): Picture => ({ width, height, planes: [Float32Array.from(data)] });

  test('is decoded to its samples, transparent parts on white', async () => {
    const png = new PNG({ width: 2, height: 1 });
    png.data.set([10, 20, 30, 255, 0, 0, 0, 0]);
    const file = join(folder, 'p.png');
    writeFileSync(file, PNG.sync.write(png));
    expect((await readPicture(file)).planes.map((p) => [...p])).toEqual([[10, 255], [20, 255], [30, 255]]);
  });

  test('shrinks by averaging, keeps constants and means, and grows between samples', () => {
    // Shrinking 4 to 2: a triangle of reach 2 around 1 and 3, weights 1/8 3/8 3/8 1/8 where all four are inside.
    const row = resize(gray(4, 1, [0, 8, 16, 24]), 1, 2).planes[0]!;
    expect([...row]).toEqual([(3 * 0 + 3 * 8 + 1 * 16) / 7, (1 * 8 + 3 * 16 + 3 * 24) / 7].map(Math.fround));
    expect([...resize(gray(7, 5, new Array<number>(35).fill(9)), 3, 2).planes[0]!]).toEqual(new Array(6).fill(9));
    // Growing 2 to 4: centres at -0.25, 0.25, 0.75, 1.25.
    expect([...resize(gray(2, 1, [0, 4]), 1, 4).planes[0]!]).toEqual([0, 1, 3, 4]);
  });

  test('becomes an input of either layout, scaled and normalised', () => {
    const picture: Picture = { width: 2, height: 1, planes: [Float32Array.of(0, 255), Float32Array.of(51, 102), Float32Array.of(255, 0)] };
    const options: ImageOptions = { ...plain, mean: [0.5, 0, 0], std: [0.5, 1, 2] };
    expect(pictureShape('x', ['n', 3, 'h', 'w'], picture, options)).toEqual({ shape: [1, 3, 1, 2], layout: 'nchw' });
    expect([...pictureTensor('x', picture, { dtype: 'f32', shape: [1, 3, 1, 2] }, 'nchw', options).data].map((x) => +Number(x).toFixed(6))).toEqual([-1, 1, 0.2, 0.4, 0.5, 0]);
    expect(pictureShape('x', [1, 5, 2, 3], picture, options)).toEqual({ shape: [1, 5, 2, 3], layout: 'nhwc' });
    expect(pictureTensor('x', picture, { dtype: 'u8', shape: [1, 1, 2, 3] }, 'nhwc', plain).data).toEqual(Uint8Array.of(0, 51, 255, 255, 102, 0));
    expect([...pictureTensor('x', picture, { dtype: 'f32', shape: [1, 2] }, 'nchw', { ...plain, scale: 255 }).data].map((x) => Number(x))).toEqual([0.587 * 51 + 0.114 * 255, 0.299 * 255 + 0.587 * 102].map(Math.fround));
  });

  test('has a size that the model fixes or the caller gives', () => {
    const picture = gray(5, 4, new Array<number>(20).fill(0));
    expect(pictureShape('x', [1, 3, undefined, undefined], picture, { ...plain, size: [8, 9] }).shape).toEqual([1, 3, 8, 9]);
    expect(pictureShape('x', [1, 3, undefined, undefined], picture, plain).shape).toEqual([1, 3, 4, 5]);
    expect(() => pictureShape('x', [1, 3, 10, 10], picture, { ...plain, size: [8, 9] })).toThrow('--image-size asks for a height of 8');
    expect(() => pictureShape('x', [1, 7, 10, 10], picture, plain)).toThrow('has 7 channels, expected 1 or 3');
    expect(() => pictureShape('x', [4, 3, 10, 10], picture, plain)).toThrow('it holds 4 pictures');
  });
});
