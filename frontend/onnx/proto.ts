/** The one door to onnx-proto (ONNX 1.10's schema on protobufjs), and its integers. */
import onnxProto from 'onnx-proto';
import type { onnx } from 'onnx-proto';

export type Long = { toNumber(): number; toString(): string; readonly low: number; readonly high: number };
export type ModelProto = onnx.IModelProto;
export type GraphProto = onnx.IGraphProto;
export type NodeProto = onnx.INodeProto;
export type AttributeProto = onnx.IAttributeProto;
export type TensorProto = onnx.ITensorProto;
export type SparseTensorProto = onnx.ISparseTensorProto;
export type TypeProto = onnx.ITypeProto;
export type ValueInfoProto = onnx.IValueInfoProto;
export type FunctionProto = onnx.IFunctionProto;
export type TensorShapeProto = onnx.ITensorShapeProto;

/** protobufjs' classes for the messages of onnx.proto. */
export const messages = onnxProto.onnx;

/** An int64 field as a bigint; protobufjs gives a Long, or a number where a program built the message. */
export function toBigInt(x: number | Long | null | undefined): bigint {
  if (x === null || x === undefined) return 0n;
  if (typeof x === 'number') return BigInt(x);
  return (BigInt(x.high) << 32n) | BigInt(x.low >>> 0);
}

/** An int64 field as a safe integer; what lies beyond (INT64_MAX means "to the end") is clamped to ±(2^53 - 1). */
export function toSafeInt(x: number | Long | null | undefined): number {
  const n = typeof x === 'number' ? x : x ? x.toNumber() : 0;
  return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, n));
}
