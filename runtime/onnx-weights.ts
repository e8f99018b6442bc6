/**
 * Puts trained weights into an ONNX file, without a compiler: walks the file's protobuf structure, writes the named initializers anew as raw data, and
 * copies every other byte as it is. Tensors that lie in other files move into this one, so that the result is one file.
 */
import { InputError } from './error.ts';
import { bytesOf, describe, type Tensor } from './tensor.ts';

/** Reads what a tensor keeps in another file: `length` bytes from `offset` on, or up to the end. */
export type ReadExternal = (location: string, offset: number, length: number | undefined) => Promise<Uint8Array>;

// Field numbers of onnx.proto.
const modelGraph = 7;
const graphInitializer = 5;
const tensorField = { dims: 1, dataType: 2, floatData: 4, name: 8, rawData: 9, doubleData: 10, externalData: 13, dataLocation: 14 } as const;
const entryKey = 1;
const entryValue = 2;
const dataTypes: Readonly<Record<number, Tensor['dtype']>> = { 1: 'f32', 11: 'f64' };
/** protobuf's own limit for a message. */
const largestFile = 2 ** 31 - 1;

/** The file with new values for the initializers that `weights` names; those that it lacks, or has with another type, are InputErrors. */
export async function patchOnnx(model: Uint8Array, weights: ReadonlyMap<string, Tensor>, name: string, external: ReadExternal): Promise<Uint8Array[]> {
  const missing = new Set(weights.keys());
  const chunks: Uint8Array[] = [];
  for (const field of fieldsOf(model, name)) {
    if (field.number !== modelGraph || field.wire !== 2) {
      chunks.push(field.whole);
      continue;
    }
    const graph: Uint8Array[] = [];
    for (const part of fieldsOf(field.content, name)) {
      const made = part.number === graphInitializer && part.wire === 2 ? await patchTensor(part.content, weights, missing, name, external) : undefined;
      graph.push(...(made ? [lengthDelimited(graphInitializer, made)].flat() : [part.whole]));
    }
    chunks.push(...lengthDelimited(modelGraph, graph));
  }
  const [first] = missing;
  if (first !== undefined) throw new InputError(`${name} has no initializer ${JSON.stringify(first)} in its main graph; is it the model that was compiled?`);
  const size = sizeOf(chunks);
  if (size > largestFile) throw new InputError(`the trained model would be one file of ${size} bytes, and ONNX files end at ${largestFile}`);
  return chunks;
}

/** The chunks of a tensor that changes; undefined where the file's bytes stay. */
async function patchTensor(bytes: Uint8Array, weights: ReadonlyMap<string, Tensor>, missing: Set<string>, file: string, external: ReadExternal): Promise<Uint8Array[] | undefined> {
  const fields = [...fieldsOf(bytes, file)];
  const named = fields.findLast((f) => f.number === tensorField.name);
  const name = named ? new TextDecoder().decode(named.content) : '';
  const stored = fields.some((f) => f.number === tensorField.dataLocation && f.value === 1);
  const weight = weights.get(name);
  if (!weight && !stored) return undefined;
  const data = weight ? bytesOf(weight.data) : await readStored(fields, file, name, external);
  if (weight) {
    missing.delete(name);
    checkType(fields, weight, file, name);
  }
  const gone: readonly number[] = [tensorField.floatData, tensorField.rawData, tensorField.doubleData, tensorField.externalData, tensorField.dataLocation];
  return [...fields.filter((f) => !gone.includes(f.number)).map((f) => f.whole), ...lengthDelimited(tensorField.rawData, [data])];
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

interface Field {
  readonly number: number;
  readonly wire: number;
  /** A varint's number; 0 for other wire types. */
  readonly value: number;
  /** What a length-delimited field holds. */
  readonly content: Uint8Array;
  /** All of it, with its tag. */
  readonly whole: Uint8Array;
}

function* fieldsOf(bytes: Uint8Array, name: string): Generator<Field> {
  for (let at = 0; at < bytes.length; ) {
    const start = at;
    const [tag, afterTag] = varint(bytes, at, name);
    const wire = tag % 8;
    let value = 0;
    let from = afterTag;
    if (wire === 0) [value, at] = varint(bytes, afterTag, name);
    else if (wire === 1) at = afterTag + 8;
    else if (wire === 5) at = afterTag + 4;
    else if (wire === 2) {
      const [length, content] = varint(bytes, afterTag, name);
      [from, at] = [content, content + length];
    } else throw broken(name, start);
    if (at > bytes.length) throw broken(name, start);
    yield { number: Math.floor(tag / 8), wire, value, content: bytes.subarray(from, at), whole: bytes.subarray(start, at) };
  }
}

function varint(bytes: Uint8Array, at: number, name: string): [value: number, end: number] {
  let value = 0;
  for (let i = 0, scale = 1; i < 10; i++, scale *= 128) {
    const byte = bytes[at + i];
    if (byte === undefined) break;
    value += (byte & 127) * scale;
    if (byte < 128) return [value, at + i + 1];
  }
  throw broken(name, at);
}

function varints(bytes: Uint8Array, name: string): number[] {
  const out: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const [value, end] = varint(bytes, at, name);
    out.push(value);
    at = end;
  }
  return out;
}

const broken = (name: string, at: number): InputError => new InputError(`${name} is not an ONNX model that can be read: its structure breaks off at byte ${at}`);

function lengthDelimited(number: number, content: readonly Uint8Array[]): Uint8Array[] {
  return [encodeVarint(number * 8 + 2), encodeVarint(sizeOf(content)), ...content];
}

function encodeVarint(n: number): Uint8Array {
  const bytes: number[] = [];
  for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
  return Uint8Array.from([...bytes, n]);
}

const sizeOf = (chunks: readonly Uint8Array[]): number => chunks.reduce((n, c) => n + c.byteLength, 0);
