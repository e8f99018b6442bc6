/** What the lowering knows so far: the steps and buffers it has made, where every value lies, and who still reads it. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../../ir/graph.ts';
import type { BufferKind, Spread, TileBuffer, TileStep } from '../../../ir/tiles.ts';
import { dtypes, type TensorType } from '../../../ir/type.ts';
import type { Choice } from '../choose.ts';
import { largestSlice } from '../divide.ts';
import { toGrain, type TileTarget } from '../target.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
export type LoweredBuffer = Mutable<TileBuffer>;

/** What a vertex reads of a buffer. */
export interface Read {
  readonly buffer: LoweredBuffer;
  readonly slice: Spread;
}

interface BufferOptions {
  /** Numbers an element; 1 unless given. */
  readonly width?: number;
  /** Bytes on a tile; those of the largest slice unless given. */
  readonly bytes?: number;
  readonly viewOf?: number;
}

/** The state of one lowering: every function of this folder reads and extends it. */
export class Lowering {
  readonly graph: Graph;
  readonly target: TileTarget;
  /** How each op is run, by its number. */
  readonly choices: readonly (Choice | undefined)[];
  readonly buffers: LoweredBuffer[] = [];
  readonly steps: TileStep[] = [];
  /** The number of the next step. */
  now = 0;
  /** Steps of the repeat that is being made. */
  body: TileStep[] | undefined;
  /** The buffer of each value that has one. */
  readonly homes = new Map<Value, number>();
  /** Distinct vertex types. */
  readonly vertices = new Set<string>();
  /** Reads of each value that are still to come. */
  readonly left = new Map<Value, number>();
  /** State by its new value. */
  readonly updates = new Map<Value, Value[]>();
  /** Constants and inputs that nothing has read yet: they can lie where their first reader wants them. */
  readonly free = new Set<Value>();
  /** The last op that overwrote a buffer: a second result of it cannot. */
  readonly takenBy = new Map<number, Op>();
  /** Steps whose code is there already: repeated blocks share it. */
  readonly #coded = new Set<string>();

  constructor(graph: Graph, target: TileTarget, choices: readonly (Choice | undefined)[]) {
    this.graph = graph;
    this.target = target;
    this.choices = choices;
    for (const op of graph.ops) for (const v of op.operands) this.#awaitRead(v);
    for (const o of graph.outputs) this.#awaitRead(o.value);
    for (const u of graph.updates) {
      this.updates.set(u.value, [...(this.updates.get(u.value) ?? []), u.state]);
      this.#awaitRead(u.value);
    }
  }

  #awaitRead(v: Value): void {
    this.left.set(v, (this.left.get(v) ?? 0) + 1);
  }

  /** Notes that one of the reads of a value is done. */
  noteRead(v: Value): void {
    this.left.set(v, this.left.get(v)! - 1);
  }

  /** A new buffer, which lives at the step that comes next. */
  newBuffer(type: TensorType, name: string, kind: BufferKind, spread: Spread, source: readonly string[], { width = 1, bytes, viewOf }: BufferOptions = {}): LoweredBuffer {
    const b: LoweredBuffer = {
      id: this.buffers.length, value: name, source, kind, dtype: type.dtype, shape: type.shape, spread, width,
      bytes: bytes ?? toGrain(this.target, largestSlice(spread) * width * dtypes[type.dtype].bytes), offset: 0, birth: this.now, death: this.now, ...(viewOf !== undefined && { viewOf }),
    };
    this.buffers.push(b);
    return b;
  }

  /** The buffer that a value lies in. */
  home(v: Value): LoweredBuffer {
    const id = this.homes.get(v);
    invariant(id !== undefined, `tiles: value ${v.name ?? '(unnamed)'} is read before it is made`);
    return this.buffers[id]!;
  }

  /** The buffer that a view shows, in the end. */
  root(b: LoweredBuffer): LoweredBuffer {
    let x = b;
    while (x.viewOf !== undefined) x = this.buffers[x.viewOf]!;
    return x;
  }

  /** Notes that a buffer, and the one it is a view of, hold something at the step that comes next. */
  touch(b: LoweredBuffer): void {
    for (let x: LoweredBuffer | undefined = b; x; x = x.viewOf === undefined ? undefined : this.buffers[x.viewOf]) x.death = Math.max(x.death, this.now);
  }

  /** Adds a step, to the repeat that is being made if there is one. */
  push(step: TileStep): void {
    (this.body ?? this.steps).push(step);
    this.now++;
  }

  /** Bytes of code that a step adds: none where an equal step has it. */
  once(key: string, bytes: () => number): number {
    if (this.#coded.has(key)) return 0;
    this.#coded.add(key);
    return bytes();
  }
}

/** What reports call a value: by its own name, else by its op's. */
export const nameOf = (v: Value, op: Op): string => v.name ?? op.results[0]?.name ?? op.name;
