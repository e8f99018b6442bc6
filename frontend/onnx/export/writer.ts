/** Collects the nodes and tensors of an ONNX graph while ops are written, and names them at the end. */
import { Unsupported } from '../../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../../ir/graph.ts';
import { dtypes, sizeOf, type DType, type Tensor, type TensorType } from '../../../ir/type.ts';
import { dataTypeNumber } from '../data-type.ts';
import { tensorOf } from '../ops/helpers.ts';
import type { AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto } from '../proto.ts';

/** A whole number is an int, a list of them ints, text a string, a tensor one, a graph a subgraph. */
export type NodeAttribute = number | Tensor | { readonly float: number } | string | readonly number[] | GraphProto;

/** Where samples lie, for a file that takes any number of them. */
export interface FreeBatch {
  /** Name of the dimension. */
  readonly symbol: string;
  /** Samples of the graph that is written: sizes are multiples of it where samples lie. */
  readonly size: number;
  /** The axis of a value that holds samples; undefined where none does. */
  axisOf(v: Value): number | undefined;
}

/** What nodes and tensors are called until all of them are known: no ONNX name begins so. */
const mark = '\u0000';

/** What ops write to. Names are placeholders until `finish`. */
export class Writer {
  readonly batch: FreeBatch | undefined;
  readonly #shared: Shared;
  readonly #nodes: NodeProto[] = [];
  readonly #made = new Set<string>();
  #source: readonly string[] = [];

  constructor(batch: FreeBatch | undefined, shared = new Shared()) {
    this.batch = batch;
    this.#shared = shared;
  }

  /** The writer of a subgraph, which sees all that is outside. */
  inner(): Writer {
    return new Writer(this.batch, this.#shared);
  }

  /** Names the nodes that follow after the ONNX nodes that an op came from. */
  from(source: readonly string[]): void {
    this.#source = source;
  }

  /** Adds a node with one result. */
  node(type: string, inputs: readonly string[], attributes: Readonly<Record<string, NodeAttribute>> = {}): string {
    return this.nodes(type, inputs, attributes, 1)[0]!;
  }

  /** Adds a node with several results. */
  nodes(type: string, inputs: readonly string[], attributes: Readonly<Record<string, NodeAttribute>>, results: number): string[] {
    const output = Array.from({ length: results }, () => this.#shared.fresh());
    output.forEach((name) => this.#made.add(name));
    this.#nodes.push({ opType: type, name: this.#shared.nodeName(this.#source), input: [...inputs], output, attribute: Object.entries(attributes).map(([name, a]) => attributeProto(name, a)) });
    return output;
  }

  /** The name of a value. */
  at(v: Value): string {
    return this.#shared.names.get(v)!;
  }

  bind(v: Value, name: string): void {
    requireWritten(v.type.dtype);
    this.#shared.names.set(v, name);
    if (v.name !== undefined && !this.#shared.wanted.has(name)) this.#shared.wanted.set(name, v.name);
  }

  /** A placeholder for an input of this graph. */
  input(v: Value): string {
    const name = this.#shared.fresh();
    this.bind(v, name);
    return name;
  }

  /** A tensor that is always the same. */
  tensor(t: Tensor, wanted?: string): string {
    return this.#shared.tensor(t, wanted);
  }
  /** The same as a node. */
  constant(t: Tensor): string {
    return this.node('Constant', [], { value: t });
  }
  ints(values: readonly number[]): string {
    return this.tensor(tensorOf('i64', [values.length], values));
  }
  scalar(dtype: DType, x: number): string {
    return this.tensor(tensorOf(dtype, [], [x]));
  }

  /** The shape of a value as a tensor: static, or with the size of the batch taken from the model's input. */
  shapeOf(v: Value): string {
    const axis = this.batch?.axisOf(v);
    const { shape } = v.type;
    if (axis === undefined) return this.ints(shape);
    const samples = this.node('Shape', [this.#shared.samples], { start: 0, end: 1 });
    const per = shape[axis]! / this.batch!.size;
    const size = per === 1 ? samples : this.node('Mul', [samples, this.ints([per])]);
    return this.node('Concat', [...(axis > 0 ? [this.ints(shape.slice(0, axis))] : []), size, ...(axis + 1 < shape.length ? [this.ints(shape.slice(axis + 1))] : [])], { axis: 0 });
  }

  /** Names the input whose first axis counts the samples. */
  samplesFrom(input: string): void {
    this.#shared.samples = input;
  }

  /** A name for each value, made by a node of this graph and no other result's. */
  results(values: readonly Value[]): string[] {
    const taken = new Set<string>();
    return values.map((v) => {
      const name = this.at(v);
      const own = this.#made.has(name) && !taken.has(name) ? name : this.node('Identity', [name]);
      taken.add(own);
      return own;
    });
  }

  /** The nodes so far, as a subgraph. */
  subgraph(name: string, inputs: readonly ValueInfoProto[], outputs: readonly ValueInfoProto[]): GraphProto {
    return { name, node: this.#nodes, input: [...inputs], output: [...outputs] };
  }

  /** The nodes and tensors, with names in place of placeholders: `fixed` first, then those that values wish for. */
  finish(graph: GraphProto, fixed: ReadonlyMap<string, string>): GraphProto {
    return this.#shared.named({ ...graph, node: this.#nodes, initializer: [...this.#shared.initializers] }, fixed);
  }
}

/** What a graph and its subgraphs have in common. */
class Shared {
  readonly names = new Map<Value, string>();
  /** What placeholders would like to be called. */
  readonly wanted = new Map<string, string>();
  readonly initializers: TensorProto[] = [];
  samples = '';
  readonly #small = new Map<string, string>();
  readonly #nodeNames = new Set<string>();
  /** How often nodes were named after the same source. */
  readonly #nodesOf = new Map<string, number>();
  #count = 0;

  fresh(): string {
    return `${mark}${this.#count++}`;
  }

  /** `Conv(conv1)` gives `conv1`, then `conv1_1`; no two nodes have one name. */
  nodeName(source: readonly string[]): string {
    const base = /\((.*)\)$/s.exec(source[0] ?? '')?.[1] ?? source[0] ?? 'node';
    let count = this.#nodesOf.get(base) ?? 0;
    const named = (): string => (count === 0 ? base : `${base}_${count}`);
    while (this.#nodeNames.has(named())) count++;
    this.#nodesOf.set(base, count + 1);
    this.#nodeNames.add(named());
    return named();
  }

  tensor(t: Tensor, wanted: string | undefined): string {
    const key = wanted === undefined && t.data.length <= 16 ? `${t.dtype} ${t.shape.join(',')} ${Array.from(t.data as ArrayLike<number | bigint>, (x) => (Object.is(x, -0) ? '-0' : String(x))).join(',')}` : undefined;
    const before = key !== undefined ? this.#small.get(key) : undefined;
    if (before !== undefined) return before;
    const name = this.fresh();
    if (wanted !== undefined) this.wanted.set(name, wanted);
    if (key !== undefined) this.#small.set(key, name);
    this.initializers.push(tensorProto(name, t));
    return name;
  }

  named(graph: GraphProto, fixed: ReadonlyMap<string, string>): GraphProto {
    const final = new Map(fixed);
    const taken = new Set(fixed.values());
    for (const [placeholder, name] of this.wanted) {
      if (final.has(placeholder) || taken.has(name) || name === '') continue;
      final.set(placeholder, name);
      taken.add(name);
    }
    let next = 0;
    const at = (name: string): string => {
      if (!name.startsWith(mark)) return name;
      const known = final.get(name);
      if (known !== undefined) return known;
      let made = `v${next++}`;
      while (taken.has(made)) made = `v${next++}`;
      taken.add(made);
      final.set(name, made);
      return made;
    };
    const info = (list: readonly ValueInfoProto[] | null | undefined): ValueInfoProto[] => (list ?? []).map((v) => ({ ...v, name: at(v.name!) }));
    const rename = (g: GraphProto): GraphProto => ({
      ...g,
      input: info(g.input),
      initializer: (g.initializer ?? []).map((t) => ({ ...t, name: at(t.name!) })),
      node: (g.node ?? []).map((n) => ({ ...n, input: n.input!.map(at), output: n.output!.map(at), attribute: n.attribute!.map((a) => (a.g ? { ...a, g: rename(a.g) } : a)) })),
      output: info(g.output),
    });
    return rename(graph);
  }
}

/** A declared tensor; `symbols` names axes whose size is left open, an empty name leaves it unnamed too. */
export function valueInfo(name: string, type: TensorType, symbols: ReadonlyMap<number, string> = new Map()): ValueInfoProto {
  const dim = type.shape.map((d, i) => {
    const symbol = symbols.get(i);
    return symbol === undefined ? { dimValue: d } : symbol === '' ? {} : { dimParam: symbol };
  });
  return { name, type: { tensorType: { elemType: dataTypeNumber(type.dtype), shape: { dim } } } };
}

/** Element types that the opset that is written has. */
const written: ReadonlySet<DType> = new Set(['f64', 'f32', 'f16', 'bf16', 'i64', 'i32', 'i16', 'i8', 'u64', 'u32', 'u16', 'u8', 'bool']);

function requireWritten(dtype: DType): void {
  if (!written.has(dtype)) throw new Unsupported(`writing ${dtype} as ONNX`, `the model computes with ${dtype}, which the opset that is written does not have`);
}

function tensorProto(name: string, t: Tensor): TensorProto {
  requireWritten(t.dtype);
  return { name, dataType: dataTypeNumber(t.dtype), dims: [...t.shape], rawData: new Uint8Array(t.data.buffer, t.data.byteOffset, sizeOf(t.shape) * dtypes[t.dtype].bytes) };
}

/** AttributeProto's types, by its own numbers. */
function attributeProto(name: string, a: NodeAttribute): AttributeProto {
  if (typeof a === 'number') return { name, type: 2, i: a };
  if (typeof a === 'string') return { name, type: 3, s: new TextEncoder().encode(a) };
  if ('data' in a) return { name, type: 4, t: tensorProto('', a) };
  if ('float' in a) return { name, type: 1, f: a.float };
  if ('map' in a) return { name, type: 7, ints: [...a] };
  return { name, type: 5, g: a };
}

/** Writes an op: the names of its results. */
export type Rule = (op: Op, w: Writer, graph: Graph) => string | readonly string[];
