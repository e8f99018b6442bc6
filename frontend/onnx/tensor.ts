/** TensorProto to Tensor: raw and typed data of every element type, sizes checked before anything is allocated. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import { dtypes, sizeOf, type DType, type Tensor, type TypedArray } from '../../ir/type.ts';
import { elementType } from './data-type.ts';
import { readExternal } from './external.ts';
import type { StringTensor } from './lowering.ts';
import { toBigInt, toSafeInt, type Long, type SparseTensorProto, type TensorProto } from './proto.ts';

/** Most elements that a tensor of a model may have. */
export const maxElements = 2 ** 32;

/**
 * Decodes a tensor. Raw data is viewed, not copied, where its offset allows it. `where` begins error messages; `folder` is where external data
 * may lie (undefined: the model came without a place, so external data is an error).
 */
export function readTensor(proto: TensorProto, where: string, folder: string | undefined): Tensor | StringTensor {
  const dtype = elementType(proto.dataType ?? 0, where);
  const shape = readDims(proto.dims ?? [], where);
  const count = sizeOf(shape);
  if (count > maxElements) throw new UserError(`${where}: its shape [${shape.join(',')}] has ${count} elements; a tensor may have at most ${maxElements}`);
  if (proto.segment) throw new Unsupported('tensor segments', `${where} is stored in segments (TensorProto.segment); save the model with whole tensors`);
  if (dtype === 'string') return readStrings(proto, shape, count, where);

  const bytes = isPacked(dtype) ? Math.ceil((count * dtypes[dtype].bits) / 8) : count * dtypes[dtype].bytes;
  const type = `${dtype}[${shape.join(',')}]`;
  if (proto.dataLocation === 1) {
    const data = readExternal(proto.externalData ?? [], bytes, `${where} of type ${type}`, folder);
    return { dtype, shape, data: fromRaw(dtype, count, data) };
  }
  const raw = proto.rawData;
  if (raw && raw.length > 0) {
    if (raw.length !== bytes) throw new UserError(`${where} has type ${type}, which takes ${bytes} bytes, but its data has ${raw.length}`);
    return { dtype, shape, data: fromRaw(dtype, count, raw) };
  }
  return { dtype, shape, data: fromTyped(proto, dtype, count, `${where} has type ${type}`) };
}

/** A sparse tensor as a dense one: values at linear indices, or at one row of coordinates each. */
export function readSparse(proto: SparseTensorProto, where: string, folder: string | undefined): Tensor {
  const shape = readDims(proto.dims ?? [], where);
  const count = sizeOf(shape);
  if (count > 2 ** 28) throw new UserError(`${where}: its shape [${shape.join(',')}] is too large to be made dense (${count} elements)`);
  const values = readTensor(proto.values ?? {}, `the values of ${where}`, folder);
  const indices = readTensor(proto.indices ?? {}, `the indices of ${where}`, folder);
  if ('kind' in values || 'kind' in indices || !(indices.data instanceof BigInt64Array)) throw new UserError(`${where}: values must be numbers and indices i64`);
  const width = indices.shape.length === 2 ? shape.length : 1;
  if (indices.data.length !== values.data.length * width) throw new UserError(`${where} has ${values.data.length} values and indices of shape [${indices.shape.join(',')}]`);
  const data = new dtypes[values.dtype].array(count);
  for (let i = 0; i < values.data.length; i++) {
    let at = 0;
    for (let d = 0; d < width; d++) {
      const index = Number(indices.data[i * width + d]!);
      const limit = width === 1 ? count : shape[d]!;
      if (index < 0 || index >= limit) throw new UserError(`${where}: index ${index} is outside 0..${limit - 1}`);
      at = at * limit + index;
    }
    data[at] = values.data[i]!;
  }
  return { dtype: values.dtype, shape, data };
}

function readDims(dims: readonly (number | Long)[], where: string): number[] {
  return dims.map((d, i) => {
    const size = toSafeInt(d);
    if (size < 0) throw new UserError(`${where}: dimension ${i} is ${size}`);
    return size;
  });
}

/** Whether ONNX stores several elements in a byte. */
const isPacked = (d: DType): boolean => dtypes[d].bits < 8 && d !== 'bool';

/** Little-endian bytes as elements; the length has been checked. */
function fromRaw(dtype: DType, count: number, raw: Uint8Array): TypedArray {
  const facts = dtypes[dtype];
  if (isPacked(dtype)) return unpack(dtype, count, (i) => raw[i]!);
  const aligned = raw.byteOffset % facts.bytes === 0 ? raw : new Uint8Array(raw);
  // TypedArray constructors over a buffer share no common signature in the types; every row of `dtypes` accepts these arguments.
  const View = facts.array as unknown as new (buffer: ArrayBufferLike, offset: number, length: number) => TypedArray;
  const data = new View(aligned.buffer, aligned.byteOffset, count);
  return dtype === 'bool' && data.some((x: number | bigint) => x !== 0 && x !== 1) ? Uint8Array.from(data as Uint8Array, (x) => (x ? 1 : 0)) : data;
}

/** Elements of less than a byte, the first in the lowest bits; `byteAt` gives the packed bytes. */
function unpack(dtype: DType, count: number, byteAt: (i: number) => number): TypedArray {
  const { bits, kind, array } = dtypes[dtype];
  const perByte = 8 / bits;
  const out = new array(count) as Uint8Array | Int8Array;
  const mask = (1 << bits) - 1;
  const sign = kind === 'int' ? 1 << (bits - 1) : 0;
  for (let i = 0; i < count; i++) {
    const x = (byteAt(Math.floor(i / perByte)) >> (bits * (i % perByte))) & mask;
    out[i] = (x ^ sign) - sign;
  }
  return out;
}

/** Data of the typed fields (float_data and so on). */
function fromTyped(proto: TensorProto, dtype: DType, count: number, what: string): TypedArray {
  const facts = dtypes[dtype];
  const expect = (field: string, found: number, wanted = count): void => {
    if (found !== wanted) throw new UserError(`${what}, which takes ${wanted} values, but its ${field} has ${found}${found === 0 ? ' and it has no raw data' : ''}`);
  };
  if (dtype === 'f32' || dtype === 'f64') {
    const source = (dtype === 'f32' ? proto.floatData : proto.doubleData) ?? [];
    expect(dtype === 'f32' ? 'float_data' : 'double_data', source.length);
    return dtype === 'f32' ? Float32Array.from(source) : Float64Array.from(source);
  }
  if (dtype === 'i64') {
    const source = proto.int64Data ?? [];
    expect('int64_data', source.length);
    return BigInt64Array.from(source, toBigInt);
  }
  if (dtype === 'u64' || dtype === 'u32') {
    const source = proto.uint64Data ?? [];
    expect('uint64_data', source.length);
    return dtype === 'u64' ? BigUint64Array.from(source, (x) => BigInt.asUintN(64, toBigInt(x))) : Uint32Array.from(source, (x) => Number(toBigInt(x)));
  }
  const source = proto.int32Data ?? [];
  if (isPacked(dtype)) {
    expect('int32_data', source.length, Math.ceil((count * facts.bits) / 8));
    return unpack(dtype, count, (i) => source[i]!);
  }
  expect('int32_data', source.length);
  const out = new facts.array(count) as Int32Array;
  for (let i = 0; i < count; i++) out[i] = dtype === 'bool' ? Number(source[i] !== 0) : source[i]!;
  return out;
}

function readStrings(proto: TensorProto, shape: readonly number[], count: number, where: string): StringTensor {
  const source = proto.stringData ?? [];
  if (source.length !== count) throw new UserError(`${where} has type string[${shape.join(',')}], which takes ${count} strings, but its string_data has ${source.length}`);
  const decoder = new TextDecoder();
  return { kind: 'strings', shape, data: source.map((s) => decoder.decode(s)) };
}
