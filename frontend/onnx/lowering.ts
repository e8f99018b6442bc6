/**
 * The contract between the import driver and the op lowerings.
 *
 * A lowering is one function per ONNX op and opset range. It reads its node's attributes and inputs, adds core ops through `cx.b`, and returns
 * one result for each of the node's outputs. The driver has done the rest before it is called: the opset row is picked, the arity is checked
 * against the row, inputs are resolved, `cx.b.source` is set, local functions are inlined. After it returns, the driver names the results as
 * ONNX does and compares them with declared shapes. An IllTyped thrown by the builder becomes a UserError that names the node, so a
 * lowering checks only what the core ops would not notice.
 */
import type { Builder } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import type { DType, Tensor, TensorType } from '../../ir/type.ts';

/** A tensor of strings. It exists at compile time alone and has to fold away. */
export interface StringTensor {
  readonly kind: 'strings';
  readonly shape: readonly number[];
  readonly data: readonly string[];
}

/** A sequence whose length is known at compile time. `dtype` is that of its elements where it is empty and a type was declared. */
export interface SequenceValue {
  readonly kind: 'sequence';
  readonly items: readonly Bound[];
  readonly dtype: DType | undefined;
}

/** An optional of which it is known at compile time whether it holds something. */
export interface OptionalValue {
  readonly kind: 'optional';
  readonly item: Bound | undefined;
}

/** What an ONNX name can stand for while a model is imported. Only a Value reaches the graph. */
export type Bound = Value | SequenceValue | OptionalValue | StringTensor;

/** True for a tensor of the graph, false for what exists at compile time alone. */
export const isTensorValue = (x: Bound): x is Value => !('kind' in x);

/** A subgraph held by an attribute. Opaque to lowerings: hand it to `cx.regions` or `cx.inline`. */
export interface Subgraph {
  readonly name: string;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
}

/** Reads an attribute; without a default it is required. Absence or another kind is a UserError that names node and attribute. */
export interface ReadAttribute<T> {
  (name: string): T;
  (name: string, otherwise: T): T;
  (name: string, otherwise: undefined): T | undefined;
}

/** A node's attributes. `int` and `ints` are safe integers (INT64_MAX and INT64_MIN, which mean "to the end", are clamped to ±(2^53 - 1)). */
export interface Attributes {
  has(name: string): boolean;
  readonly names: readonly string[];
  readonly int: ReadAttribute<number>;
  readonly float: ReadAttribute<number>;
  readonly string: ReadAttribute<string>;
  readonly ints: ReadAttribute<readonly number[]>;
  readonly floats: ReadAttribute<readonly number[]>;
  readonly strings: ReadAttribute<readonly string[]>;
  /** A tensor attribute that does not hold strings. */
  readonly tensor: ReadAttribute<Tensor>;
  /** A tensor attribute of strings. */
  readonly stringTensor: ReadAttribute<StringTensor>;
  readonly graph: ReadAttribute<Subgraph>;
  /** Dtype of a tensor attribute, so that a lowering can tell `tensor` from `stringTensor`; undefined where there is no such attribute. */
  tensorDType(name: string): DType | 'string' | undefined;
  /** An int attribute that holds an ONNX data type number (Cast's `to`), as a DType. */
  dtype(name: string, otherwise?: DType): DType;
  /** The element type and shape of a type attribute (Optional's `type`); undefined where there is none. */
  type(name: string): { readonly kind: 'tensor' | 'sequence' | 'optional'; readonly dtype: DType | 'string' | undefined } | undefined;
}

/** One ONNX node, after the driver's checks. */
export interface Node {
  /** The node's name, or its first output's where it has none. */
  readonly name: string;
  readonly opType: string;
  /** '' for the standard domain. */
  readonly domain: string;
  /** Version of the node's domain that the model (or the local function) imports. */
  readonly opset: number;
  readonly attrs: Attributes;
  /** All inputs that the node lists; undefined where an optional one is left out with an empty name. May be shorter than the op's arity. */
  readonly inputs: readonly (Bound | undefined)[];
  /** One per listed output; '' for an output that is left out. Trailing outputs may be missing. */
  readonly outputNames: readonly string[];
}

/**
 * A constant was asked for and is not one. Lowerings may catch it around `cx.regions` and unroll with `cx.inline` instead; uncaught, it becomes
 * an UnboundInputs error that names the inputs and says how to bind them.
 */
export class NeedsValue extends Error {
  readonly what: string;
  /** Graph inputs that the value depends on. Empty where it depends on the iteration of a loop alone. */
  readonly inputs: readonly string[];
  /** The node that asked, as errors call it. */
  readonly at: string | undefined;
  constructor(what: string, inputs: readonly string[], at?: string) {
    super(`${at ? `${at}: ` : ''}${what} is not known at compile time`);
    this.what = what;
    this.inputs = inputs;
    this.at = at;
  }
}

/** The model needs the values of inputs at compile time: they decide shapes. A caller that has them binds them and imports again. */
export class UnboundInputs extends UserError {
  readonly inputs: readonly string[];
  constructor(message: string, inputs: readonly string[]) {
    super(message);
    this.inputs = inputs;
  }
}

/** What a lowering may use. */
export interface LowerContext {
  readonly b: Builder;
  readonly node: Node;

  /** Input `i` as a tensor of the graph; a missing one, or one that is a sequence, optional or string, is a UserError that names it. */
  input(i: number): Value;
  /** The same, or undefined where it is left out. */
  optionalInput(i: number): Value | undefined;
  /** True where output `i` is listed and has a name. */
  wants(i: number): boolean;

  /** The value's tensor, computed at compile time from constants, initializers and bound inputs; throws NeedsValue otherwise. `what` names it in the error ("axes"). Memoised. */
  constant(v: Value, what: string): Tensor;
  /** The same as numbers: integers (clamped to ±(2^53 - 1)), or floats decoded. A tensor of any rank, flattened. */
  numbers(v: Value, what: string): number[];
  /** As `numbers` for an integer tensor; a float tensor is a UserError. */
  ints(v: Value, what: string): number[];
  /** Whether `constant` would succeed. Does not evaluate. */
  isConstant(v: Value): boolean;
  /** Notes that `what` is not a multiple and a sum of the size of an axis: that it was rounded, or cut to fit. A size that follows the batch must not be. */
  rounds(size: number, what: string): void;

  /**
   * Lowers subgraphs to regions that see nothing from outside: what they capture becomes further inputs, the same list in the same order for
   * every body, after the given `inputs`. Captured compile-time constants of up to 4096 elements that depend on no weight are repeated inside instead. Pass `captured` as the last operands of the op.
   */
  regions(bodies: readonly { readonly graph: Subgraph; readonly inputs: readonly TensorType[] }[]): { readonly regions: readonly Graph[]; readonly captured: readonly Value[] };
  /** Lowers a subgraph's nodes here and now with these arguments (an If whose condition is known, an unrolled Loop); returns its outputs. */
  inline(graph: Subgraph, args: readonly Bound[]): Bound[];

  /** Refuses a feature that is recognised but not supported, naming node, op and opset. `feature` is short ("Resize antialias"), `why` says why and what to do. */
  unsupported(feature: string, why: string): never;
  /** Reports a mistake in the model, naming node, op and opset. Says what was found and what was expected. */
  bad(message: string): never;
  /** Adds a warning to the import's result. */
  warn(message: string): void;
  /** Whether normalizations and dropout work as in inference, whatever mode the model was exported in. */
  readonly inference: boolean;
  /** Whether whoever runs the graph gives its random ops a seed. */
  readonly seeded: boolean;
  /** Declares an operand to be a running statistic: it is no parameter to be trained, and `next`, where there is one, is what it becomes after a run (inside a subgraph: nothing keeps it). */
  statistic(v: Value, next?: Value): void;
}

/** Returns one result per listed output, in order; undefined is allowed for an output that is not wanted. Extra results are ignored. */
export type Lowering = (cx: LowerContext) => readonly (Bound | undefined)[];

/** How an op is lowered from opset `since` of its domain on, up to the next row. */
export interface Row {
  readonly since: number;
  /** Least and most inputs and outputs that a node may list; Infinity for a variadic one. */
  readonly inputs: readonly [number, number];
  readonly outputs: readonly [number, number];
  /** A lowering, or the reason why the op is refused from this opset on (removed from ONNX, strings, data-dependent sizes). */
  readonly lower: Lowering | { readonly refused: string };
}

/**
 * All ops, keyed by `OpType` for the standard domain and `domain:OpType` for others ("ai.onnx.ml:Scaler"); rows by ascending `since`.
 * An op that is absent is unknown. Exported as `lowerings` from frontend/onnx/ops/index.ts.
 */
export type LoweringTable = Readonly<Record<string, readonly Row[]>>;
