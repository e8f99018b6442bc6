import { reason } from './bytes.ts';
import { InputError } from './error.ts';
import { nodeFiles, writeAtomically } from './files.ts';
import { checkFinite } from './finite.ts';
import { patchOnnx, type ReadExternal } from './onnx-weights.ts';
import type { Tensor } from './tensor.ts';

/**
 * Writes a copy of an ONNX model in which the named weights have new values; all other bytes of the graph stay. The target may be the source. A source that is given as bytes
 * has to hold all of its weights. Weights with NaN or +infinity are a NonFiniteState, and the target stays as it is.
 */
export async function exportOnnx(source: string | Uint8Array, target: string, weights: ReadonlyMap<string, Tensor>): Promise<void> {
  const name = typeof source === 'string' ? source : 'the model';
  checkFinite(weights, target);
  await writeAtomically(target, await patchOnnx(typeof source === 'string' ? await readOnnx(source) : source, weights, name, externalOf(source)));
}

/** Bytes of an ONNX file. */
export function readOnnx(path: string): Promise<Uint8Array> {
  return nodeFiles('an ONNX file').fs.readFile(path).catch((e: unknown) => {
    throw new InputError(`cannot read ${path}: ${reason(e)}`);
  });
}

/** Reads what a model keeps in other files, which have to lie in its folder. */
export function externalOf(source: string | Uint8Array): ReadExternal {
  return async (location, offset, length) => {
    const refuse = (why: string): never => {
      throw new InputError(`${typeof source === 'string' ? source : 'the model'} keeps weights in ${JSON.stringify(location)}: ${why}`);
    };
    if (typeof source !== 'string') return refuse('they can only be found for a model that is given as a file');
    const { fs, path } = nodeFiles('an ONNX file');
    if (path.isAbsolute(location) || location.split(/[\\/]/).includes('..')) refuse("external data must lie in the model's folder");
    const bytes = await fs.readFile(path.join(path.dirname(source), location)).catch((e: unknown) => refuse(`it cannot be read: ${reason(e)}`));
    const end = length === undefined ? bytes.length : offset + length;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(end) || offset < 0 || end < offset || end > bytes.length) refuse(`bytes ${offset} to ${end} are asked for, but the file has ${bytes.length}`);
    return bytes.subarray(offset, end);
  };
}
