/** Tile programs: steps over placed tensors, with a static memory plan. Backends turn one into code and decide nothing. */
import type { Graph, Op, Value } from './graph.ts';
import type { DType, Tensor, TensorType } from './type.ts';

/** Where a value lies: `offset` and `strides` in elements of its dtype, one stride an axis; views (slices, transposes, parts of a concat) share a buffer. */
export interface Placement {
  readonly buffer: number;
  readonly offset: number;
  readonly strides: readonly number[];
}

/** What a kernel sees of an operand or result. */
export interface Placed {
  readonly type: TensorType;
  readonly strides: readonly number[];
}

/**
 * A range of memory. `constant`: weights, loaded once; `state`: lives across runs; `input` and `output`: filled by the host before an entry runs and read by it
 * after; `temp`: shares addresses with buffers whose lifetimes do not meet its own, and so do inputs and outputs where the target says so. `address` is in bytes from the start of the data region, a multiple of 64.
 */
export interface Buffer {
  readonly id: number;
  readonly kind: 'constant' | 'state' | 'input' | 'output' | 'temp';
  readonly bytes: number;
  readonly address: number;
}

export type Step =
  /** Runs one op; a barrier follows. */
  | { readonly kind: 'kernel'; readonly op: Op }
  /** Runs `then` if the bool scalar is true, else `otherwise`. Results were placed so that both write to the same place. */
  | { readonly kind: 'if'; readonly op: Op; readonly condition: Value; readonly then: readonly Step[]; readonly otherwise: readonly Step[] }
  /** While `proceed` (a bool scalar, set before) is true and `index` (an i64 scalar, 0 before) is below `limit` (an i64 scalar): body, then index + 1. */
  | { readonly kind: 'loop'; readonly op: Op; readonly index: Value; readonly limit: Value; readonly proceed: Value; readonly body: readonly Step[] }
  /** Copies values of equal type; all are read before any is written, through scratch where sources and targets overlap. */
  | { readonly kind: 'move'; readonly from: readonly Value[]; readonly to: readonly MoveTarget[]; readonly op: Op };

/** Where a move writes: a value, or one row of a stacked scan result at the loop's index. */
export type MoveTarget = Value | { readonly stack: Value; readonly index: Value };

/** What one call runs. `graph`: what it was planned from, where that is not the program's own. */
export interface Entry {
  readonly name: string;
  readonly graph?: Graph;
  readonly steps: readonly Step[];
}

/**
 * How finely kernels are cut on a machine whose tiles are cores with caches. `tiles`: parts that may run at once, so that more chunks than that share out evenly. `bytesPerTile`: what the slices of a vertex
 * take at most, where its op can be cut so far. A *vertex* is what a kernel's loops come back to: a chunk, or within a chunk of a product a pass of weight panels over rows.
 */
export interface Division {
  readonly tiles: number;
  readonly bytesPerTile: number;
}

/** Chunks that work of a kernel is cut into at most, and at least where it can be: some for each tile, and enough for the threads of a small machine, which others use too, to share out evenly. */
export const mostChunks = ({ tiles }: Division): number => Math.max(32, 2 * tiles);
export const fewestChunks = ({ tiles }: Division): number => Math.max(8, Math.ceil(tiles / 2));

/** The division of a program whose target names none: that of targets/cpu.json. */
export const usualDivision: Division = { tiles: 16, bytesPerTile: 512 * 1024 };

export interface TileProgram {
  readonly graph: Graph;
  readonly entries: readonly Entry[];
  readonly buffers: readonly Buffer[];
  readonly placements: ReadonlyMap<Value, Placement>;
  /** Initial contents: values of `constant` and `state` buffers. */
  readonly contents: readonly { readonly value: Value; readonly name: string; readonly tensor: Tensor | 'zero' }[];
  /** What kernels are cut by; `usualDivision` where nothing is said. */
  readonly division?: Division;
  /**
   * Bytes by role. `io`: of inputs and outputs. `temps`: of the region in which addresses are shared, inputs and outputs included where they are in it. `liveBound`:
   * the largest sum of bytes live there at one step, below which no plan of these steps can end. `scheduleBytes`: the largest sum of live inputs and results under
   * the best of three orders of the graph, in-place reuse and views of concats not counted.
   */
  readonly memory: { readonly constants: number; readonly state: number; readonly io: number; readonly temps: number; readonly liveBound: number; readonly scheduleBytes: number };
}

/** What passes know of the machine they plan for. Plain data. */
export interface Target {
  readonly name: string;
  /** 32-bit lanes of one vector. */
  readonly lanes: number;
  /** Columns of a packed weight panel (a multiple of lanes); 0 where kernels read weights as they are. */
  readonly panel: number;
  /** Weight bytes that packing may produce, as a multiple of the weights' own bytes. */
  readonly packBudget: number;
  /** Whether algorithms that trade multiplications for additions may be chosen: Winograd's for convolutions, and his form of Strassen's for products. */
  readonly winograd: boolean;
  /** Where tiles are cores with caches: what kernels are cut by. Values that are larger than two tiles may then be computed and read in bands of rows, which fit one. */
  readonly division?: Division;
  /** Whether inputs and outputs share addresses with temporaries: an input's memory is free after its last reader, an output's before its first writer. */
  readonly sharedIo?: boolean;
  /** Where each element takes the same bytes, whatever its dtype but for those of `own`, and buffers take a multiple of some bytes; elsewhere, and of `own`, elements take what `dtypes` says. */
  readonly storage?: { readonly elementBytes: number; readonly granularity: number; readonly own?: readonly DType[] };
}
