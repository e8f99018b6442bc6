/** ONNX's numbers for element types, and declared types. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { DType } from '../../ir/type.ts';
import type { DeclaredType, Dim } from './model.ts';
import { toSafeInt, type TensorShapeProto, type TypeProto } from './proto.ts';

const table: Readonly<Record<number, DType | 'string'>> = {
  1: 'f32', 2: 'u8', 3: 'i8', 4: 'u16', 5: 'i16', 6: 'i32', 7: 'i64', 8: 'string', 9: 'bool', 10: 'f16', 11: 'f64', 12: 'u32', 13: 'u64', 16: 'bf16',
  17: 'f8e4m3fn', 18: 'f8e4m3fnuz', 19: 'f8e5m2', 20: 'f8e5m2fnuz', 21: 'u4', 22: 'i4', 23: 'f4e2m1', 24: 'f8e8m0', 25: 'u2', 26: 'i2',
};

/** The element type that an ONNX data type number means. `where` begins the message where there is none. */
export function elementType(number: number, where: string): DType | 'string' {
  const known = table[number];
  if (known) return known;
  if (number === 14 || number === 15) throw new Unsupported('complex numbers', `${where} has element type complex${number === 14 ? 64 : 128}; complex numbers are not supported`);
  if (number === 0) throw new UserError(`${where} has no element type (data type 0, UNDEFINED)`);
  throw new Unsupported(`data type ${number}`, `${where} has data type ${number}; ONNX defines 1 to 26`);
}

/** The number of an element type, for messages and for writing test models. */
export function dataTypeNumber(dtype: DType | 'string'): number {
  return Number(Object.entries(table).find(([, d]) => d === dtype)![0]);
}

/** Reads a TypeProto; undefined where nothing is declared. */
export function declaredType(proto: TypeProto | null | undefined, where: string): DeclaredType | undefined {
  if (!proto) return undefined;
  const tensor = proto.tensorType;
  if (tensor) return { kind: 'tensor', dtype: tensor.elemType ? elementType(tensor.elemType, where) : undefined, dims: declaredDims(tensor.shape, where) };
  if (proto.sequenceType) return { kind: 'sequence', dtype: declaredType(proto.sequenceType.elemType, where)?.dtype, dims: undefined };
  if (proto.optionalType) return { kind: 'optional', dtype: declaredType(proto.optionalType.elemType, where)?.dtype, dims: undefined };
  if (proto.sparseTensorType) return { kind: 'sparse tensor', dtype: undefined, dims: undefined };
  if (proto.mapType) return { kind: 'map', dtype: undefined, dims: undefined };
  return undefined;
}

function declaredDims(shape: TensorShapeProto | null | undefined, where: string): Dim[] | undefined {
  if (!shape) return undefined;
  return (shape.dim ?? []).map((d, i) => {
    if (d.dimParam) return d.dimParam;
    if (d.dimValue === null || d.dimValue === undefined || !Object.hasOwn(d, 'dimValue')) return undefined;
    const size = toSafeInt(d.dimValue);
    // Exporters write -1 for "any"; ONNX has no meaning for it.
    if (size < 0) return undefined;
    if (size > 2 ** 40) throw new UserError(`${where}: dimension ${i} is ${size}, which no tensor can have`);
    return size;
  });
}
