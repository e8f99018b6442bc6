/** Cycles and bytes of one op under a way of cutting it, from the sizes of its parts alone. */
import type { Index } from '../../ir/axes.ts';
import { isMap } from '../../ir/fused.ts';
import type { Op } from '../../ir/graph.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import { chainCycles, copyCycles, mapCycles, productCycles, reduceCycles, singleCycles, windowCycles, type ProductSize } from './cost.ts';
import type { TileTarget } from './target.ts';
import type { Walk, WalkPiece } from './walk.ts';

/** Local sizes of the vars of a walk, by position. */
export type Sizes = readonly number[];

interface AxisCount { readonly terms: readonly (readonly [dim: number, times: number])[]; readonly size: number; readonly fixed: number }
interface PieceCount {
  /** Where the local size of each dim comes from: a var and the distance of its places, or a fixed size. */
  readonly dims: readonly { readonly at: number; readonly times: number; readonly size: number }[];
  readonly operands: readonly (readonly (readonly AxisCount[])[])[];
  readonly product: { readonly groups: readonly number[]; readonly rows: readonly number[]; readonly cols: readonly number[]; readonly depth: readonly number[]; readonly taps: readonly number[]; readonly window: boolean };
}

/** What is computed once for a walk so that many cuts can be judged fast. */
export interface Model {
  readonly walk: Walk;
  readonly pieces: readonly PieceCount[];
  readonly operandBytes: readonly number[];
  readonly resultBytes: readonly number[];
  readonly resultVars: readonly { readonly at: number }[];
  readonly fixedResult: number;
  readonly chainBefore: number;
  readonly chainAfter: number;
  readonly width: number;
}

/** Cycles and bytes on the worst tile. */
export interface Estimate {
  readonly compute: number;
  /** Of the merge of contributions, if reduced dims are cut. */
  readonly merge: number;
  readonly operands: readonly number[];
  readonly result: number;
  readonly partial: number;
  readonly macs: number;
  readonly vertex: string;
}

/** What all estimates of one walk share. */
export function modelOf(walk: Walk): Model {
  const { op, root } = walk;
  const region = op.regions[0];
  const inside = op.name === 'fused' ? region!.ops : [op];
  const at = inside.indexOf(root);
  const [before, after] = walk.kind === 'map' ? [[], inside] : [inside.slice(0, at), inside.slice(at + 1)];
  const shape = op.results[0]?.type.shape ?? [];
  const resultDims = new Set(walk.vars.filter((v) => v.role === 'parallel').map((v) => v.name));
  const cut = walk.vars.reduce((n, v) => (resultDims.has(v.name) ? n * v.size : n), 1);
  return {
    walk,
    pieces: walk.pieces.map((p) => pieceOf(walk, p)),
    operandBytes: op.operands.map((v) => dtypes[v.type.dtype].bytes),
    resultBytes: op.results.map((v) => dtypes[v.type.dtype].bytes),
    resultVars: walk.vars.flatMap((v, i) => (v.role === 'parallel' ? [{ at: i }] : [])),
    fixedResult: sizeOf(shape) / Math.max(1, cut),
    chainBefore: chainCycles(before.filter((o) => isMap(o))),
    chainAfter: chainCycles(after.filter((o) => isMap(o))),
    width: walk.combine === 'moments' ? 3 : 1,
  };
}

function pieceOf(walk: Walk, piece: WalkPiece): PieceCount {
  const names = [...piece.dims];
  const position = new Map(names.map((n, i) => [n, i]));
  const dims = names.map((name) => {
    const own = walk.vars.findIndex((v) => v.name === name && v.axis === undefined);
    if (own >= 0) return { at: own, times: 1, size: walk.sizes.get(name)! };
    const placed = walk.vars.findIndex((v) => v.axis !== undefined && piece.writes[v.axis]!.terms.some(([d]) => d === name));
    const times = placed >= 0 ? Math.abs(piece.writes[walk.vars[placed]!.axis!]!.terms[0]![1]) : 1;
    return { at: placed, times, size: walk.sizes.get(name)! };
  });
  const counted = (index: Index, size: number): AxisCount => {
    if (index.kind === 'affine') return { terms: index.terms.map(([d, times]) => [position.get(d)!, Math.abs(times) / index.over] as const), size, fixed: 1 };
    if (index.kind === 'table') return { terms: [index.dim, ...(index.inner === undefined ? [] : [index.inner])].map((d) => [position.get(d)!, 1] as const), size, fixed: 1 };
    return { terms: [], size, fixed: size };
  };
  const operands = walk.op.operands.map((v, k) => piece.reads[k]!.map((indices) => indices.map((index, axis) => counted(index, v.type.shape[axis]!))));
  return { dims, operands, product: productDims(walk, piece, names) };
}

/** Dims by the part they play in a product of two operands. */
function productDims(walk: Walk, piece: WalkPiece, names: readonly string[]): PieceCount['product'] {
  const none = { groups: [], rows: [], cols: [], depth: [], taps: [], window: false };
  if (walk.kind !== 'contract') return none;
  const { root, op } = walk;
  const place = root === op ? [0, 1] : root.operands.map((v) => op.regions[0]!.inputs.indexOf(v));
  const dimsOf = (k: number): Set<string> => new Set((piece.reads[place[k]!]![0] ?? []).flatMap((i) => (i.kind === 'affine' ? i.terms.map(([d]) => d) : [])));
  const [a, b] = [dimsOf(0), dimsOf(1)];
  const placed = new Set(piece.writes.flatMap((w) => w.terms.map(([d]) => d)));
  const joined = new Set<string>();
  for (const index of piece.reads[place[0]!]![0] ?? []) {
    if (index.kind !== 'affine' || index.terms.length < 2) continue;
    // A window slides where a step of a placed dim is shorter than what a summed one spans; else the two are merged, like a group and its channels.
    for (const [d, times] of index.terms) {
      const span = (walk.sizes.get(d)! - 1) * Math.abs(times) + 1;
      if (!placed.has(d) && index.terms.some(([other, step]) => placed.has(other) && walk.sizes.get(other)! > 1 && Math.abs(step) < span)) joined.add(d);
    }
  }
  const out = { groups: [] as number[], rows: [] as number[], cols: [] as number[], depth: [] as number[], taps: [] as number[], window: root.name !== 'convWeight' };
  names.forEach((d, i) => {
    const inBoth = a.has(d) && b.has(d);
    if (placed.has(d)) (inBoth ? out.groups : b.has(d) && !a.has(d) ? out.cols : out.rows).push(i);
    else (joined.has(d) ? out.taps : out.depth).push(i);
  });
  return out;
}

const localSize = (d: PieceCount['dims'][number], sizes: Sizes): number => (d.at < 0 ? d.size : Math.min(d.size, Math.ceil(sizes[d.at]! / d.times)));

/** Estimates an op whose vars have the given local sizes on the worst tile; `parts` is how many contribute to each result. */
export function estimate(m: Model, t: TileTarget, sizes: Sizes, parts: number): Estimate {
  const { walk } = m;
  const { op } = walk;
  if (walk.kind === 'single') {
    const bytes = op.operands.map((v, k) => sizeOf(v.type.shape) * m.operandBytes[k]!);
    const result = op.results.reduce((n, v, k) => n + sizeOf(v.type.shape) * m.resultBytes[k]!, 0);
    return { compute: singleCycles(t, op), merge: 0, operands: bytes, result, partial: 0, macs: 0, vertex: op.name };
  }
  const elements = resultElements(m, sizes);
  const result = elements * m.resultBytes.reduce((n, b) => n + b, 0);
  const operands = op.operands.map((_, k) => operandBytes(m, sizes, k));
  const dtype = op.results[0]!.type.dtype;
  const split = parts > 1;
  const partial = split ? partialBytes(m, sizes) : 0;
  const merge = split ? reduceCycles(t, dtype, elements * m.width, 0) + (m.chainAfter > 0 ? mapCycles(t, dtype, Math.ceil(elements / parts), m.chainAfter) : 0) : 0;
  const after = split || m.chainAfter === 0 ? 0 : mapCycles(t, dtype, elements, m.chainAfter) - t.constants['map.vertex'];
  switch (walk.kind) {
    case 'contract': {
      let [cycles, macs, vertex] = [after, 0, 'matrix'];
      for (const p of m.pieces) {
        const size = productSize(p, sizes);
        const made = productCycles(t, op.operands[0]!.type.dtype, size);
        cycles += made.cycles;
        macs += size.groups * size.rows * size.cols * size.depth * size.taps;
        vertex = made.vertex;
      }
      return { compute: cycles, merge, operands, result, partial, macs, vertex: `${vertex} ${dtype}` };
    }
    case 'map': return { compute: mapCycles(t, dtype, elements, m.chainAfter), merge, operands, result, partial, macs: 0, vertex: `map ${dtype}` };
    case 'reduce': {
      const read = macsOfPart(m, sizes);
      return { compute: reduceCycles(t, dtype, read, m.chainBefore) + after, merge, operands, result, partial, macs: 0, vertex: `${walk.root.name} ${dtype}` };
    }
    case 'window': return { compute: windowCycles(t, walk.root, elements, sizes.length > 2 ? sizes[sizes.length - 2]! : 1) + after, merge, operands, result, partial, macs: 0, vertex: `${walk.root.name} ${dtype}` };
    default: return { compute: copyCycles(t, result), merge, operands, result, partial, macs: 0, vertex: `copy ${dtypes[dtype].bytes}` };
  }
}

/** Points that the worst part walks: its multiply-adds, of a product. */
export function macsOfPart(m: Model, sizes: Sizes): number {
  let macs = 0;
  for (const p of m.pieces) {
    let n = 1;
    for (const d of p.dims) n *= localSize(d, sizes);
    macs += n;
  }
  return macs;
}

/** Bytes of operand `k` that the worst part reads. */
export const operandBytes = (m: Model, sizes: Sizes, k: number): number => operandElements(m, sizes, k) * m.operandBytes[k]!;

/** Bytes of what the worst part contributes to a result whose reduced dims are cut. */
export const partialBytes = (m: Model, sizes: Sizes): number => resultElements(m, sizes) * m.resultBytes[0]! * m.width;

function resultElements(m: Model, sizes: Sizes): number {
  let elements = m.fixedResult;
  for (const { at } of m.resultVars) elements *= sizes[at]!;
  return elements;
}

function productSize(p: PieceCount, sizes: Sizes): ProductSize {
  const of = (list: readonly number[]): number => list.reduce((n, i) => n * localSize(p.dims[i]!, sizes), 1);
  return { groups: of(p.product.groups), rows: of(p.product.rows), cols: of(p.product.cols), depth: of(p.product.depth), taps: of(p.product.taps), window: p.product.window };
}

/** Elements of an operand that the worst part reads. */
function operandElements(m: Model, sizes: Sizes, k: number): number {
  let most = 0;
  for (const p of m.pieces) {
    for (const axes of p.operands[k]!) {
      let n = 1;
      for (const a of axes) {
        if (a.terms.length === 0) {
          n *= a.fixed;
          continue;
        }
        let [span, product] = [1, 1];
        for (const [d, times] of a.terms) {
          const local = localSize(p.dims[d]!, sizes);
          span += times * (local - 1);
          product *= local;
        }
        n *= Math.min(a.size, Math.ceil(span), product);
      }
      most = Math.max(most, n);
    }
  }
  return most;
}

/** Whether an op does nothing but rename axes where its operand lies. */
export const isView = (op: Op): boolean => op.name === 'reshape';
