/** Estimated cycles of vertices on one tile. Formulas of docs/tiles.md; every constant is the target's. */
import type { Op } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { dtypes, sizeOf, type DType } from '../../ir/type.ts';
import { isMap } from '../../ir/fused.ts';
import { grainInOf, macsOf, vectorOf, weightLoadOf, type TileTarget } from './target.ts';

const ceil = (n: number, d: number): number => Math.ceil(n / d);

/** A product of matrices with taps, on one tile. `groups` of them stand beside each other. */
export interface ProductSize {
  readonly groups: number;
  /** Places of the streamed operand and the result. */
  readonly rows: number;
  readonly cols: number;
  /** Summed elements that lie at one place, and places that are summed over (window taps). */
  readonly depth: number;
  readonly taps: number;
  /** Whether taps are summed, or are part of the result's columns or rows (gradients of weights). */
  readonly window: boolean;
}

/** Cycles of a contraction: the matrix unit with taps one by one, with taps unrolled into the depth, with operands swapped, or plain vectors, whichever is fastest. */
export function productCycles(t: TileTarget, dtype: DType, s: ProductSize): { readonly cycles: number; readonly vertex: string } {
  if (s.groups * s.rows * s.cols * s.depth * s.taps === 0) return { cycles: t.constants['matrix.vertex'], vertex: 'matrix' };
  const options = [
    { vertex: 'matrix', cycles: matrixCycles(t, dtype, packed(t, dtype, s)) },
    { vertex: 'matrix', cycles: matrixCycles(t, dtype, packed(t, dtype, { ...s, rows: s.cols, cols: s.rows })) },
    { vertex: 'vector', cycles: vectorCycles(t, dtype, s) },
  ];
  if (s.taps > 1) {
    const flat = { ...s, depth: s.depth * s.taps, taps: 1 };
    const copied = s.window ? s.groups * s.rows * s.depth * s.taps : s.groups * (s.rows + s.cols) * s.depth * s.taps;
    const unroll = (copied * dtypes[dtype].bytes) / t.constants.copy;
    options.push({ vertex: 'matrix', cycles: unroll + matrixCycles(t, dtype, packed(t, dtype, flat)) });
    options.push({ vertex: 'matrix', cycles: unroll + matrixCycles(t, dtype, packed(t, dtype, { ...flat, rows: s.cols, cols: s.rows })) });
  }
  return options.reduce((a, b) => (b.cycles < a.cycles ? b : a));
}

/** Several narrow groups share a block of the matrix unit, whose other entries are zero. */
function packed(t: TileTarget, dtype: DType, s: ProductSize): ProductSize {
  const grain = Math.min(grainInOf(t, dtype), t.constants.grainOut);
  const fit = Math.min(s.groups, Math.max(1, Math.floor(grain / Math.max(s.depth, s.cols))));
  return fit === 1 ? s : { ...s, groups: ceil(s.groups, fit), depth: s.depth * fit, cols: s.cols * fit };
}

function matrixCycles(t: TileTarget, dtype: DType, s: ProductSize): number {
  const k = t.constants;
  const [units, grainIn, grainOut] = [k.workers, grainInOf(t, dtype), k.grainOut];
  const perOutput = (grainIn * grainOut) / macsOf(t, dtype);
  const [ins, outs] = [ceil(s.depth, grainIn), ceil(s.cols, grainOut)];
  const n = ceil(s.rows, units);
  const zero = units * (ceil(grainOut * n, vectorOf(t, dtype)) + k['matrix.zero']) * outs;
  const point = s.taps === 1;
  const load = weightLoadOf(t, dtype) + (point ? k['matrix.loadPoint'] : k['matrix.loadWindow']);
  const start = point ? k['matrix.workerPoint'] : k['matrix.workerWindow'];
  const inner = load + units * (start + perOutput * Math.max(0, n - k['matrix.fill']));
  return k['matrix.vertex'] + s.groups * (zero + ins * (k['matrix.inGroup'] + outs * (k['matrix.outGroup'] + s.taps * inner)));
}

function vectorCycles(t: TileTarget, dtype: DType, s: ProductSize): number {
  const k = t.constants;
  const macs = s.groups * s.rows * s.cols * s.depth * s.taps;
  return k['vector.vertex'] + k.workers * (k['map.worker'] + ceil(macs, vectorOf(t, dtype) * k.workers) + (k['vector.row'] * ceil(s.rows, 16)) / k.workers);
}

/** Cycles a vector of elementwise ops, loads and stores apart. */
const elementCycles: Readonly<Record<string, number>> = {
  sigmoid: 4, tanh: 2, exp: 2, expm1: 3, log: 3, log1p: 3, sqrt: 6, rsqrt: 6, div: 3, recip: 3, erf: 8, pow: 12, sin: 10, cos: 10, tan: 14, asin: 14, acos: 14, atan: 14, sinh: 8, cosh: 8, asinh: 12, acosh: 12, atanh: 12, atan2: 16, mod: 8, fmod: 8, cast: 0.5,
};

/** Cycles a vector of all elementwise ops of a region on tensors as large as its largest; those on smaller ones are not counted. */
export function chainCycles(ops: readonly Op[]): number {
  const maps = ops.filter((o) => o.name !== 'constant' && isMap(o));
  const most = Math.max(0, ...maps.map((o) => sizeOf(o.results[0]!.type.shape)));
  return maps.reduce((n, o) => n + (sizeOf(o.results[0]!.type.shape) * 2 >= most ? (elementCycles[o.name] ?? 1) : 0), 0);
}

/** An elementwise chain over `elements`. */
export function mapCycles(t: TileTarget, dtype: DType, elements: number, chain: number): number {
  const k = t.constants;
  return k['map.vertex'] + k.workers * (k['map.worker'] + ceil(elements, k.workers * vectorOf(t, dtype)) * (chain + k['map.loadStore']));
}

/** A reduction over `elements` of its operand, with `chain` cycles a vector of elementwise ops before it. */
export function reduceCycles(t: TileTarget, dtype: DType, elements: number, chain: number): number {
  const k = t.constants;
  return k['reduce.vertex'] + k.workers * (k['map.worker'] + ceil(elements, k.workers * vectorOf(t, dtype)) * (k['reduce.step'] + chain));
}

/** A pool over `elements` results (of the gradient: of what goes in). */
export function windowCycles(t: TileTarget, op: Op, elements: number, rows: number): number {
  const k = t.constants;
  const kernel = (op.attrs['kernel'] as readonly number[] | undefined) ?? [1];
  const step = op.name.endsWith('Grad') ? k['pool.back'] : k['pool.step'];
  return k.workers * ceil(elements, k.workers * vectorOf(t, op.results[0]!.type.dtype)) * step * sizeOf(kernel) + k['pool.row'] * rows;
}

/** Bytes moved within a tile. */
export const copyCycles = (t: TileTarget, bytes: number): number => t.constants['map.vertex'] + bytes / t.constants.copy;

/** An exchange, from the most bytes that a tile receives and sends. `streamed`: of those that it receives, what pairs of tiles receive together. */
export const exchangeCycles = ({ constants }: TileTarget, received: number, streamed: number, sent: number): number => Math.max(received - streamed + streamed / constants.pairFactor, sent) / constants.exchange;

/** An op that runs whole on one tile, by the elements it touches; a loop counts its trips. */
export function singleCycles(t: TileTarget, op: Op): number {
  const elements = [...op.operands, ...op.results].reduce((n, v) => n + sizeOf(v.type.shape), 0);
  if (op.regions.length === 0) {
    const def = opDef(op.name);
    const sort = def.family === 'sort' ? Math.max(1, Math.log2(Math.max(2, elements))) : 1;
    return t.constants['vector.vertex'] + elements * 4 * sort;
  }
  const inside = op.regions.map((r) => r.ops.reduce((n, o) => n + (o.name === 'constant' ? 0 : singleCycles(t, o)), 0));
  return op.name === 'loop' ? Math.max(1, num(op.attrs, 'trips')) * inside[0]! : Math.max(0, ...inside);
}
