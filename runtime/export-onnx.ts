import { reason } from './bytes.ts';
import { InputError } from './error.ts';
import { nodeFiles, writeAtomically } from './files.ts';
import { patchOnnx, type ReadExternal } from './onnx-weights.ts';
import type { Tensor } from './tensor.ts';

/** Writes a copy of an ONNX file in which the named weights have new values; all other bytes of the graph stay. The target may be the source. */
export async function exportOnnx(source: string, target: string, weights: ReadonlyMap<string, Tensor>): Promise<void> {
  const { fs, path } = nodeFiles('exportOnnx');
  const model = await fs.readFile(source).catch((e: unknown) => {
    throw new InputError(`cannot read ${source}: ${reason(e)}`);
  });
  const folder = path.dirname(source);
  const external: ReadExternal = async (location, offset, length) => {
    const refuse = (why: string): never => {
      throw new InputError(`${source} keeps weights in ${JSON.stringify(location)}: ${why}`);
    };
    if (path.isAbsolute(location) || location.split(/[\\/]/).includes('..')) refuse("external data must lie in the model's folder");
    const bytes = await fs.readFile(path.join(folder, location)).catch((e: unknown) => refuse(`it cannot be read: ${reason(e)}`));
    const end = length === undefined ? bytes.length : offset + length;
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(end) || offset < 0 || end < offset || end > bytes.length) refuse(`bytes ${offset} to ${end} are asked for, but the file has ${bytes.length}`);
    return bytes.subarray(offset, end);
  };
  await writeAtomically(target, await patchOnnx(model, weights, source, external));
}
