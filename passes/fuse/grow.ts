/** Which ops join a root: the policies of the four kinds of fusion (docs/ir.md). */
import { isMap, isReduceRoot, isRowReduction, type FusedKind } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { sameShape, sizeOf } from '../../ir/type.ts';
import { escaping, type Clusters } from './clusters.ts';
import { growSiblings } from './siblings.ts';

/** Tensors that one fused op reads at most: kernels hold a pointer for each. Scalars do not count. */
const maxOperands = 12;
/** Ops in one fused op at most. */
const maxOps = 64;
/** Results of one fused map at most. */
const maxMapResults = 4;
/** Cheap enough to be computed again for each window that reads an element. */
const cheap: ReadonlySet<string> = new Set(['relu', 'add', 'sub', 'mul', 'neg', 'abs', 'min', 'max', 'clamp']);

type Accept = (op: Op) => boolean;

/** A contraction and the elementwise ops after it, up to the last point where one value leaves. */
export function growContract(root: Op, c: Clusters): ReadonlySet<Op> {
  const shape = root.results[0]!.type.shape;
  return growForward(new Set([root]), c, (op) => isMap(op) && hasShape(op, shape), (set) => escaping(set, c).length <= 1);
}

/** A reduction or pool, the elementwise ops after it, and those before it that nobody else reads. */
export function growReduce(root: Op, c: Clusters): ReadonlySet<Op> {
  // A pool that keeps positions walks its window for both results: its kernel stands alone.
  if (root.name === 'maxPool' && (c.readers(root.results[1]!).length > 0 || c.returned(root.results[1]!))) return new Set([root]);
  const shape = root.results[0]!.type.shape;
  const operand = root.operands[0]!;
  const overlapping = opDef(root.name).family === 'window';
  const epilogue = growForward(new Set([root]), c, (op) => isMap(op) && hasShape(op, shape), (set) => escaping(set, c).length <= root.results.length);
  // What an epilogue alone reads is computed with it (the share of a moment that stays), unless it could be taken for what stands before the root.
  const beside = (op: Op): boolean => isMap(op) && hasShape(op, shape) && !sameShape(shape, operand.type.shape);
  const after = overlapping ? epilogue : growBackward(epilogue, c, maxOps, (op, set) => beside(op) && op.results.every((r) => !c.returned(r) && c.readers(r).every((reader) => set.has(reader) && reader !== root)));
  const before = (op: Op): boolean => isMap(op) && hasShape(op, operand.type.shape) && (!overlapping || cheap.has(op.name));
  const producer = c.definition(operand);
  // What the root reads second (if anything) must not come from inside; an epilogue must not read what stands before the root.
  if (!producer || !before(producer)) return after;
  const readAfter = new Set([...after].flatMap((op) => (op === root ? [] : op.operands)));
  const apart = (op: Op): boolean => overlapping || !op.operands.some((v) => !isSingle(v) && readAfter.has(v));
  return growBackward(after, c, overlapping ? after.size + 2 : maxOps, (op, set) => before(op) && apart(op) && op.results.every((r) => !c.returned(r) && c.readers(r).every((reader) => set.has(reader) && (reader === root || before(reader)) && !isAfter(reader, root, c))));
}
const isAfter = (op: Op, root: Op, c: Clusters): boolean => c.index(op) > c.index(root);

/**
 * Softmax and norms: reductions over the same axes of one shape whose results come back to that shape. Undefined where nothing comes back: then the
 * reduction is one of its own.
 */
export function growRow(first: Op, c: Clusters): ReadonlySet<Op> | undefined {
  const full = first.operands[0]!.type.shape;
  const axes = nums(first.attrs, 'axes');
  if (axes.length === 0) return undefined;
  const kept = full.map((d, i) => (axes.includes(i) ? 1 : d));
  const dropped = full.filter((_, i) => !axes.includes(i));
  if (sameShape(kept, full)) return undefined;
  const accept: Accept = (op) => {
    if (isRowReduction(op)) return sameShape(op.operands[0]!.type.shape, full) && sameShape(nums(op.attrs, 'axes'), axes);
    if (op.name === 'reshape') return sameShape(op.operands[0]!.type.shape, dropped) && hasShape(op, kept);
    return isMap(op) && [full, kept, dropped].some((s) => hasShape(op, s)) && op.operands.every((v) => rejoins(v, op, kept, dropped));
  };
  const results = (set: ReadonlySet<Op>): Value[] => escaping(set, c).filter((v) => sameShape(v.type.shape, full));
  const rejoined = (set: ReadonlySet<Op>): boolean => [...set].some((op) => isMap(op) && hasShape(op, full));
  const rows = growForward(new Set([first]), c, accept, (set) => rejoined(set) && !meets(set, full, dropped) && results(set).length <= 1 && escaping(set, c).length <= maxMapResults);
  if (!rejoined(rows)) return undefined;
  return growBackward(rows, c, maxOps, (op, set) => (isRowReduction(op) || (isMap(op) && hasShape(op, full))) && accept(op) && !meets(new Set([...set, op]), full, dropped) && results(new Set([...set, op])).length <= 2);
}

/** Whether ops of the rows and ops of what rows are reduced to read one value from outside: a kernel walks it in one of these ways alone. */
function meets(set: ReadonlySet<Op>, full: readonly number[], dropped: readonly number[]): boolean {
  const inside = new Set([...set].flatMap((op) => op.results));
  const readAt = (shape: readonly number[]): Value[] => [...set].flatMap((op) => (isMap(op) && hasShape(op, shape) ? op.operands.filter((v) => !inside.has(v) && !isSingle(v)) : []));
  const ofRows = new Set(readAt(full));
  return readAt(dropped).some((v) => ofRows.has(v));
}

/** A value of the reduced shape may meet the rows only where broadcasting puts it at its own axes. */
function rejoins(v: Value, op: Op, kept: readonly number[], dropped: readonly number[]): boolean {
  if (hasShape(op, dropped) || !sameShape(v.type.shape, dropped)) return true;
  return sameShape([...new Array<number>(kept.length - dropped.length).fill(1), ...dropped], kept);
}

/** Elementwise ops of one shape. Values that others read become results. */
export function growMap(first: Op, c: Clusters): ReadonlySet<Op> {
  const shape = first.results[0]!.type.shape;
  const set = new Set(growForward(new Set([first]), c, (op) => isMap(op) && hasShape(op, shape), (grown) => escaping(grown, c).length <= maxMapResults));
  // What comes out of one result alone is left to its readers where they can compute it: they read that result in its place.
  const results = new Set(escaping(set, c));
  for (const op of [...set].sort((p, q) => c.index(q) - c.index(p))) {
    const [r] = op.results as [Value];
    const large = new Set(op.operands.filter((v) => sameShape(v.type.shape, shape)));
    const leftToReaders = op !== first && r.type.dtype !== 'bool' && !c.returned(r) && c.readers(r).every((reader) => !set.has(reader) && !c.taken(reader) && isMap(reader) && hasShape(reader, shape));
    if (leftToReaders && large.size === 1 && [...large].every((v) => results.has(v))) set.delete(op);
  }
  return set;
}

/** As `growMap`, and what is computed for these ops alone. */
export function growMapBothWays(first: Op, c: Clusters): ReadonlySet<Op> {
  const shape = first.results[0]!.type.shape;
  const returned = (op: Op): boolean => op.results.some((r) => c.returned(r));
  return growBackward(growMap(first, c), c, maxOps, (op, set) => isMap(op) && hasShape(op, shape) && !returned(op) && op.results.every((r) => c.readers(r).every((reader) => set.has(reader))));
}

/** A kind of fusion: what it starts from, and what joins. */
export interface Growth {
  readonly kind: FusedKind;
  isRoot(op: Op): boolean;
  grow(op: Op, c: Clusters): ReadonlySet<Op> | undefined;
}

/** The kinds in the order in which they choose: what a contraction takes, a row does not get. */
export const growth: readonly Growth[] = [
  { kind: 'contract', isRoot: (op) => ['contract', 'conv'].includes(opDef(op.name).family) && !op.name.startsWith('pack'), grow: growContract },
  { kind: 'row', isRoot: isRowReduction, grow: growRow },
  { kind: 'row', isRoot: isRowReduction, grow: (op, c) => growSiblings(op, c, operandCount, maxOperands) },
  { kind: 'reduce', isRoot: isReduceRoot, grow: growReduce },
  { kind: 'map', isRoot: isMap, grow: growMapBothWays },
];

/** Adds readers in graph order as long as they are accepted; the largest set on the way that was `good` counts (at least the start). */
function growForward(start: ReadonlySet<Op>, c: Clusters, accept: Accept, good: (set: ReadonlySet<Op>) => boolean): ReadonlySet<Op> {
  const set = new Set(start);
  let best: ReadonlySet<Op> = start;
  const rejected = new Set<Op>();
  const candidates = new Set<Op>();
  const see = (op: Op): void => op.results.forEach((r) => c.readers(r).forEach((reader) => candidates.add(reader)));
  start.forEach(see);
  while (set.size < maxOps) {
    const next = [...candidates].filter((op) => !set.has(op) && !rejected.has(op)).sort((p, q) => c.index(p) - c.index(q))[0];
    if (!next) break;
    candidates.delete(next);
    if (c.taken(next) || !accept(next) || !c.mayJoin(set, next)) {
      rejected.add(next);
      continue;
    }
    set.add(next);
    see(next);
    if (operandCount(set) > maxOperands) break;
    if (good(set)) best = new Set(set);
  }
  return best;
}

/** Adds producers, the latest first, as long as they are accepted. */
function growBackward(start: ReadonlySet<Op>, c: Clusters, limit: number, accept: (op: Op, set: ReadonlySet<Op>) => boolean): ReadonlySet<Op> {
  let set = start;
  const rejected = new Set<Op>();
  while (set.size < limit) {
    const producers = [...set].flatMap((op) => op.operands.map((v) => c.definition(v))).filter((op) => op !== undefined);
    const next = producers.filter((op) => !set.has(op) && !rejected.has(op)).sort((p, q) => c.index(q) - c.index(p))[0];
    if (!next) break;
    const larger = new Set([...set, next]);
    if (c.taken(next) || !accept(next, set) || operandCount(larger) > maxOperands || !c.mayJoin(set, next)) rejected.add(next);
    else set = larger;
  }
  return set;
}

const isSingle = (v: Value): boolean => sizeOf(v.type.shape) === 1;
const hasShape = (op: Op, shape: readonly number[]): boolean => sameShape(op.results[0]!.type.shape, shape);

/** Tensors that a set reads from outside. */
function operandCount(set: ReadonlySet<Op>): number {
  const inside = new Set([...set].flatMap((op) => op.results));
  return new Set([...set].flatMap((op) => op.operands.filter((v) => !inside.has(v) && sizeOf(v.type.shape) > 1))).size;
}
