/** Input files of the command line: .npy, ONNX .pb tensors, pictures. */
import { readFileSync } from 'node:fs';
import { UserError } from '../ir/diagnostic.ts';
import { readTensorFile } from '../frontend/index.ts';
import { reason } from '../runtime/bytes.ts';
import { closest } from '../runtime/inputs.ts';
import { readNpy } from '../runtime/npy.ts';
import type { DTypeName } from '../runtime/manifest.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { isImage, pictureShape, pictureTensor, readPicture, type ImageOptions, type OpenDim } from './image.ts';

/** An input as a model or artifact declares it. */
export interface OpenInput {
  readonly name: string;
  readonly dtype: DTypeName | undefined;
  /** Undefined where even the rank is open. */
  readonly dims: readonly OpenDim[] | undefined;
}

/** Reads a tensor from a .npy or .pb file. */
export function readTensor(path: string): Tensor {
  if (/\.pb$/i.test(path)) return readTensorFile(path).tensor;
  if (!/\.npy$/i.test(path)) throw new UserError(`${path}: unknown kind of file; inputs are .npy, .pb, .png and .jpg files`);
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (e) {
    throw new UserError(`cannot read ${path}: ${reason(e)}`);
  }
  return readNpy(bytes, path);
}

/** Reads the files given for values, by name. */
export const readTensors = (files: Readonly<Record<string, string>>): Record<string, Tensor> => Object.fromEntries(Object.entries(files).map(([name, file]) => [name, readTensor(file)]));

/** Reads the files given for inputs. Checks names and dtypes against the declared inputs; a file under the empty name goes to the only input. */
export async function readInputs(files: Readonly<Record<string, string>>, declared: readonly OpenInput[], images: ImageOptions): Promise<Record<string, Tensor>> {
  const tensors: Record<string, Tensor> = {};
  for (const [key, path] of Object.entries(files)) {
    const input = find(key, declared, path);
    const tensor = isImage(path) ? await readImage(path, input, images) : readTensor(path);
    if (input.dtype !== undefined && tensor.dtype !== input.dtype) {
      throw new UserError(`${path} holds ${tensor.dtype}, input ${JSON.stringify(input.name)} is ${input.dtype}; save it as ${input.dtype}`);
    }
    if (input.dims && !fits(tensor.shape, input.dims)) {
      throw new UserError(`${path} has shape [${tensor.shape.join(',')}], input ${JSON.stringify(input.name)} is [${input.dims.map((d) => d ?? '?').join(',')}]`);
    }
    tensors[input.name] = tensor;
  }
  return tensors;
}

const fits = (shape: readonly number[], dims: readonly OpenDim[]): boolean => shape.length === dims.length && dims.every((d, i) => typeof d !== 'number' || d === shape[i]);

function find(key: string, declared: readonly OpenInput[], path: string): OpenInput {
  const list = declared.map((d) => JSON.stringify(d.name)).join(', ') || 'none';
  if (key === '') {
    if (declared.length !== 1) throw new UserError(`--input ${path} does not say which input it is for; use --input NAME=${path}. The inputs are ${list}`);
    return declared[0]!;
  }
  const found = declared.find((d) => d.name === key);
  if (found) return found;
  const near = closest(key, declared.map((d) => d.name));
  throw new UserError(`there is no input ${JSON.stringify(key)}${near === undefined ? '' : ` (did you mean ${JSON.stringify(near)}?)`}; the inputs are ${list}`);
}

async function readImage(path: string, input: OpenInput, options: ImageOptions): Promise<Tensor> {
  const picture = await readPicture(path);
  const { shape, layout } = pictureShape(input.name, input.dims ?? [1, undefined, undefined, undefined], picture, options);
  return pictureTensor(input.name, picture, { dtype: input.dtype ?? 'f32', shape }, layout, options);
}
