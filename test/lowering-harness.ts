/** Lowers a model of one ONNX node and runs it on the interpreter. */
import { importModel } from '../frontend/onnx/import.ts';
import { evaluate } from '../ir/evaluate.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { encodeModel, node, value, type TestAttribute } from './onnx-encode.ts';

export interface NodeCase {
  readonly op: string;
  readonly opset: number;
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, TestAttribute>>;
  /** Undefined: an optional input that is left out. */
  readonly inputs: readonly (Tensor | undefined)[];
  /** Indices of inputs that are bound at compile time. */
  readonly bound?: readonly number[];
  /** Number of outputs. */
  readonly outputs?: number;
}

/** The node's outputs. */
export function runNode({ op, opset, domain = '', attributes = {}, inputs, bound = [], outputs = 1 }: NodeCase): Tensor[] {
  const names = inputs.map((t, i) => (t ? `x${i}` : ''));
  const results = Array.from({ length: outputs }, (_, i) => `y${i}`);
  const bytes = encodeModel({
    nodes: [node(op, names, results, attributes, { domain })],
    inputs: inputs.flatMap((t, i) => (t ? [value(names[i]!, t.dtype, t.shape)] : [])),
    outputs: results.map((name) => ({ name })),
    opsets: domain === '' ? { '': opset } : { '': 21, [domain]: opset },
  });
  const named = Object.fromEntries(inputs.flatMap((t, i) => (t ? [[names[i]!, t] as const] : [])));
  const values = Object.fromEntries(bound.map((i) => [names[i]!, inputs[i]!]));
  const { graph } = importModel(bytes, { values });
  verify(graph);
  const given = Object.fromEntries(Object.entries(named).filter(([name]) => !(name in values)));
  return [...evaluate(graph, given).outputs.values()];
}

export const f32 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from(data) });
export const i64 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'i64', shape, data: BigInt64Array.from(data, BigInt) });
export const i32 = (shape: readonly number[], data: readonly number[]): Tensor => ({ dtype: 'i32', shape, data: Int32Array.from(data) });
/** 1, 2, 3, … in this shape. */
export const counted = (shape: readonly number[]): Tensor => f32(shape, Array.from({ length: sizeOf(shape) }, (_, i) => i + 1));
/** A tensor's elements as numbers. */
export const elements = (t: Tensor): number[] => Array.from<number | bigint, number>(t.data, Number);
