/** Digits of two origins, as pictures of 28x28 from 0 to 1. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readData } from '../../cli/data/files.ts';
import { UserError } from '../../ir/diagnostic.ts';
import { readCsv, type Samples } from '../../runtime/data/index.ts';

const side = 28;

/** The first `count` pictures of MNIST, as bytes. */
export async function mnist(folder: string, set: 'train' | 't10k', count: number): Promise<Samples> {
  const files = [`${set}-images-idx3-ubyte.gz`, `${set}-labels-idx1-ubyte.gz`].map((f) => join(folder, 'mnist', f));
  if (!files.every((f) => existsSync(f))) throw new UserError(`${folder} holds no mnist (${files[0]!}); name the folder with --data`);
  return subset(await readData(files.join(','), { sample: [1, side, side] }), count);
}

/** The first `count` pictures of optdigits (8x8, 0 to 16), scaled to 28x28 by linear interpolation between the centres of pixels. */
export function optdigits(folder: string, set: 'tra' | 'tes', count: number): Samples {
  const file = join(folder, 'optdigits', `optdigits.${set}`);
  if (!existsSync(file)) throw new UserError(`${folder} holds no optdigits (${file}); name the folder with --data`);
  const { columns, rows, data } = readCsv(readFileSync(file, 'utf8'), file);
  const n = Math.min(count, rows);
  const x = new Float32Array(n * side * side);
  const y = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const row = data.subarray(i * columns, (i + 1) * columns);
    x.set(enlarged(row.subarray(0, 64)), i * side * side);
    y[i] = row[64]!;
  }
  return { name: file, x: { dtype: 'f32', shape: [n, 1, side, side], data: x }, y: { dtype: 'u8', shape: [n], data: y } };
}

/** The first samples. */
export function subset({ name, x, y }: Samples, count: number): Samples {
  const n = Math.min(count, x.shape[0]!);
  const size = x.data.length / x.shape[0]!;
  return { name, x: { ...x, shape: [n, ...x.shape.slice(1)], data: x.data.subarray(0, n * size) }, y: { ...y, shape: [n], data: y.data.subarray(0, n) } };
}

function enlarged(pixels: ArrayLike<number>): Float32Array {
  const small = 8;
  const at = (i: number): { readonly low: number; readonly share: number } => {
    const place = Math.min(small - 1, Math.max(0, ((i + 0.5) * small) / side - 0.5));
    const low = Math.min(small - 2, Math.floor(place));
    return { low, share: place - low };
  };
  return Float32Array.from({ length: side * side }, (_, k) => {
    const [v, h] = [at(Math.floor(k / side)), at(k % side)];
    const row = (y: number): number => pixels[y * small + h.low]! * (1 - h.share) + pixels[y * small + h.low + 1]! * h.share;
    return (row(v.low) * (1 - v.share) + row(v.low + 1) * v.share) / 16;
  });
}
