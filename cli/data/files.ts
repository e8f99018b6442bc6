/** Data files of the command line: idx, .npy, .npz and CSV, compressed by gzip or not, and folders of pictures by class. */
import { readFileSync, statSync } from 'node:fs';
import { UserError } from '../../ir/diagnostic.ts';
import { reason } from '../../runtime/bytes.ts';
import { inflate, isGzip, readCsv, readIdx, readNpz, type Samples } from '../../runtime/data/index.ts';
import { readNpy } from '../../runtime/npy.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import { readPictures } from './pictures.ts';

/** What a model wants of pictures, and the names of classes where they are known already. */
export interface Reading {
  /** Shape of a sample. */
  readonly sample: readonly number[];
  /** Name or number (from 1) of the column that holds the target of a CSV; the last unless given. */
  readonly targetColumn?: string;
  readonly classNames?: readonly string[];
}

/** Reads `IMAGES,LABELS`, or one file or folder that holds both. What cannot be read is an error that names the file. Where targets are optional, an array alone will do: all its targets are 0. */
export async function readData(spec: string, reading: Reading, { targets = 'needed' }: { readonly targets?: 'needed' | 'optional' } = {}): Promise<Samples> {
  const [first, second, ...more] = spec.split(',');
  if (!first || second === '' || more.length > 0) throw new UserError(`data ${JSON.stringify(spec)}: expected SAMPLES,TARGETS, or one CSV, .npz or folder`);
  if (second !== undefined) return { name: spec, x: await readTensors(first), y: await readTensors(second) };
  if (isFolder(first)) return readPictures(first, reading);
  const bytes = await readUnpacked(first);
  if (isZip(bytes)) return fromArchive(first, await readNpz(bytes, first));
  if (targets === 'optional' && (isNpy(bytes) || isIdx(bytes))) return withoutTargets(first, await readTensors(first));
  if (isNpy(bytes) || isIdx(bytes)) throw new UserError(`${first} holds one array; give the file of its targets too, as ${first},TARGETS`);
  return fromTable(first, new TextDecoder().decode(bytes), reading.targetColumn);
}

function withoutTargets(name: string, x: Tensor): Samples {
  const count = x.shape[0] ?? 0;
  return { name, x, y: { dtype: 'u8', shape: [count], data: new Uint8Array(count) } };
}

async function readTensors(path: string): Promise<Tensor> {
  const bytes = await readUnpacked(path);
  if (isNpy(bytes)) return readNpy(bytes, path);
  if (isIdx(bytes)) return readIdx(bytes, path);
  throw new UserError(`${path} is neither idx nor .npy`);
}

async function readUnpacked(path: string): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (e) {
    throw new UserError(`cannot read ${path}: ${reason(e)}`);
  }
  return isGzip(bytes) ? inflate(bytes, 'gzip', path) : bytes;
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (e) {
    throw new UserError(`cannot read ${path}: ${reason(e)}`);
  }
}

const isNpy = (b: Uint8Array): boolean => b[0] === 0x93 && b[1] === 0x4e && b[2] === 0x55;
const isZip = (b: Uint8Array): boolean => b[0] === 0x50 && b[1] === 0x4b && (b[2] === 3 || b[2] === 5);
const isIdx = (b: Uint8Array): boolean => b[0] === 0 && b[1] === 0;

const namesOfSamples = ['x', 'images', 'data', 'x_train'];
const namesOfTargets = ['y', 'labels', 'targets', 'y_train'];

function fromArchive(path: string, arrays: ReadonlyMap<string, Tensor>): Samples {
  const find = (names: readonly string[]): Tensor => {
    const name = names.find((n) => arrays.has(n));
    if (name === undefined) throw new UserError(`${path} has the arrays ${[...arrays.keys()].join(', ') || 'none'}; expected one called ${names.join(' or ')}`);
    return arrays.get(name)!;
  };
  return { name: path, x: find(namesOfSamples), y: find(namesOfTargets) };
}

function fromTable(path: string, text: string, column: string | undefined): Samples {
  const { names, columns, rows, data } = readCsv(text, path);
  if (columns < 2) throw new UserError(`${path} has one column; expected numbers and a target in each line`);
  const target = column === undefined ? columns - 1 : names?.includes(column) ? names.indexOf(column) : Number(column) - 1;
  if (!Number.isInteger(target) || target < 0 || target >= columns) throw new UserError(`${path} has no column ${column}; ${names ? `its columns are ${names.join(', ')}` : `it has ${columns} columns without names`}`);
  const x = new Float64Array(rows * (columns - 1));
  const y = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    const row = data.subarray(r * columns, (r + 1) * columns);
    y[r] = row[target]!;
    x.set(row.subarray(0, target), r * (columns - 1));
    x.set(row.subarray(target + 1), r * (columns - 1) + target);
  }
  return { name: path, x: { dtype: 'f64', shape: [rows, columns - 1], data: x }, y: { dtype: 'f64', shape: [rows], data: y } };
}
