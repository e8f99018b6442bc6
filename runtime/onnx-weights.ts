/**
 * Puts trained weights into an ONNX file, without a compiler: walks the file's protobuf structure, writes the named initializers anew as raw data, and
 * copies every other byte as it is. Tensors that lie in other files move into this one, so that the result is one file.
 */
import { InputError } from './error.ts';
import { fieldsOf, lengthDelimited, sizeOf, varintField, varints, type Field } from './protobuf.ts';
import { bytesOf, describe, type Tensor } from './tensor.ts';

/** Reads what a tensor keeps in another file: `length` bytes from `offset` on, or up to the end. */
export type ReadExternal = (location: string, offset: number, length: number | undefined) => Promise<Uint8Array>;

// Field numbers of onnx.proto.
const modelGraph = 7;
const graphField = { initializer: 5, input: 11, output: 12, valueInfo: 13 } as const;
const valueInfoField = { name: 1, type: 2 } as const;
const typeTensor = 1;
const tensorShape = 2;
const shapeDim = 1;
const dimValue = 1;
const tensorField = { dims: 1, dataType: 2, floatData: 4, name: 8, rawData: 9, doubleData: 10, externalData: 13, dataLocation: 14 } as const;
const entryKey = 1;
const entryValue = 2;
const dataTypes: Readonly<Record<number, Tensor['dtype']>> = { 1: 'f32', 11: 'f64' };
/** protobuf's own limit for a message. */
const largestFile = 2 ** 31 - 1;

/** Shapes that change with the weights. */
export interface Reshaping {
  /** Initializers that may get another shape. */
  readonly weights: ReadonlySet<string>;
  /** New declared sizes of the graph's inputs and outputs, by name; undefined keeps what is declared, null leaves the size open. */
  readonly declared: ReadonlyMap<string, readonly (number | null | undefined)[]>;
  /** Values between whose declared types are dropped, because they may not hold any more. */
  readonly stale: ReadonlySet<string>;
}

/** The file with new values for the initializers that `weights` names; those that it lacks, or has with another type, are InputErrors. */
export async function patchOnnx(model: Uint8Array, weights: ReadonlyMap<string, Tensor>, name: string, external: ReadExternal, reshaping?: Reshaping): Promise<Uint8Array[]> {
  const missing = new Set(weights.keys());
  const patched = async (part: Field): Promise<Uint8Array[]> => {
    if (part.wire !== 2) return [part.whole];
    if (part.number === graphField.initializer) {
      const made = await patchTensor(part.content, weights, missing, name, external, reshaping?.weights);
      return made ? lengthDelimited(part.number, made) : [part.whole];
    }
    const declares = part.number === graphField.input || part.number === graphField.output || part.number === graphField.valueInfo;
    if (!reshaping || !declares) return [part.whole];
    const value = nameOf(part.content, valueInfoField.name, name);
    if (part.number === graphField.valueInfo && reshaping.stale.has(value)) return [];
    const sizes = reshaping.declared.get(value);
    return sizes ? lengthDelimited(part.number, redeclared(part.content, sizes, name)) : [part.whole];
  };
  const chunks: Uint8Array[] = [];
  for (const field of fieldsOf(model, name)) {
    if (field.number !== modelGraph || field.wire !== 2) {
      chunks.push(field.whole);
      continue;
    }
    const graph: Uint8Array[] = [];
    for (const part of fieldsOf(field.content, name)) graph.push(...await patched(part));
    chunks.push(...lengthDelimited(modelGraph, graph));
  }
  const [first] = missing;
  if (first !== undefined) throw new InputError(`${name} has no initializer ${JSON.stringify(first)} in its main graph; is it the model that was compiled?`);
  const size = sizeOf(chunks);
  if (size > largestFile) throw new InputError(`the trained model would be one file of ${size} bytes, and ONNX files end at ${largestFile}`);
  return chunks;
}

/** A ValueInfoProto with other sizes. */
function redeclared(bytes: Uint8Array, sizes: readonly (number | null | undefined)[], file: string): Uint8Array[] {
  /** Writes the one field of this number anew, further in. */
  const inside = (message: Uint8Array, number: number, change: (content: Uint8Array) => Uint8Array[]): Uint8Array[] =>
    [...fieldsOf(message, file)].flatMap((f) => (f.number === number && f.wire === 2 ? lengthDelimited(number, change(f.content)) : [f.whole]));
  return inside(bytes, valueInfoField.type, (type) => inside(type, typeTensor, (tensor) => inside(tensor, tensorShape, (shape) => {
    let axis = 0;
    return inside(shape, shapeDim, (dim) => {
      const size = sizes[axis++];
      return size === undefined ? [dim] : size === null ? [] : varintField(dimValue, size);
    });
  })));
}

const nameOf = (message: Uint8Array, number: number, file: string): string => {
  const field = [...fieldsOf(message, file)].findLast((f) => f.number === number);
  return field ? new TextDecoder().decode(field.content) : '';
};

/** The chunks of a tensor that changes; undefined where the file's bytes stay. */
async function patchTensor(bytes: Uint8Array, weights: ReadonlyMap<string, Tensor>, missing: Set<string>, file: string, external: ReadExternal, reshaped: ReadonlySet<string> | undefined): Promise<Uint8Array[] | undefined> {
  const fields = [...fieldsOf(bytes, file)];
  const name = nameOf(bytes, tensorField.name, file);
  const stored = fields.some((f) => f.number === tensorField.dataLocation && f.value === 1);
  const weight = weights.get(name);
  if (!weight && !stored) return undefined;
  const data = weight ? bytesOf(weight.data) : await readStored(fields, file, name, external);
  const anew = weight !== undefined && (reshaped?.has(name) ?? false);
  if (weight) {
    missing.delete(name);
    if (!anew) checkType(fields, weight, file, name);
  }
  const gone: readonly number[] = [tensorField.floatData, tensorField.rawData, tensorField.doubleData, tensorField.externalData, tensorField.dataLocation, ...(anew ? [tensorField.dims] : [])];
  const dims = anew ? weight.shape.flatMap((d) => varintField(tensorField.dims, d)) : [];
  return [...dims, ...fields.filter((f) => !gone.includes(f.number)).map((f) => f.whole), ...lengthDelimited(tensorField.rawData, [data])];
}

function checkType(fields: readonly Field[], weight: Tensor, file: string, name: string): void {
  const dtype = dataTypes[fields.findLast((f) => f.number === tensorField.dataType)?.value ?? 0];
  const shape = fields.filter((f) => f.number === tensorField.dims).flatMap((f) => (f.wire === 0 ? [f.value] : varints(f.content, file)));
  if (dtype === weight.dtype && shape.length === weight.shape.length && shape.every((d, i) => d === weight.shape[i])) return;
  throw new InputError(`${file}: initializer ${JSON.stringify(name)} is ${dtype === undefined ? 'of another type' : describe({ dtype, shape })}, but the trained weight is ${describe(weight)}; is it the model that was compiled?`);
}

async function readStored(fields: readonly Field[], file: string, name: string, external: ReadExternal): Promise<Uint8Array> {
  const entries = new Map(fields.filter((f) => f.number === tensorField.externalData).map((f) => {
    const text = (number: number): string => new TextDecoder().decode([...fieldsOf(f.content, file)].find((g) => g.number === number)?.content ?? new Uint8Array());
    return [text(entryKey), text(entryValue)];
  }));
  const length = entries.get('length');
  const location = entries.get('location');
  if (location === undefined) throw new InputError(`${file}: initializer ${JSON.stringify(name)} lies in another file, but no location is given`);
  return external(location, Number(entries.get('offset') ?? 0), length === undefined ? undefined : Number(length));
}

