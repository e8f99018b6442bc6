/** Plans for machines of many tiles with memories of their own: which slice of which value lies where, and every step over them. docs/tiles.md explains the model. */

/** Elements of one axis: base + Σ iₖ·stepₖ for iₖ < nₖ, coarse to fine, in ascending order. No levels: one element. A level with n = 0: none. */
export interface Comb { readonly base: number; readonly levels: readonly { readonly n: number; readonly step: number }[] }

/** A dimension of tile space. Part p lies `stride · p` tiles further. `time`: parts follow each other on the same tile (a serial split); its stride is 0. */
export interface TileDim { readonly name: string; readonly parts: number; readonly stride: number; readonly time?: true }

/** What each part sees of one axis: `combs` by the parts of the tile dims `by`, the last one fastest. */
export interface Cut { readonly by: readonly number[]; readonly combs: readonly Comb[] }

/**
 * Slices of one tensor over the tiles. The part (p₀, p₁, …) lies on tile (base + Σ pᵢ·strideᵢ) mod tiles and holds the product of its axes' combs. A dim that no axis
 * names replicates. `flat`: the only axis counts elements in row-major order.
 */
export interface Spread {
  readonly base: number;
  readonly dims: readonly TileDim[];
  readonly axes: readonly Cut[];
  readonly flat?: true;
}

/** How an op is cut: its own dims by the parts of tile space. Dims that are missing here are whole on every tile. */
export interface Division {
  readonly base: number;
  readonly dims: readonly TileDim[];
  readonly ranges: Readonly<Record<string, Cut>>;
  /** The op is elementwise over operands of one shape (and scalars), and is run on flattened slices. */
  readonly flat?: true;
}

export type BufferKind =
  /** Lives through the whole program: parameters, moments, running statistics, constants. */
  | 'state' | 'constant'
  /** Written by the host before the first step, read by it after the last. */
  | 'input' | 'output'
  /** A value between the op that makes it and its last reader. */
  | 'activation'
  /** Operand slices collected for one op. */
  | 'gather'
  /** What each tile contributes to a result, before the contributions meet. */
  | 'partial'
  /** Contributions on the tile that merges them. */
  | 'receive';

/** A range of memory, at one address on all tiles: the slot is as large as the largest slice. `birth` and `death` are the first and last step that it is held at. */
export interface TileBuffer {
  readonly id: number;
  /** The value it holds, by its name in the program's text. */
  readonly value: string;
  /** ONNX nodes that the value came from. */
  readonly source: readonly string[];
  readonly kind: BufferKind;
  readonly dtype: string;
  /** The shape of the whole tensor. */
  readonly shape: readonly number[];
  readonly spread: Spread;
  /** Scalars of the dtype that one element takes (3 for moments: count, mean and sum of squares). */
  readonly width: number;
  /** Bytes of the largest slice, rounded up to the target's grain. */
  readonly bytes: number;
  readonly offset: number;
  readonly birth: number;
  readonly death: number;
  /** The buffer whose memory this one is a view of: same elements in the same local order, another shape. */
  readonly viewOf?: number;
}

/** Cycles of a step on the worst tile. */
export interface StepCycles { readonly compute: number; readonly exchange: number; readonly sync: number }

/** Every part of `to` receives its slice from the parts of `from` that hold it. With `merge`, all contributions to an element arrive, ordered by the part they come from. */
export interface Copy { readonly from: number; readonly to: number; readonly merge?: true }

export type TileStep =
  | { readonly kind: 'exchange'; readonly index: number; readonly copies: readonly Copy[]; readonly bytes: number; readonly largest: number; readonly cycles: StepCycles; readonly code: number }
  | {
      readonly kind: 'compute';
      readonly index: number;
      /** Number of the op in the program's graph, and what part of it runs: all of it, contributions to a result, or their merge with what follows the root. */
      readonly op: number;
      readonly part: 'whole' | 'contribute' | 'merge';
      readonly name: string;
      /** ONNX nodes that the op came from. */
      readonly source: readonly string[];
      /** The op that is more than elementwise, or `map`. */
      readonly root: string;
      readonly vertex: string;
      readonly division: Division;
      /** Buffers of the operands and the slices that the op reads of them (equal to the buffer's own spread, or within it on every tile). */
      readonly reads: readonly { readonly buffer: number; readonly slice: Spread }[];
      readonly writes: readonly { readonly buffer: number; readonly slice: Spread }[];
      readonly cycles: StepCycles;
      readonly code: number;
      readonly macs: number;
    }
  /** Runs the body once for each part of its time dims. */
  | { readonly kind: 'repeat'; readonly index: number; readonly times: number; readonly body: readonly TileStep[] };

/** Bytes at the worst moment, and of what they are. */
export interface TileMemory {
  readonly always: number;
  readonly code: number;
  readonly peak: number;
  readonly peakStep: number;
  /** Addresses between buffers that hold nothing at the peak. */
  readonly gaps: number;
  readonly total: number;
  readonly limit: number;
}

/** What is computed again after a sum over all parts, and not held until then: nothing, what follows without sums or products, or all. */
export type Again = 'none' | 'light' | 'all';

/** A region of a graph that is computed part by part: what an axis of a value, cut in `parts`, spreads to among the ops `first` to `last`. Numbers are those of the graph before. */
export interface RegionInParts {
  /** The value: a result of an op, an input or a state of the graph. */
  readonly from: { readonly op: number; readonly result: number } | { readonly input: number } | { readonly state: number };
  readonly axis: number;
  readonly parts: number;
  readonly first: number;
  readonly last: number;
  readonly again: Again;
  /** A chain of ops through the value, those at `first` to `last` of it, in bands of an axis that windows slide along. */
  readonly bands?: true;
}

export interface TilePlan {
  readonly version: 1;
  readonly model: string;
  /** Digest of the graph's text: a plan belongs to one graph. */
  readonly graph: string;
  readonly target: string;
  readonly tiles: number;
  readonly bytesPerTile: number;
  readonly grain: number;
  readonly samples: number;
  /** Bytes of code that each distinct vertex of the program takes on a tile. */
  readonly vertexTypeBytes: number;
  /** SHA-256 of the ONNX file that was planned, in hex; absent where the graph came from elsewhere. */
  readonly onnx?: string;
  /** How the planned graph was made of another, whose digest is `of`: regions in parts, one after the other. */
  readonly inParts?: { readonly of: string; readonly regions: readonly RegionInParts[] };
  readonly buffers: readonly TileBuffer[];
  readonly steps: readonly TileStep[];
  readonly memory: TileMemory;
  /** Bounds that had to be relaxed, levers that were taken. */
  readonly notes: readonly string[];
}

/** No element. */
export const nothing: Comb = { base: 0, levels: [{ n: 0, step: 1 }] };
/** `n` neighbouring elements from `base`. */
export const run = (base: number, n: number): Comb => (n === 1 ? { base, levels: [] } : { base, levels: [{ n, step: 1 }] });
/** Number of elements. */
export const countOf = (c: Comb): number => c.levels.reduce((n, l) => n * l.n, 1);
/** The last element; meaningless for an empty comb. */
export const lastOf = (c: Comb): number => c.levels.reduce((s, l) => s + (l.n - 1) * l.step, c.base);

/** The elements of a comb in ascending order. */
export function elementsOf(c: Comb): number[] {
  let list = [c.base];
  for (const { n, step } of c.levels) list = list.flatMap((from) => Array.from({ length: n }, (_, i) => from + i * step));
  return list;
}

/** The digits of a number in a mixed radix, the last one fastest: the parts of some tile dims that stand at a position of a table. */
export function digitsOf(number: number, sizes: readonly number[]): number[] {
  const out = sizes.map(() => 0);
  let rest = number;
  for (let i = sizes.length - 1; i >= 0; i--) {
    out[i] = rest % sizes[i]!;
    rest = Math.floor(rest / sizes[i]!);
  }
  return out;
}
