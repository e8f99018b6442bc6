/** Writes small ONNX models for tests, newer fields that onnx-proto does not know included. */
import { dataTypeNumber } from '../frontend/onnx/data-type.ts';
import { messages, type AttributeProto, type GraphProto, type TensorProto, type ValueInfoProto } from '../frontend/onnx/proto.ts';
import type { DType } from '../ir/type.ts';

export type ElementType = DType | 'string';

export interface TestNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, TestAttribute>>;
  readonly name?: string;
  readonly domain?: string;
  readonly overload?: string;
}

/** A whole number is an int, another number a float; `{ float: 2 }` forces one. `{ ref }` refers to an attribute of the function around it. */
export type TestAttribute =
  | number | string | readonly number[] | { readonly float: number } | { readonly floats: readonly number[] } | { readonly tensor: TensorProto } | { readonly graph: TestGraph } | { readonly ref: string };

export interface TestGraph {
  readonly name?: string;
  readonly nodes: readonly TestNode[];
  readonly inputs?: readonly ValueInfoProto[];
  readonly outputs: readonly ValueInfoProto[];
  readonly initializers?: readonly TensorProto[];
  readonly valueInfo?: readonly ValueInfoProto[];
}

export interface TestFunction {
  readonly name: string;
  readonly domain: string;
  readonly overload?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: readonly string[];
  readonly defaults?: Readonly<Record<string, TestAttribute>>;
  readonly nodes: readonly TestNode[];
  readonly opsets?: Readonly<Record<string, number>>;
}

export interface TestModel extends TestGraph {
  readonly opsets?: Readonly<Record<string, number>>;
  readonly functions?: readonly TestFunction[];
  /** Appended to the encoded ModelProto as they are. */
  readonly extra?: Uint8Array;
}

/** A ModelProto's bytes. The opset is 21 unless `opsets` says otherwise. */
export function encodeModel(model: TestModel): Uint8Array {
  const head = messages.ModelProto.encode({ irVersion: 10, producerName: 'test', opsetImport: opsetImports(model.opsets ?? { '': 21 }) }).finish();
  return join(head, field(7, encodeGraph(model)), ...(model.functions ?? []).map((f) => field(25, encodeFunction(f))), model.extra ?? new Uint8Array());
}

/** A node, in short. */
export const node = (op: string, inputs: readonly string[], outputs: readonly string[], attributes: TestNode['attributes'] = {}, more: Partial<TestNode> = {}): TestNode => ({ op, inputs, outputs, attributes, ...more });

/** A declared tensor; a string is a symbolic dimension, undefined one without a name, no `dims` an unknown rank. */
export function value(name: string, dtype: ElementType, dims?: readonly (number | string | undefined)[]): ValueInfoProto {
  const shape = dims && { dim: dims.map((d) => (typeof d === 'number' ? { dimValue: d } : d === undefined ? {} : { dimParam: d })) };
  return { name, type: { tensorType: { elemType: dataTypeNumber(dtype), ...(shape && { shape }) } } };
}

/** A declared sequence of tensors. */
export const sequence = (name: string, dtype: ElementType): ValueInfoProto => ({ name, type: { sequenceType: { elemType: value('', dtype).type! } } });

/** A tensor with raw data. */
export const raw = (name: string, dtype: ElementType, dims: readonly number[], bytes: ArrayBufferView): TensorProto => ({
  name, dataType: dataTypeNumber(dtype), dims: [...dims], rawData: new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength),
});
export const floats = (name: string, dims: readonly number[], data: readonly number[]): TensorProto => raw(name, 'f32', dims, Float32Array.from(data));
export const int64s = (name: string, dims: readonly number[], data: readonly number[]): TensorProto => raw(name, 'i64', dims, BigInt64Array.from(data, BigInt));
/** A tensor whose data lies in another file. */
export const external = (name: string, dtype: ElementType, dims: readonly number[], entries: Readonly<Record<string, string>>): TensorProto => ({
  name, dataType: dataTypeNumber(dtype), dims: [...dims], dataLocation: 1, externalData: Object.entries(entries).map(([key, v]) => ({ key, value: v })),
});

/** A length-delimited protobuf field. */
export const field = (number: number, bytes: Uint8Array): Uint8Array => join(varint(number * 8 + 2), varint(bytes.length), bytes);
export const join = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));

export function varint(n: number): Uint8Array {
  const bytes: number[] = [];
  for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
  return Uint8Array.from([...bytes, n]);
}

function encodeGraph(graph: TestGraph): Uint8Array {
  const rest: GraphProto = {
    name: graph.name ?? 'g', input: [...(graph.inputs ?? [])], output: [...graph.outputs], initializer: [...(graph.initializers ?? [])], valueInfo: [...(graph.valueInfo ?? [])],
  };
  return join(messages.GraphProto.encode(rest).finish(), ...graph.nodes.map((n) => field(1, encodeNode(n))));
}

function encodeNode(n: TestNode): Uint8Array {
  const head = messages.NodeProto.encode({ opType: n.op, input: [...n.inputs], output: [...n.outputs], name: n.name ?? '', domain: n.domain ?? '' }).finish();
  const attributes = Object.entries(n.attributes ?? {}).map(([name, a]) => field(5, encodeAttribute(name, a)));
  return join(head, ...attributes, n.overload === undefined ? new Uint8Array() : field(8, utf8(n.overload)));
}

function encodeAttribute(name: string, a: TestAttribute): Uint8Array {
  if (typeof a === 'object' && 'graph' in a) return join(messages.AttributeProto.encode({ name, type: 5 }).finish(), field(6, encodeGraph(a.graph)));
  return messages.AttributeProto.encode({ name, ...attributeFields(a) }).finish();
}

function attributeFields(a: Exclude<TestAttribute, { readonly graph: TestGraph }>): AttributeProto {
  if (typeof a === 'number') return Number.isInteger(a) ? { type: 2, i: a } : { type: 1, f: a };
  if (typeof a === 'string') return { type: 3, s: utf8(a) };
  if ('float' in a) return { type: 1, f: a.float };
  if ('floats' in a) return { type: 6, floats: [...a.floats] };
  if ('tensor' in a) return { type: 4, t: a.tensor };
  if ('ref' in a) return { type: 2, refAttrName: a.ref };
  return { type: 7, ints: [...a] };
}

function encodeFunction(f: TestFunction): Uint8Array {
  const head = messages.FunctionProto.encode({
    name: f.name, domain: f.domain, input: [...f.inputs], output: [...f.outputs], attribute: [...(f.attributes ?? [])], opsetImport: opsetImports(f.opsets ?? { '': 21 }),
  }).finish();
  const defaults = Object.entries(f.defaults ?? {}).map(([name, a]) => field(11, encodeAttribute(name, a)));
  return join(head, ...f.nodes.map((n) => field(7, encodeNode(n))), ...defaults, f.overload === undefined ? new Uint8Array() : field(13, utf8(f.overload)));
}

const opsetImports = (opsets: Readonly<Record<string, number>>): { domain: string; version: number }[] => Object.entries(opsets).map(([domain, version]) => ({ domain, version }));
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
