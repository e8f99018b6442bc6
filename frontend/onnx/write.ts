/** Writes ONNX models that a program describes as plain data. */
import { sizeOf, type DType, type Tensor } from '../../ir/type.ts';
import { dataTypeNumber } from './data-type.ts';
import { messages, type AttributeProto, type NodeProto, type TensorProto, type ValueInfoProto } from './proto.ts';

/** A whole number is an int; `float` makes one a float. */
export type PlainAttribute = number | string | readonly number[] | { readonly float: number } | { readonly tensor: Tensor };

export interface PlainNode {
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, PlainAttribute>>;
}

/** A weight of f32: an initializer, or an input where it has no data. */
export interface PlainWeight {
  readonly name: string;
  readonly shape: readonly number[];
}

/** A declared tensor; a text is a symbolic dimension. */
export interface PlainValue {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly (number | string)[];
}

/** A graph of the standard domain, nodes in topological order. */
export interface PlainModel<W extends PlainWeight = PlainWeight> {
  readonly name: string;
  readonly opset: number;
  readonly nodes: readonly PlainNode[];
  readonly weights: readonly W[];
  readonly inputs: readonly PlainValue[];
  readonly outputs: readonly PlainValue[];
}

/** IR version of the opset 21 that models are written in. */
const irVersion = 10;
/** Fields of ModelProto and GraphProto. */
const graphField = 7;
const initializerField = 5;

/**
 * The bytes of a ModelProto, in chunks, so that models of more than a gigabyte need no second copy; `data` is asked for one weight at a time and gives its elements in row-major order.
 * Without `data` the model declares its weights as inputs.
 */
export function* onnxChunks<W extends PlainWeight>(model: PlainModel<W>, data?: (weight: W) => Float32Array): Generator<Uint8Array> {
  const declared = data ? [] : model.weights.map((w): PlainValue => ({ name: w.name, dtype: 'f32', dims: w.shape }));
  const head = messages.ModelProto.encode({ irVersion, producerName: 'tilewright', opsetImport: [{ domain: '', version: model.opset }] }).finish();
  const graph = messages.GraphProto.encode({
    name: model.name, node: model.nodes.map(nodeProto), input: [...model.inputs, ...declared].map(valueProto), output: model.outputs.map(valueProto),
  }).finish();
  // A protobuf message is the concatenation of its fields, so initializers can follow one by one; only their sizes have to be known first.
  const heads = data ? model.weights.map(initializerHead) : [];
  const size = heads.reduce((n, h, i) => n + h.length + 4 * sizeOf(model.weights[i]!.shape), graph.length);
  yield head;
  yield tag(graphField, size);
  yield graph;
  for (const [i, h] of heads.entries()) {
    const values = data!(model.weights[i]!);
    yield h;
    yield new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  }
}

/** The same in one piece. */
export const onnxBytes = <W extends PlainWeight>(model: PlainModel<W>, data?: (weight: W) => Float32Array): Uint8Array => Buffer.concat([...onnxChunks(model, data)]);

/** What comes before the raw data of an initializer: the tags and sizes of the field and of its `raw_data`. */
function initializerHead({ name, shape }: PlainWeight): Uint8Array {
  const bytes = 4 * sizeOf(shape);
  const proto: TensorProto = { name, dataType: dataTypeNumber('f32'), dims: [...shape] };
  const rawDataField = 9;
  const start = Buffer.concat([messages.TensorProto.encode(proto).finish(), tag(rawDataField, bytes)]);
  return Buffer.concat([tag(initializerField, start.length + bytes), start]);
}

/** The tag of a length-delimited field and its size. */
const tag = (field: number, size: number): Uint8Array => Uint8Array.from([...varint(field * 8 + 2), ...varint(size)]);

function varint(n: number): number[] {
  const bytes: number[] = [];
  for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
  return [...bytes, n];
}

function valueProto({ name, dtype, dims }: PlainValue): ValueInfoProto {
  return { name, type: { tensorType: { elemType: dataTypeNumber(dtype), shape: { dim: dims.map((d) => (typeof d === 'number' ? { dimValue: d } : { dimParam: d })) } } } };
}

const nodeProto = ({ op, name, inputs, outputs, attributes }: PlainNode): NodeProto => ({
  opType: op, name, input: [...inputs], output: [...outputs], attribute: Object.entries(attributes).map(([key, a]) => attributeProto(key, a)),
});

/** Numbers are those of AttributeProto.AttributeType. */
function attributeProto(name: string, a: PlainAttribute): AttributeProto {
  if (typeof a === 'number') return { name, type: 2, i: a };
  if (typeof a === 'string') return { name, type: 3, s: new TextEncoder().encode(a) };
  if ('float' in a) return { name, type: 1, f: a.float };
  if ('tensor' in a) {
    const { dtype, shape, data } = a.tensor;
    return { name, type: 4, t: { dataType: dataTypeNumber(dtype), dims: [...shape], rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) } };
  }
  return { name, type: 7, ints: [...a] };
}
