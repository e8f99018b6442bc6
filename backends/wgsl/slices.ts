/** An op over slices of its tensors, where these are larger than what a shader binds. */
import type { Index, Place } from '../../ir/axes.ts';
import type { Attrs, Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { withValues } from '../../ir/rewrite.ts';
import type { TensorType } from '../../ir/type.ts';
import { bindingsOf, rangesOf } from './bindings.ts';
import type { Located } from './kernel.ts';
import type { Site } from './machine.ts';

/** An op with the places of its operands and results. */
export interface PlacedOp { readonly op: Op; readonly operands: readonly Located[]; readonly results: readonly Located[] }

/** Most slices of an op along one axis. */
export const mostSlices = 1024;

/** Whether a shader can bind the tensors of an op; `paged`: in several bindings each. */
export function fits({ operands, results }: PlacedOp, site: Site, paged: boolean): boolean {
  const needs = bindingsOf(rangesOf(operands, results, site));
  return needs.count <= site.machine.bindings && (paged || !needs.paged);
}

/**
 * The op as it stands where a shader can bind its tensors whole. Else as few slices along one axis of its results, or along two, as make each operand and result one binding, or, where no axis does, as make
 * their pages few enough. Undefined where nothing helps.
 */
export function slicesOf(given: PlacedOp, site: Site): readonly PlacedOp[] | undefined {
  if (fits(given, site, false)) return [given];
  for (const paged of [false, true]) {
    if (paged && fits(given, site, true)) return [given];
    for (const slices of cutsOf(given)) if (slices.every((s) => fits(s, site, paged))) return slices;
  }
  for (const slices of cutsOf(given)) {
    // The slices are alike but for the last, which is smaller.
    if (![slices[0]!, slices.at(-1)!].every((s) => slicedOnce(s, site))) continue;
    const twice = slices.map((s) => slicedOnce(s, site));
    if (twice.every((s) => s !== undefined)) return twice.flat();
  }
  return undefined;
}

const slicedOnce = (given: PlacedOp, site: Site): readonly PlacedOp[] | undefined => (fits(given, site, true) ? [given] : [...cutsOf(given)].find((slices) => slices.every((s) => fits(s, site, true))));

/** All ways to slice an op along one axis of its results, those with the fewest slices first. */
export function* cutsOf(given: PlacedOp): Generator<readonly PlacedOp[]> {
  // An operand that stands twice may be sliced in one place and read whole in the other.
  const whole = { ...given, op: { ...given.op, operands: given.op.operands.map((v) => ({ ...v })) } };
  const first = whole.op.results[0]!;
  const cuts = first.type.shape.flatMap((size, axis) => {
    const cut = size > 1 ? followed(whole.op, first, axis) : undefined;
    return cut ? [{ size, cut }] : [];
  });
  for (let count = 2; count <= mostSlices; count *= 2) for (const { size, cut } of cuts) if (count / 2 < size) yield alongCut(whole, cut, size, count);
}

/** An op in about so many slices along a cut of an axis of `size` elements. */
export function alongCut(whole: PlacedOp, cut: Cut, size: number, count: number): PlacedOp[] {
  const step = Math.ceil(size / count / cut.grain) * cut.grain;
  return Array.from({ length: Math.ceil(size / step) }, (_, i) => sliceOf(whole, cut, i * step, Math.min(step, size - i * step)));
}

/** The axis along which a value is sliced, and how many of its elements stand for one of the result's: channels of groups. */
export interface Slice { readonly axis: number; readonly per: number }

/** How values are sliced: those that are not here are read whole. A slice starts at a multiple of `grain`. */
export interface Cut { readonly slices: ReadonlyMap<Value, Slice>; readonly grain: number }

export class Slices {
  readonly slices = new Map<Value, Slice>();
  readonly #whole = new Set<Value>();
  grain = 1;

  /** Notes how a value is sliced, or that it is read whole; false where it was to be sliced in another way. */
  note(v: Value, slice: Slice | undefined): boolean {
    if (!slice) {
      this.#whole.add(v);
      return !this.slices.has(v);
    }
    const known = this.slices.get(v);
    this.slices.set(v, slice);
    return !this.#whole.has(v) && (!known || (known.axis === slice.axis && known.per === slice.per));
  }
}

/** How a slice of one result goes through an op, or through the region of a fused one; undefined where some element needs more than its own slice. */
function followed(op: Op, result: Value, axis: number): Cut | undefined {
  const region = op.name === 'fused' ? op.regions[0] : undefined;
  const cut = new Slices();
  if (!region) return follow(op, result, { axis, per: 1 }, cut) ? cut : undefined;
  const { slices } = cut;
  slices.set(region.outputs[op.results.indexOf(result)]!.value, { axis, per: 1 });
  for (const inner of region.ops.toReversed()) {
    const known = inner.results.find((r) => slices.has(r));
    if (known && !follow(inner, known, slices.get(known)!, cut)) return undefined;
  }
  // What reads a slice is sliced itself, and all results are.
  const consistent = region.ops.every((o) => o.results.some((r) => slices.has(r)) || !o.operands.some((v) => slices.has(v)));
  if (!consistent || !region.outputs.every((o) => slices.has(o.value))) return undefined;
  op.results.forEach((r, i) => slices.set(r, slices.get(region.outputs[i]!.value)!));
  region.inputs.forEach((v, i) => {
    const slice = slices.get(v);
    if (slice) slices.set(op.operands[i]!, slice);
  });
  return cut;
}

/** Notes the slices of all operands and results of a plain op, one of whose results is sliced; false where that is not possible. */
export function follow(op: Op, result: Value, slice: Slice, cut: Slices): boolean {
  const { axis } = slice;
  if (op.name === 'constant') return false;
  if (op.name === 'conv' && axis === 1 && num(op.attrs, 'groups') > 1) return byGroups(op, cut);
  const axes = opDef(op.name).axes(op.operands.map((v) => v.type), op.attrs, op.results.map((r) => r.type));
  if ('none' in axes || axes.stages.length !== 1) return false;
  const { pieces } = axes.stages[0]!;
  const alone = new Set(axes.space.filter((d) => d.size === 1).map((d) => d.name));
  const dim = pieces[0] && ownDim(pieces[0].writes[axis]!, alone);
  if (dim === undefined || axes.space.find((d) => d.name === dim)?.role !== 'parallel') return false;
  for (const p of pieces) if (p.indexed.includes(dim) || ownDim(p.writes[axis]!, alone) !== dim || p.writes.some((w, i) => i !== axis && w.terms.some(([d]) => d === dim))) return false;
  const sameAxis = op.results.every((r) => r.type.shape.length === result.type.shape.length && r.type.shape[axis] === result.type.shape[axis]);
  return sameAxis && op.results.every((r) => cut.note(r, slice)) && op.operands.every((v, i) => {
    const found = new Set(pieces.flatMap((p) => (p.reads[i] ? [sliceAxis(p.reads[i], dim, alone)] : [])));
    const [at] = found;
    return found.size <= 1 && at !== 'mixed' && cut.note(v, at === undefined ? undefined : { axis: at, per: slice.per });
  });
}

/** A convolution over some of its groups. */
function byGroups(op: Op, cut: Slices): boolean {
  const [x, w] = op.operands as [Value, Value];
  const groups = num(op.attrs, 'groups');
  const outputs = w.type.shape[0]! / groups;
  cut.grain = outputs;
  return cut.note(op.results[0]!, { axis: 1, per: 1 }) && cut.note(x, { axis: 1, per: x.type.shape[1]! / groups / outputs }) && cut.note(w, { axis: 0, per: 1 });
}

/** The one dim that a place is, undefined where it is more. */
function ownDim({ terms, plus }: Place, alone: ReadonlySet<string>): string | undefined {
  const own = terms.filter(([d]) => !alone.has(d));
  return own.length === 1 && own[0]![1] === 1 && plus === 0 ? own[0]![0] : undefined;
}

/** The operand's axis that walks with a dim; undefined where none does, `mixed` where one does in another way. */
export function sliceAxis(reads: readonly Index[], dim: string, alone: ReadonlySet<string>): number | 'mixed' | undefined {
  let axis: number | undefined;
  for (const [i, read] of reads.entries()) {
    const names = read.kind === 'affine' ? read.terms.map(([d]) => d) : read.kind === 'span' ? read.dims : read.kind === 'table' ? [read.dim, ...(read.inner === undefined ? [] : [read.inner])] : [read.dim];
    if (!names.includes(dim)) continue;
    if (axis !== undefined || read.kind !== 'affine' || read.over !== 1 || ownDim({ terms: read.terms, plus: read.plus }, alone) !== dim) return 'mixed';
    axis = i;
  }
  return axis;
}

/** The part of an op from `start` on, of so many elements along the sliced axis of its first result. */
function sliceOf({ op, operands, results }: PlacedOp, { slices }: Cut, start: number, size: number): PlacedOp {
  const typeOf = (v: Value): TensorType => {
    const slice = slices.get(v);
    return slice ? { dtype: v.type.dtype, shape: v.type.shape.map((d, axis) => (axis === slice.axis ? size * slice.per : d)) } : v.type;
  };
  const attrsOf = (o: Op): Attrs => {
    if (o.name === 'convWeight' && num(o.attrs, 'parts') > 0 && slices.get(o.results[0]!)?.axis === 0) return { ...o.attrs, parts: size };
    if ('shape' in o.attrs) return { ...o.attrs, shape: typeOf(o.results[0]!).shape };
    if (o.name !== 'conv' || slices.get(o.results[0]!)?.axis !== 1 || num(o.attrs, 'groups') === 1) return o.attrs;
    return { ...o.attrs, groups: (num(o.attrs, 'groups') * size) / o.results[0]!.type.shape[1]! };
  };
  const place = (x: Located, v: Value): Located => {
    const slice = slices.get(v);
    return slice ? { ...x, type: typeOf(v), offset: x.offset + start * slice.per * x.strides[slice.axis]! } : x;
  };
  const part = withValues(op, (v) => (slices.has(v) ? { ...v, type: typeOf(v) } : v), attrsOf);
  return { op: part, operands: operands.map((x, i) => place(x, op.operands[i]!)), results: results.map((x, i) => place(x, op.results[i]!)) };
}
