/** A decoded and checked ONNX model: what the rest of the frontend reads instead of protobuf messages. */
import type { DType, Tensor } from '../../ir/type.ts';
import type { StringTensor, Subgraph } from './lowering.ts';
import type { AttributeProto } from './proto.ts';

/** Newest opset of the standard domain that is known. */
export const newestOpset = 28;

/** One declared dimension: a size, a symbol, or nothing. */
export type Dim = number | string | undefined;

/** A declared type. `dims` is undefined where even the rank is unknown. */
export interface DeclaredType {
  readonly kind: 'tensor' | 'sequence' | 'optional' | 'sparse tensor' | 'map' | 'opaque';
  /** Element type of a tensor, or of the tensors inside; undefined where it is not declared. */
  readonly dtype: DType | 'string' | undefined;
  readonly dims: readonly Dim[] | undefined;
}

export interface ValueView {
  readonly name: string;
  readonly type: DeclaredType | undefined;
}

export interface InitializerView {
  readonly name: string;
  readonly tensor: Tensor | StringTensor;
}

/** An attribute as decoded; `refersTo` names the function's attribute that stands in for it. */
export interface AttributeView {
  readonly name: string;
  readonly proto: AttributeProto;
  readonly refersTo: string | undefined;
  /** Path in the file, for newer fields of nested messages. */
  readonly path: string;
  /** Decoded subgraph of a graph attribute. */
  readonly graph: GraphView | undefined;
}

export interface NodeView {
  /** The node's name, or its first output's, or its place. */
  readonly name: string;
  readonly opType: string;
  readonly domain: string;
  readonly overload: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, AttributeView>;
}

export interface GraphView extends Subgraph {
  readonly nodes: readonly NodeView[];
  readonly initializers: readonly InitializerView[];
  readonly inputs: readonly ValueView[];
  readonly outputs: readonly ValueView[];
  readonly valueInfo: ReadonlyMap<string, DeclaredType>;
}

export interface FunctionView {
  readonly name: string;
  readonly domain: string;
  readonly overload: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Attributes without a default, then those with one. */
  readonly attributes: readonly string[];
  readonly defaults: ReadonlyMap<string, AttributeView>;
  readonly opsets: ReadonlyMap<string, number>;
  readonly nodes: readonly NodeView[];
}

export interface ModelView {
  /** How messages call the model: its path, or "model". */
  readonly file: string;
  readonly irVersion: number;
  readonly producer: string;
  readonly opsets: ReadonlyMap<string, number>;
  readonly graph: GraphView;
  /** By functionKey. */
  readonly functions: ReadonlyMap<string, FunctionView>;
  readonly warnings: readonly string[];
}

export const functionKey = (domain: string, name: string, overload: string): string => `${domain}:${name}:${overload}`;

/** 'ai.onnx' is another spelling of the standard domain. */
export const canonicalDomain = (domain: string | null | undefined): string => (domain === 'ai.onnx' ? '' : (domain ?? ''));

/** `Conv node "conv1"`, as errors call a node. */
export const showNode = (n: { readonly opType: string; readonly name: string; readonly domain: string }): string => `${n.domain ? `${n.domain}.` : ''}${n.opType} node "${n.name}"`;
