/** Data for training: readers on small files with known values, order and augmentation by counters, batches. */
import { execFileSync } from 'node:child_process';
import { gzipSync, deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { blendOf, moved } from '../runtime/data/augment.ts';
import { batchesOf, inflate, readCsv, readIdx, readNpz, standardisation, type Samples, type Wanted } from '../runtime/data/index.ts';
import { draws, philox, purposes } from '../runtime/data/random.ts';
import { shuffled } from '../runtime/data/shuffle.ts';
import { writeNpy } from '../runtime/npy.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { philoxWords } from './philox.ts';

const u8 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'u8', shape, data: Uint8Array.from(data) });
const idx = (type: number, dims: readonly number[], data: readonly number[]): Uint8Array => Uint8Array.from([0, 0, type, dims.length, ...dims.flatMap((d) => [d >>> 24, d >>> 16, d >>> 8, d].map((b) => b & 255)), ...data]);

describe('idx', () => {
  it('reads bytes', () => expect(readIdx(idx(8, [2, 3], [1, 2, 3, 4, 5, 255]))).toEqual(u8([2, 3], [1, 2, 3, 4, 5, 255])));
  it('reads big-endian numbers', () => {
    expect(Array.from<number | bigint>(readIdx(idx(0x0c, [2], [0, 0, 1, 0, 0xff, 0xff, 0xff, 0xfe])).data as ArrayLike<number | bigint>)).toEqual([256, -2]);
    expect(Array.from<number | bigint>(readIdx(idx(0x0d, [1], [0x3f, 0xc0, 0, 0])).data as ArrayLike<number | bigint>)).toEqual([1.5]);
  });
  it.each([
    ['cut off', idx(8, [2, 3], [1, 2, 3]), /u8\[2,3\], which takes 6 bytes, but 3 follow: the file is cut off/],
    ['too long', idx(8, [2], [1, 2, 3]), /too long/],
    ['of an unknown type', idx(7, [1], [1]), /element type 7/],
    ['foreign', Uint8Array.from([1, 2, 3, 4]), /two zero bytes/],
  ])('refuses what is %s', (_, bytes, message) => expect(() => readIdx(bytes, 'a-file')).toThrow(message));
});

describe('compressed files', () => {
  it('unpacks gzip', async () => expect(Array.from(await inflate(gzipSync(Uint8Array.from([1, 2, 3])), 'gzip', 'f'))).toEqual([1, 2, 3]));
  it('says that gzip data is cut off', () => expect(inflate(gzipSync(new Uint8Array(1000)).subarray(0, 20), 'gzip', 'the-file.gz')).rejects.toThrow(/the-file.gz cannot be unpacked/));
  it.each([['stored', 0], ['deflated', 8]] as const)('reads arrays that are %s', async (_, method) => {
    const arrays = await readNpz(zip({ 'x.npy': writeNpy(u8([2], [7, 8])), 'y.npy': writeNpy({ dtype: 'i64', shape: [1], data: BigInt64Array.of(-3n) }) }, method));
    expect([...arrays.keys()]).toEqual(['x', 'y']);
    expect(arrays.get('x')).toEqual(u8([2], [7, 8]));
    expect(arrays.get('y')!.data[0]).toBe(-3n);
  });
  it('refuses an archive that is cut off', () => expect(readNpz(zip({ 'x.npy': writeNpy(u8([1], [1])) }, 0).subarray(0, 60), 'a.npz')).rejects.toThrow(/a.npz .* cut off/));
  it('reads what Python writes', async () => {
    const archive = pythonZip();
    if (archive) expect((await readNpz(archive)).get('a')).toEqual(u8([3], [1, 2, 3]));
  });
});

describe('csv', () => {
  it('reads numbers, with and without names', () => {
    expect(readCsv('1,2\n3,4.5\n')).toEqual({ names: undefined, columns: 2, rows: 2, data: Float64Array.of(1, 2, 3, 4.5) });
    expect(readCsv('"a";"b"\r\n\r\n1;-2e3\r\n')).toEqual({ names: ['a', 'b'], columns: 2, rows: 1, data: Float64Array.of(1, -2000) });
  });
  it.each([
    ['1,2\n3\n', /t.csv, line 2: 1 columns, expected 2/],
    ['a,b\n1,x\n', /t.csv, line 2, column 2 \(b\): "x" is not a number/],
    ['', /no rows/],
    ['a,b\n', /no rows/],
  ])('refuses %j', (text, message) => expect(() => readCsv(text, 't.csv')).toThrow(message));
});

describe('random numbers by counters', () => {
  it.each([[[0, 0, 0, 0], [0, 0]], [[0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff]], [[0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]]] as const)('are Philox: %j', (counter, key) => {
    expect(philox(counter, key)).toEqual(philoxWords(counter.map(BigInt), key.map(BigInt)).map(Number));
  });
  it('are spread evenly and differ between purposes', () => {
    const draw = draws(1, purposes.crop, 0, 0);
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 10_000; i++) counts[draw.below(10)]!++;
    // Each is binomial with a deviation of 30.
    for (const c of counts) expect(Math.abs(c - 1000)).toBeLessThan(150);
    expect(draws(1, purposes.flip, 0, 0).uniform()).not.toBe(draws(1, purposes.crop, 0, 0).uniform());
  });
  it('shuffle: a permutation of its own for each seed and epoch', () => {
    const a = shuffled(1000, 5, 0);
    expect([...a].sort((x, y) => x - y)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect(shuffled(1000, 5, 0)).toEqual(a);
    expect(shuffled(1000, 5, 1)).not.toEqual(a);
    expect(shuffled(1000, 6, 0)).not.toEqual(a);
  });
});

describe('augmentation', () => {
  const shape = [1, 3, 4];
  const sample = Float32Array.from({ length: 12 }, (_, i) => i + 1);
  it('crops and mirrors as an independent reading of the padded picture does', () => {
    const seen = new Set<string>();
    for (let index = 0; index < 200; index++) {
      const got = moved(sample, shape, { crop: 1, flip: true }, { seed: 3, epoch: 0, index });
      const match = [-1, 0, 1].flatMap((dy) => [-1, 0, 1].flatMap((dx) => [false, true].map((mirror) => ({ dy, dx, mirror })))).find(({ dy, dx, mirror }) =>
        got.every((v, i) => {
          const [y, x] = [Math.floor(i / 4) + dy, (mirror ? 3 - (i % 4) : i % 4) + dx];
          return v === (y < 0 || y >= 3 || x < 0 || x >= 4 ? 0 : sample[y * 4 + x]);
        }));
      expect(match, `sample ${index}`).toBeDefined();
      seen.add(JSON.stringify(match));
    }
    expect(seen.size).toBe(18);
  });
  it('blends shares that follow Beta(a, a)', () => {
    for (const a of [0.2, 1, 2]) {
      const shares = Array.from({ length: 4000 }, (_, index) => blendOf({ mixup: a }, shape, 100, { seed: 9, epoch: 0, index })!.share);
      const mean = shares.reduce((x, y) => x + y) / shares.length;
      const variance = shares.reduce((x, y) => x + (y - mean) ** 2, 0) / shares.length;
      expect(mean).toBeCloseTo(0.5, 1);
      expect(variance).toBeCloseTo(1 / (4 * (2 * a + 1)), 2);
    }
  });
  it('cutmix keeps the share of the area that it leaves', () => {
    const mix = blendOf({ cutmix: 1 }, [1, 8, 8], 10, { seed: 0, epoch: 2, index: 4 })!;
    const { top, left, bottom, right } = mix.box!;
    expect(mix.share).toBeCloseTo(1 - ((bottom - top) * (right - left)) / 64, 12);
  });
});

const wanted: Wanted = { x: { name: 'x', dtype: 'f32', shape: [2, 1, 1, 2] }, y: { name: 'y', dtype: 'i64', shape: [2] }, classes: 3 };
const samples: Samples = { name: 'the data', x: u8([5, 2], [0, 255, 51, 102, 1, 2, 3, 4, 5, 6]), y: u8([5], [0, 1, 2, 0, 1]) };

describe('batches', () => {
  it('hold scaled samples and class indices', () => {
    const batch = batchesOf(samples, wanted, { shuffle: false })(0).at(0);
    expect(Array.from<number | bigint>(batch.x as ArrayLike<number | bigint>)).toEqual([0, 1, Math.fround(0.2), Math.fround(0.4)]);
    expect(Array.from<number | bigint>(batch.y as ArrayLike<number | bigint>)).toEqual([0n, 1n]);
  });
  it('leave the rest out, or fill it up', () => {
    expect(batchesOf(samples, wanted)(0).batches).toBe(2);
    const padded = batchesOf(samples, wanted, { rest: 'pad', shuffle: false })(0);
    expect([padded.batches, padded.at(2).count, Array.from(padded.at(2).y as BigInt64Array)]).toEqual([3, 1, [1n, 1n]]);
  });
  it('are the same whenever they are asked for, and cover an epoch', () => {
    const options = { seed: 4, augmentation: { mixup: 1 } };
    const soft: Wanted = { ...wanted, y: { name: 'y', dtype: 'f32', shape: [2, 3] } };
    const epoch = batchesOf(samples, soft, options)(7);
    const again = batchesOf(samples, soft, options)(7);
    expect(again.at(1)).toEqual(epoch.at(1));
    for (const b of [0, 1]) for (const i of [0, 1]) expect((epoch.at(b).y as Float32Array).slice(3 * i, 3 * i + 3).reduce((a, v) => a + v)).toBeCloseTo(1, 6);
  });
  it('are standardised to mean 0 and deviation 1', () => {
    const all: Wanted = { ...wanted, x: { ...wanted.x, shape: [5, 1, 1, 2] }, y: { ...wanted.y, shape: [5] } };
    const { x } = batchesOf(samples, all, { normalisation: standardisation(samples, 1) })(0).at(0);
    const values = Array.from(x as Float32Array);
    const mean = values.reduce((a, b) => a + b) / 10;
    expect(mean).toBeCloseTo(0, 6);
    expect(values.reduce((a, b) => a + (b - mean) ** 2, 0) / 10).toBeCloseTo(1, 5);
  });
  it.each([
    ['a label out of range', { ...samples, y: u8([5], [0, 1, 3, 0, 1]) }, /the data: the label of sample 2 is 3, but the model has classes 0 to 2; labels count from 0/],
    ['other numbers of samples and labels', { ...samples, y: u8([4], [0, 1, 2, 0]) }, /5 samples and 4 targets/],
    ['samples of another size', { ...samples, x: u8([5, 3], new Array<number>(15).fill(0)) }, /a sample is \[3\], 3 numbers, but the input "x" takes f32\[1,1,2\], 2 numbers/],
    ['too few samples', { ...samples, x: u8([1, 2], [1, 2]), y: u8([1], [0]) }, /1 samples do not fill one batch of 2/],
  ] as const)('refuse %s', (_, bad, message) => expect(() => batchesOf(bad, wanted)).toThrow(message));
});

/** A zip archive without checksums, which the reader does not look at. */
function zip(files: Readonly<Record<string, Uint8Array>>, method: 0 | 8): Uint8Array {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, raw] of Object.entries(files)) {
    const data = method === 8 ? deflateRawSync(raw) : Buffer.from(raw);
    const head = Buffer.alloc(30);
    head.writeUInt32LE(0x04034b50, 0);
    head.writeUInt16LE(method, 8);
    head.writeUInt16LE(name.length, 26);
    parts.push(head, Buffer.from(name), data);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(data.length, 20);
    entry.writeUInt32LE(raw.length, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt32LE(at, 42);
    directory.push(entry, Buffer.from(name));
    at += 30 + name.length + data.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Object.keys(files).length, 10);
  end.writeUInt32LE(at, 16);
  return new Uint8Array(Buffer.concat([...parts, ...directory, end]));
}

/** An archive written by Python's zipfile, where there is a Python. */
function pythonZip(): Uint8Array | undefined {
  const npy = Buffer.from(writeNpy(u8([3], [1, 2, 3]))).toString('base64');
  const code = `import zipfile,sys,base64,io\nb=io.BytesIO()\nwith zipfile.ZipFile(b,'w',zipfile.ZIP_DEFLATED) as z: z.writestr('a.npy',base64.b64decode('${npy}'))\nsys.stdout.buffer.write(b.getvalue())`;
  try {
    return new Uint8Array(execFileSync('python3', ['-c', code]));
  } catch {
    return undefined;
  }
}
