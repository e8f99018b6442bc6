/** How one op is computed in parts: one dim of its space in equal shares, and the axes of its operands and results that this cuts. */
import type { CombineName, Index } from '../../../ir/axes.ts';
import { InternalError } from '../../../ir/diagnostic.ts';
import type { Attr, Attrs, Graph, Op, Value } from '../../../ir/graph.ts';
import { num, nums, TypeProblem } from '../../../ir/op.ts';
import { opDef } from '../../../ir/ops/index.ts';
import { sameShape, type TensorType } from '../../../ir/type.ts';
import { walkOf, type Walk } from '../walk.ts';

/** An op that is computed in `parts` parts along a dim. */
export interface OpCut {
  readonly dim: string;
  readonly parts: number;
  /** The axis of each operand that a part sees a share of; undefined where it sees all. */
  readonly operands: readonly (number | undefined)[];
  /** The axis of the results that a part makes a share of. Undefined: the dim is reduced, and each part makes a contribution to all of them. */
  readonly result: number | undefined;
  readonly combine: CombineName;
  /** The parts are the operands: of a concat that is cut between them. */
  readonly joins?: true;
}

/** Combines whose parts can be put together one after the other. */
const inSequence: ReadonlySet<CombineName> = new Set(['sum', 'prod', 'max', 'min', 'moments']);

/** Ops that have no axes, as places along their attribute `axis` depend on data, but keep to one line along it: other axes can be cut. */
const linewise: ReadonlySet<string> = new Set(['scatterElements']);

/** How an op is cut so that each part reads a share of axis `axis` of operand `k`; undefined where it cannot be. */
export function cutByOperand(op: Op, k: number, axis: number, parts: number): OpCut | undefined {
  if (linewise.has(op.name)) return cutAcrossLines(op, axis, parts);
  const walk = walkOf(op);
  const index = walk.pieces.flatMap((p) => p.reads[k] ?? [])[0]?.[axis];
  const dim = index?.kind === 'affine' ? outermost(walk, index.terms) : undefined;
  return dim === undefined ? undefined : cutAlong(walk, dim, parts);
}

/** How an op is cut so that each part makes a share of axis `axis` of its results; undefined where it cannot be. */
export function cutByResult(op: Op, axis: number, parts: number): OpCut | undefined {
  if (linewise.has(op.name)) return cutAcrossLines(op, axis, parts);
  if (op.name === 'concat' && axis === num(op.attrs, 'axis')) return cutBetween(op, axis, parts);
  const walk = walkOf(op);
  const dim = outermost(walk, walk.pieces[0]?.writes[axis]?.terms ?? []);
  return dim === undefined ? undefined : cutAlong(walk, dim, parts);
}

function cutAcrossLines(op: Op, axis: number, parts: number): OpCut | undefined {
  const size = op.results[0]!.type.shape[axis];
  if (axis === num(op.attrs, 'axis') || size === undefined || size % parts !== 0 || op.operands.some((v) => v.type.shape[axis] !== size)) return undefined;
  return { dim: '', parts, operands: op.operands.map(() => axis), result: axis, combine: 'none' };
}

/** A concat of as many operands of one size as there are parts. */
function cutBetween(op: Op, axis: number, parts: number): OpCut | undefined {
  if (op.operands.length !== parts || op.operands.some((v) => v.type.shape[axis] !== op.operands[0]!.type.shape[axis])) return undefined;
  return { dim: '', parts, operands: op.operands.map(() => undefined), result: axis, combine: 'none', joins: true };
}

/** The dim that an axis is cut in equal shares by; dims of one element say nothing. */
function outermost(walk: Walk, terms: readonly (readonly [string, number])[]): string | undefined {
  const long = terms.filter(([d]) => walk.sizes.get(d)! > 1);
  return long.length === 0 ? undefined : long.reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

function cutAlong(walk: Walk, dim: string, parts: number): OpCut | undefined {
  const { op, pieces } = walk;
  const size = walk.sizes.get(dim);
  if (size === undefined || size % parts !== 0 || op.results.length === 0) return undefined;
  const { shape } = op.results[0]!.type;
  if (op.results.some((r) => !sameShape(r.type.shape, shape))) return undefined;
  if (pieces.some((p) => !p.dims.includes(dim) || p.indexed.includes(dim))) return undefined;
  const operands: (number | undefined)[] = [];
  for (const [k, v] of op.operands.entries()) {
    const axes = pieces.flatMap((p) => p.reads[k]!.map((read) => axisOf(walk, read, v.type.shape, dim)));
    if (axes.some((a) => a === 'none' || a !== axes[0])) return undefined;
    operands.push(axes[0] as number | undefined);
  }
  const results = pieces.map((p) => axisOf(walk, p.writes.map((w): Index => ({ kind: 'affine', ...w, over: 1, outside: 'error' })), shape, dim));
  if (results.some((a) => a === 'none' || a !== results[0])) return undefined;
  const result = results[0] as number | undefined;
  if (result === undefined && !inSequence.has(walk.combine)) return undefined;
  const cut: OpCut = { dim, parts, operands, result, combine: walk.combine };
  return isTyped(op, cut) ? cut : undefined;
}

/** The one axis whose equal shares go with equal shares of a dim; undefined where none depends on it, `none` where it is not so simple. */
function axisOf(walk: Walk, read: readonly Index[], shape: readonly number[], dim: string): number | 'none' | undefined {
  let found: number | undefined;
  for (const [axis, index] of read.entries()) {
    if (!dependsOn(index, dim)) continue;
    if (found !== undefined || index.kind !== 'affine' || index.over !== 1 || index.plus !== 0) return 'none';
    const times = index.terms.find(([d]) => d === dim)![1];
    const rest = index.terms.filter(([d]) => d !== dim).reduce((n, [d, t]) => (t > 0 ? n + (walk.sizes.get(d)! - 1) * t : Infinity), 1);
    if (times <= 0 || rest > times || walk.sizes.get(dim)! * times !== shape[axis]) return 'none';
    found = axis;
  }
  return found;
}

function dependsOn(index: Index, dim: string): boolean {
  switch (index.kind) {
    case 'affine': return index.terms.some(([d]) => d === dim);
    case 'table': return index.dim === dim || index.inner === dim;
    case 'whole': return index.dim === dim;
    case 'span': return index.dims.includes(dim);
  }
}

/** A type with a share of one axis. */
export const shareOf = (type: TensorType, axis: number | undefined, parts: number): TensorType => (axis === undefined ? type : { dtype: type.dtype, shape: type.shape.map((d, i) => (i === axis ? d / parts : d)) });

/** Whether the op of a part has the types that the cut says. */
function isTyped(op: Op, cut: OpCut): boolean {
  if (op.operands.some((v, k) => cut.operands[k] !== undefined && v.type.shape[cut.operands[k]]! % cut.parts !== 0)) return false;
  try {
    const made = partOp(op, cut, op.operands.map((v, k): Value => ({ type: shareOf(v.type, cut.operands[k], cut.parts), name: undefined })));
    return made.results.every((r, i) => sameShape(r.type.shape, shareOf(op.results[i]!.type, cut.result, cut.parts).shape));
  } catch (e) {
    if (e instanceof TypeProblem || e instanceof InternalError) return false;
    throw e;
  }
}

/** The op of one part, over shares of its operands. Throws a TypeProblem where an op knows of the size that is cut in a way that is not told here. */
export function partOp(op: Op, cut: OpCut, operands: readonly Value[]): Op {
  return withRoot(op, operands, (root) => partAttrs(root, cut, root.results[0]!.type.shape));
}

/** An op, fused or plain, over other operands; the op that is more than elementwise has the attributes that `attrs` gives. Throws a TypeProblem where they do not go together. */
export function withRoot(op: Op, operands: readonly Value[], attrs: (root: Op) => Attrs): Op {
  if (op.name !== 'fused') return retyped(op, operands, attrs(op));
  const region = op.regions[0]!;
  const map = new Map<Value, Value>(region.inputs.map((v, k) => [v, { type: operands[k]!.type, name: v.name }]));
  const root = walkOf(op).root;
  const ops = region.ops.map((o): Op => {
    const made = retyped(o, o.operands.map((v) => map.get(v)!), o === root ? attrs(o) : o.attrs);
    o.results.forEach((r, i) => map.set(r, made.results[i]!));
    return made;
  });
  const inner: Graph = { ...region, inputs: region.inputs.map((v) => map.get(v)!), ops, outputs: region.outputs.map((o) => ({ name: o.name, value: map.get(o.value)! })) };
  return { ...op, operands, regions: [inner], results: inner.outputs.map((o, i): Value => ({ type: o.value.type, name: op.results[i]!.name })) };
}

/** An op over other operands, its result types inferred anew. */
export function retyped(op: Op, operands: readonly Value[], attrs: Attrs): Op {
  const types = opDef(op.name).infer(operands.map((v) => v.type), attrs, op.regions);
  return { ...op, operands, attrs, results: types.map((type, i): Value => ({ type, name: op.results[i]!.name })) };
}

/** Attributes that repeat the size of an axis. */
function partAttrs(op: Op, cut: OpCut, shape: readonly number[]): Attrs {
  const share = (list: readonly number[]): Attr => list.map((d, i) => (i === cut.result ? d / cut.parts : d));
  if ('shape' in op.attrs && cut.result !== undefined && nums(op.attrs, 'shape').length === shape.length) return { ...op.attrs, shape: share(nums(op.attrs, 'shape')) };
  if (op.name === 'slice') return { ...op.attrs, sizes: share(nums(op.attrs, 'sizes')) };
  if (cut.dim === 'g' && 'groups' in op.attrs) return { ...op.attrs, groups: num(op.attrs, 'groups') / cut.parts };
  return op.attrs;
}
