/** The op of a vertex that walks more than elements: contractions, reductions, windows, moves. */
import type { Axes, Index, Piece, Stage } from '../../ir/axes.ts';
import { InternalError } from '../../ir/diagnostic.ts';
import type { Op } from '../../ir/graph.ts';
import { isBig, refData, settle } from '../../ir/number.ts';
import { num, nums, type RefTensor } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { isFloat, type TensorType } from '../../ir/type.ts';
import { runLocal, take, type Held } from './held.ts';
import { sameList, wholeList, type Slice } from './parts.ts';
import type { Made } from './walk/combine.ts';
import type { Ranges } from './walk/reader.ts';
import { walkStage } from './walk/stage.ts';

/** What each part sees of the dims of an op: `@i` names axis i of the result. Undefined where a dim is whole. */
export type CutOf = (name: string) => Int32Array | undefined;

const described = new WeakMap<Op, Axes | undefined>();

/** The axes of an op, undefined where it has none. */
export function axesOf(op: Op): Axes | undefined {
  if (!described.has(op)) {
    const axes = op.regions.length > 0 ? { none: 'regions' } : opDef(op.name).axes(op.operands.map((v) => v.type), op.attrs, op.results.map((v) => v.type));
    described.set(op, 'none' in axes || axes.stages.length !== 1 || axes.stages[0]!.pieces.length === 0 ? undefined : axes);
  }
  return described.get(op);
}

/** The values of the dims of each piece under the cuts of a part. */
export function rangesOf(axes: Axes, cut: CutOf): Ranges {
  const sizes = new Map(axes.space.map((d) => [d.name, d.size]));
  return (piece, dim) => {
    const own = cut(dim);
    if (own) return own;
    const whole = wholeList(sizes.get(dim)!);
    for (const [axis, { terms, plus }] of piece.writes.entries()) {
      const list = cut(`@${axis}`);
      if (!list || !terms.some(([name]) => name === dim)) continue;
      const times = terms[0]![1];
      if (terms.length > 1) throw new InternalError(`result axis ${axis} is cut, but several dims lie on it`);
      return within(whole, list, times, plus);
    }
    return whole;
  };
}

const filtered = new WeakMap<Int32Array, Map<string, Int32Array>>();

/** The values of a dim whose places on an axis are in a list; the same array for the same list. */
function within(values: Int32Array, list: Int32Array, times: number, plus: number): Int32Array {
  let known = filtered.get(list);
  if (!known) filtered.set(list, (known = new Map()));
  const key = `${values.length} ${times} ${plus}`;
  let found = known.get(key);
  if (!found) {
    const held = new Set(list);
    known.set(key, (found = values.filter((v) => held.has(v * times + plus))));
  }
  return found;
}

const walked: ReadonlySet<Stage['combine']> = new Set(['none', 'sum', 'prod', 'max', 'min', 'moments', 'argmax']);

/** Whether a stage says all that its op computes: no index that the body uses, none read at run time. */
function isWalked(root: Op, axes: Axes): boolean {
  const stage = axes.stages[0]!;
  const bodies = root.name === 'maxPool' || root.name === 'resample';
  const plain = stage.pieces.every((p) => (bodies || p.indexed.length === 0) && p.reads.every((r) => r === null || r.every((i) => i.kind !== 'whole')) && p.reads.some((r) => r !== null)) && axes.space.every((d) => d.role !== 'scan');
  const operands = stage.pieces.every((p) => p.reads.filter((r) => r !== null).length <= (stage.product ? 2 : 1));
  const big = root.operands.some((v) => isBig(v.type.dtype));
  return plain && operands && opDef(root.name).family !== 'random' && walked.has(stage.combine) && (stage.combine !== 'argmax' || root.name === 'maxPool') && (!big || stage.combine === 'none' || stage.combine === 'sum');
}

/** What a part makes of an op's results before they are rounded; of moments count, mean and sum of squares. */
export function runRoot(root: Op, cut: CutOf, operands: readonly Held[], made: Slice): { readonly combine: Stage['combine']; readonly data: Made } {
  const axes = axesOf(root);
  if (!axes) throw new InternalError(`${root.name} has no axes, so that it runs whole`);
  const stage = axes.stages[0]!;
  const ranges = rangesOf(axes, cut);
  if (!isWalked(root, axes)) return { combine: 'none', data: byReference(root, axes, ranges, operands, made).map((r) => r.data) };
  const { dtype } = root.results[0]!.type;
  const weights = root.name === 'resample' && isFloat(dtype) ? nums(root.attrs, 'weights') : [];
  if (weights.every((w) => w === 1)) return { combine: stage.combine, data: walkStage(axes, stage, ranges, operands, dtype, made, root.name) };
  const weight: Held = { shape: [weights.length], dtype: 'f64', data: Float64Array.from(weights), lists: [wholeList(weights.length)], flat: false };
  return { combine: stage.combine, data: walkStage(axes, weighted(root, stage, num(root.attrs, 'taps')), ranges, [...operands, weight], dtype, made, root.name) };
}

const withWeights = new WeakMap<Op, Stage>();

/** The stage of a resample whose taps have weights: a second operand, at the tap's own place. */
function weighted(root: Op, stage: Stage, taps: number): Stage {
  let found = withWeights.get(root);
  if (!found) {
    const [position, tap] = stage.pieces[0]!.indexed as readonly [string, string | undefined];
    const at: Index = { kind: 'affine', terms: tap === undefined ? [[position, taps]] : [[position, taps], [tap, 1]], plus: 0, over: 1, outside: 'error' };
    withWeights.set(root, (found = { ...stage, pieces: stage.pieces.map((p): Piece => ({ ...p, reads: [...p.reads, [at]] })), product: true }));
  }
  return found;
}

/** The results of a root as they are stored: rounded, of moments mean and sum of squares alone. */
export function stored(root: Op, combine: Stage['combine'], data: Made, made: Slice): Held[] {
  const wanted = combine === 'moments' ? data.slice(1) : data;
  return root.results.map((r, i) => {
    const { dtype, shape } = r.type;
    settle({ dtype, shape, data: wanted[i]! });
    return { dtype, shape, data: wanted[i]!, ...made };
  });
}

/** Dims that an op walks straight along its operands and results and knows no size of: a slice of them is an op of its own. */
function plainDims(root: Op, axes: Axes): ReadonlySet<string> {
  const { pieces } = axes.stages[0]!;
  const straight = (terms: readonly (readonly [string, number])[], plus: number, dim: string): boolean => !terms.some(([d]) => d === dim) || (terms.length === 1 && terms[0]![1] === 1 && plus === 0);
  if ('shape' in root.attrs) return new Set();
  return new Set(axes.space.filter((d) => d.role === 'parallel' && pieces.every((p) => {
    const read = p.reads.every((r) => r === null || r.every((i) => {
      if (i.kind === 'affine') return i.over === 1 && straight(i.terms, i.plus, d.name);
      return i.kind === 'whole' ? i.dim !== d.name : i.kind === 'table' ? i.dim !== d.name && i.inner !== d.name : !i.dims.includes(d.name);
    }));
    return read && p.dims.includes(d.name) && !p.indexed.includes(d.name) && p.writes.every((w) => straight(w.terms, w.plus, d.name));
  })).map((d) => d.name));
}

/**
 * Runs the interpreter's op on whole tensors, but for the dims that it walks straight along. What the tile does not hold is NaN (-1 in integers) there, so that what depends on it is
 * wrong, and the slice that is made is taken out.
 */
function byReference(root: Op, axes: Axes, ranges: Ranges, operands: readonly Held[], made: Slice): RefTensor[] {
  const plain = plainDims(root, axes);
  const { pieces } = axes.stages[0]!;
  const piece = pieces.find((p) => p.reads.every((r) => r !== null)) ?? pieces[0]!;
  const listOf = (terms: readonly (readonly [string, number])[]): Int32Array | undefined => (terms.length === 1 && plain.has(terms[0]![0]) ? ranges(piece, terms[0]![0]) : undefined);
  const locals = operands.map((held, k) => {
    const indices = piece.reads[k] ?? null;
    const kept = held.lists.map((_, axis) => {
      const index = indices?.[axis];
      return index?.kind === 'affine' ? listOf(index.terms) : undefined;
    });
    return embedded(held, kept, root.name);
  });
  const kept = piece.writes.map((w) => listOf(w.terms));
  const types = root.results.map(({ type }): TensorType => ({ dtype: type.dtype, shape: type.shape.map((d, axis) => kept[axis]?.length ?? d) }));
  return runLocal(root, locals, types).map((r) => {
    const whole: Held = { ...r, lists: kept.map((l, axis) => l ?? wholeList(r.shape[axis]!)), flat: false };
    return { ...r, data: take(whole, made.lists, root.name) };
  });
}

/** A slice in a tensor that is whole along all axes without a list of their own. */
function embedded(held: Held, kept: readonly (Int32Array | undefined)[], what: string): RefTensor {
  const { dtype } = held;
  const lists = held.lists.map((l, axis) => kept[axis] ?? l);
  const data = take(held, lists, what);
  const shape = lists.map((l, axis) => (kept[axis] ? l.length : held.shape[axis]!));
  if (lists.every((l, axis) => l.length === shape[axis])) return { dtype, shape, data };
  const out = refData({ dtype, shape });
  if (out instanceof Float64Array) out.fill(isFloat(dtype) ? NaN : -1);
  else out.fill(-1n);
  let to = Int32Array.of(0);
  lists.forEach((list, axis) => {
    const place = kept[axis] && sameList(kept[axis], list) ? wholeList(list.length) : list;
    const next = new Int32Array(to.length * place.length);
    let at = 0;
    for (let i = 0; i < to.length; i++) for (let j = 0; j < place.length; j++) next[at++] = to[i]! * shape[axis]! + place[j]!;
    to = next;
  });
  for (let i = 0; i < to.length; i++) out[to[i]!] = data[i]!;
  return { dtype, shape, data: out };
}
