/** What the planner knows so far: the memory it has given out, and who still reads it. */
import { InternalError } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import type { Buffer, Division, Step, Target } from '../../ir/tile.ts';
import { bytesOf, dtypes, sizeOf, type DType, type Tensor, type TensorType } from '../../ir/type.ts';
import { denseStrides, type Order } from '../layout.ts';

/** A root of memory. Lifetimes are in positions of the flattened steps. */
export interface Root {
  readonly id: number;
  readonly kind: Buffer['kind'];
  readonly bytes: number;
  from: number;
  to: number;
}

/** A value's place inside its root, in elements. */
export interface Spot {
  readonly root: Root;
  readonly offset: number;
  readonly strides: readonly number[];
}

/** Copies of values in other orders, by order, within one region. */
export type Copies = Map<Value, Map<string, Value>>;

/** The state of one planning: every function of this folder reads and extends it. */
export class Planning {
  /** The graph that is being planned. */
  graph: Graph;
  /** Inputs and state of all graphs so far. */
  readonly inputs = new Map<string, Spot>();
  readonly state = new Map<string, { readonly type: TensorType; readonly spot: Spot }>();
  readonly contentNames = new Set<string>();
  /** New values of state, what they are reshaped from, and the state they go to. */
  updates: ReadonlyMap<Value, Value> = new Map();
  readonly roots: Root[] = [];
  readonly spots = new Map<Value, Spot>();
  readonly contents: { readonly value: Value; readonly name: string; readonly tensor: Tensor | 'zero' }[] = [];
  /** Concat operands that are computed in place, and the concat they belong to. */
  readonly parts = new Map<Value, { concat: Op; offset: number }>();
  readonly readers = new Map<Value, Op[]>();
  /** Values that are read at the end of the graph or of their region. */
  readonly outputs = new Set<Value>();
  position = 0;
  /** Ops whose step is planned. */
  readonly done = new Set<Op>();
  /** Roots that something may read again without a reader in the graph: a loop's next round, a branch, a cached copy. */
  readonly keptAlive = new Set<Root>();
  /** Output buffers that already belong to an output. */
  readonly claimed = new Set<Root>();

  readonly #storage: Target['storage'];
  /** Whether kernels ask for layouts that packed weights go with; those of other targets take any. */
  readonly demands: boolean;
  /** Whether inputs and outputs are placed among the temporaries. */
  readonly sharedIo: boolean;
  readonly division: Division | undefined;

  constructor(graph: Graph, target: Target) {
    this.graph = graph;
    this.#storage = target.storage;
    this.demands = target.panel > 0;
    this.sharedIo = target.sharedIo ?? false;
    this.division = target.division;
  }

  /** Bytes that a tensor takes in a buffer of its own. */
  bytesOf(type: TensorType): number {
    if (!this.#storage) return bytesOf(type);
    const { granularity } = this.#storage;
    return Math.max(1, Math.ceil((sizeOf(type.shape) * this.widthOf(type.dtype)) / granularity)) * granularity;
  }

  /** Bytes that an element takes. */
  widthOf(dtype: DType): number {
    return this.#storage && !this.#storage.own?.includes(dtype) ? this.#storage.elementBytes : dtypes[dtype].bytes;
  }

  newRoot(kind: Buffer['kind'], bytes: number): Root {
    const root: Root = { id: this.roots.length, kind, bytes, from: this.position, to: this.position };
    this.roots.push(root);
    return root;
  }

  /** New memory for a whole tensor in this order. */
  newSpot(kind: Buffer['kind'], type: TensorType, order: Order): Spot {
    return { root: this.newRoot(kind, this.bytesOf(type)), offset: 0, strides: denseStrides(type.shape, order) };
  }

  spot(v: Value): Spot {
    const spot = this.spots.get(v);
    if (!spot) throw new InternalError(`plan: value ${v.name ?? '(unnamed)'} is read before it is made`);
    return spot;
  }

  /** Keeps the memory of a value alive up to here. */
  touch(v: Value): void {
    const root = this.spot(v).root;
    root.to = Math.max(root.to, this.position);
  }

  isUsed(v: Value): boolean {
    return this.readers.has(v) || this.outputs.has(v);
  }

  /** Emits a kernel step; `op`'s operands and results have spots. */
  emit(op: Op, steps: Step[]): void {
    for (const r of op.results) {
      const root = this.spot(r).root;
      if (root.from > this.position) root.from = this.position;
    }
    for (const v of [...op.operands, ...op.results]) this.touch(v);
    steps.push({ kind: 'kernel', op });
    this.position++;
  }

  /** Notes what a value holds from the start, under a name that no other has. */
  content(value: Value, wanted: string, tensor: Tensor | 'zero'): void {
    let name = wanted;
    for (let i = 1; this.contentNames.has(name); i++) name = `${wanted}~${i}`;
    this.contentNames.add(name);
    this.contents.push({ value, name, tensor });
  }
}
