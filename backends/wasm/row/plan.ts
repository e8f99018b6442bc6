/** Orders a region of reductions and elementwise ops into sweeps over the reduced axes. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { nums } from '../../../ir/op.ts';
import { isFloat, sameShape, sizeOf, tensorType, type DType } from '../../../ir/type.ts';
import { isLaneType, isVectorChain } from '../elementwise/index.ts';
import { isNarrow } from '../narrow.ts';

export interface RowRegion {
  readonly ops: readonly Op[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** One pass over the reduced dims. */
export interface Sweep {
  /** Elementwise ops on kept values that run before it. */
  readonly before: readonly Op[];
  /** Elementwise ops on full values. */
  readonly ops: readonly Op[];
  /** Numbers of the region's inputs that it reads along the reduced dims. */
  readonly inputs: readonly number[];
  readonly reductions: readonly Op[];
  /** Full values that go to scratch, and that come from there. */
  readonly saves: readonly Value[];
  readonly loads: readonly Value[];
  /** Full results that are written. */
  readonly outputs: readonly { readonly value: Value; readonly result: number }[];
}

export interface RowPlan {
  readonly ops: readonly Op[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  /** The shape that is reduced, the reduced axes, and their sizes. */
  readonly full: readonly number[];
  readonly axes: readonly number[];
  readonly reducedShape: readonly number[];
  /** For each input, then each output: which of its axes lies along each axis of `full`. */
  readonly frames: readonly (readonly (number | undefined)[])[];
  /** The input that decides the order of loops. */
  readonly main: number;
  /** Values that vary along the reduced axes. */
  readonly isFull: ReadonlySet<Value>;
  readonly constants: readonly Op[];
  readonly sweeps: readonly Sweep[];
  /** Elementwise ops on kept values after the last sweep. */
  readonly last: readonly Op[];
  /** Values that are kept in scratch. */
  readonly saved: readonly Value[];
  readonly vectorizable: boolean;
}

const reductionNames: ReadonlySet<string> = new Set(['reduceSum', 'reduceProd', 'reduceMax', 'reduceMin']);
const isReduction = (op: Op): boolean => reductionNames.has(op.name);
/** Ops of some twenty instructions and more: worth a load from scratch instead of a second evaluation. */
export const heavy: ReadonlySet<string> = new Set(['exp', 'expm1', 'log', 'log1p', 'sin', 'cos', 'tan', 'asin', 'acos', 'atan', 'sinh', 'cosh', 'tanh', 'asinh', 'acosh', 'atanh', 'erf', 'sigmoid', 'pow', 'mod', 'fmod', 'atan2']);
/** Longer rows are computed again rather than kept. */
const savedLimit = 65536;

/** Plans a region in which all reductions have the same operand shape and axes. */
export function planRows(region: RowRegion): RowPlan {
  const ops = region.ops.flatMap((op) => (op.name === 'moments' ? momentsAsSums(op) : [op]));
  const first = ops.find(isReduction);
  invariant(first !== undefined, 'a row region reduces');
  const full = first.operands[0]!.type.shape;
  const axes = nums(first.attrs, 'axes');
  const reducedShape = axes.map((a) => full[a]!);
  const constants = ops.filter((o) => o.name === 'constant');
  const frameOf = frames(ops, full, axes);
  const isFull = fullValues(ops, region.inputs, full, axes, frameOf);
  const { sweeps, last, saved } = makeSweeps(ops, region, isFull, sizeOf(reducedShape));
  const tensors = [...region.inputs, ...region.outputs];
  const wanted = region.inputs.map((v) => (isFull.has(v) ? sizeOf(v.type.shape) : -1));
  return {
    ops, inputs: region.inputs, outputs: region.outputs, full, axes, reducedShape,
    frames: tensors.map((v) => axesAlong(v, frameOf(v), full, axes)),
    main: Math.max(0, wanted.indexOf(Math.max(...wanted))),
    isFull, constants, sweeps, last, saved,
    vectorizable: isVectorChain(ops.filter((o) => !isReduction(o))) && ops.filter(isReduction).every((o) => o.operands[0]!.type.dtype === 'f32') &&
      ops.every((o) => o.results.every((r) => isLaneType(r.type.dtype))),
  };
}

/** Mean and summed squares of deviations as two sums; small floats are computed in f32. */
function momentsAsSums(op: Op): Op[] {
  const x = op.operands[0]!;
  const axes = nums(op.attrs, 'axes');
  const count = axes.reduce((n, a) => n * x.type.shape[a]!, 1);
  const own = x.type.dtype;
  const dtype: DType = isNarrow(own) ? 'f32' : own;
  const out: Op[] = [];
  const add = (name: string, operands: readonly Value[], shape: readonly number[], attrs: Op['attrs'] = {}, d: DType = dtype, result?: Value): Value => {
    const value = result ?? { type: tensorType(d, shape), name: undefined };
    out.push({ name, operands, attrs, results: [value], regions: [], source: [] });
    return value;
  };
  const full = x.type.shape;
  const dropped = full.filter((_, i) => !axes.includes(i));
  const kept = full.map((d, i) => (axes.includes(i) ? 1 : d));
  const [meanOut, m2Out] = op.results;
  const cast = (v: Value, to: Value): Value => add('cast', [v], v.type.shape, { to: own, saturate: false }, own, to);
  const data = dtype === 'f64' ? new Float64Array([count]) : new Float32Array([count]);
  const n = add('constant', [], [], { value: { dtype, shape: [], data } });
  const values = own === dtype ? x : add('cast', [x], full, { to: dtype, saturate: false });
  const sum = add('reduceSum', [values], dropped, { axes });
  const mean = add('div', [sum, n], dropped, {}, dtype, own === dtype ? meanOut : undefined);
  if (own !== dtype && meanOut) cast(mean, meanOut);
  if (!m2Out) return out;
  const deviation = add('sub', [values, add('reshape', [mean], kept, { shape: kept })], full);
  const squares = add('reduceSum', [add('mul', [deviation, deviation], full)], dropped, { axes }, dtype, own === dtype ? m2Out : undefined);
  if (own !== dtype) cast(squares, m2Out);
  return out;
}

/** A value is aligned with the full shape, or with the shape without the reduced axes. */
type Frame = 'full' | 'dropped';

/** Follows elementwise ops both ways from reductions and reshapes, whose frames are known. */
function frames(ops: readonly Op[], full: readonly number[], axes: readonly number[]): (v: Value) => Frame {
  const parent = new Map<Value, Value>();
  const root = (v: Value): Value => {
    let r = v;
    for (let p = parent.get(r); p !== undefined && p !== r; p = parent.get(r)) r = p;
    return r;
  };
  const known = new Map<Value, Frame>();
  const mark = (v: Value, frame: Frame): void => void known.set(root(v), frame);
  const join = (a: Value, b: Value): void => {
    const [p, q] = [root(a), root(b)];
    if (p === q) return;
    parent.set(p, q);
    const frame = known.get(p);
    if (frame) known.set(q, frame);
  };
  // A single element fits both frames and may be read in both.
  const free = (v: Value): boolean => sizeOf(v.type.shape) === 1;
  for (const op of ops) {
    if (isReduction(op)) {
      mark(op.operands[0]!, 'full');
      mark(op.results[0]!, axes.length === 0 ? 'full' : 'dropped');
    } else if (op.name === 'reshape') {
      mark(op.operands[0]!, axes.length === 0 ? 'full' : 'dropped');
      mark(op.results[0]!, 'full');
    } else {
      for (const v of op.operands) if (!free(v) && !free(op.results[0]!)) join(v, op.results[0]!);
      if (op.results[0] && sameShape(op.results[0].type.shape, full)) mark(op.results[0], 'full');
    }
  }
  return (v) => known.get(root(v)) ?? 'full';
}

/** The axis of v along each axis of `full`. */
function axesAlong(v: Value, frame: Frame, full: readonly number[], axes: readonly number[]): (number | undefined)[] {
  const along = full.map((_, a) => a).filter((a) => frame === 'full' || !axes.includes(a));
  const extra = along.length - v.type.shape.length;
  return full.map((_, a) => {
    const at = along.indexOf(a) - extra;
    return along.includes(a) && at >= 0 ? at : undefined;
  });
}

function fullValues(ops: readonly Op[], inputs: readonly Value[], full: readonly number[], axes: readonly number[], frameOf: (v: Value) => Frame): Set<Value> {
  const isFull = new Set<Value>();
  const varies = (v: Value): boolean => frameOf(v) === 'full' && (sameShape(v.type.shape, full) || axesAlong(v, 'full', full, axes).some((own, a) => axes.includes(a) && own !== undefined && v.type.shape[own]! > 1));
  for (const v of inputs) if (varies(v)) isFull.add(v);
  for (const op of ops) {
    if (isReduction(op) || op.name === 'constant') continue;
    for (const r of op.results) if (op.operands.some((v) => isFull.has(v)) || (axes.length > 0 && sameShape(r.type.shape, full) && frameOf(r) === 'full')) isFull.add(r);
  }
  return isFull;
}

function makeSweeps(ops: readonly Op[], region: RowRegion, isFull: ReadonlySet<Value>, reduced: number): Pick<RowPlan, 'sweeps' | 'last' | 'saved'> {
  const def = new Map<Value, Op>();
  for (const op of ops) for (const r of op.results) def.set(r, op);
  const ready = new Set<Value>(region.inputs);
  for (const op of ops) if (op.name === 'constant') ready.add(op.results[0]!);
  let left = ops.filter((op) => op.name !== 'constant' && (isReduction(op) || !isFull.has(op.results[0]!)));
  /** Full ops that a value needs, or undefined where a kept value that it needs is not ready. */
  const cone = (v: Value, into: Set<Op>, stop: ReadonlySet<Value>): boolean => {
    if (ready.has(v) || stop.has(v)) return true;
    const op = def.get(v);
    if (!op || !isFull.has(v)) return false;
    if (into.has(op)) return true;
    if (!op.operands.every((x) => cone(x, into, stop))) return false;
    into.add(op);
    return true;
  };
  const takeKept = (): Op[] => {
    const taken: Op[] = [];
    for (const op of left) {
      if (isReduction(op) || !op.operands.every((v) => ready.has(v))) continue;
      taken.push(op);
      ready.add(op.results[0]!);
    }
    left = left.filter((op) => !taken.includes(op));
    return taken;
  };
  /** Whether full ops read nothing that comes of reductions, so that one sweep computes both. */
  const independent = (needs: ReadonlySet<Op>, reductions: readonly Op[]): boolean => {
    const later = new Set<Value>(reductions.flatMap((op) => op.results));
    for (const op of ops) if (op.operands.some((v) => later.has(v))) op.results.forEach((r) => later.add(r));
    return ![...needs].some((op) => op.operands.some((v) => later.has(v)));
  };
  interface Draft { readonly before: Op[]; readonly reductions: Op[]; readonly roots: Value[]; readonly cone: Set<Op> }
  const drafts: Draft[] = [];
  let before = takeKept();
  for (;;) {
    const reductions = left.filter((op) => isReduction(op) && cone(op.operands[0]!, new Set(), new Set()));
    if (reductions.length === 0) break;
    const needs = new Set<Op>();
    for (const op of reductions) cone(op.operands[0]!, needs, new Set());
    drafts.push({ before, reductions, roots: reductions.map((op) => op.operands[0]!), cone: needs });
    left = left.filter((op) => !reductions.includes(op));
    for (const op of reductions) ready.add(op.results[0]!);
    before = takeKept();
  }
  const outputs = region.outputs.flatMap((value, result) => (isFull.has(value) ? [{ value, result }] : []));
  if (outputs.length > 0) {
    const needs = new Set<Op>();
    for (const o of outputs) invariant(cone(o.value, needs, new Set()), 'a result of a row region depends on what is not computed');
    const sums = drafts.at(-1);
    if (sums && independent(needs, sums.reductions)) drafts[drafts.length - 1] = { ...sums, roots: [...sums.roots, ...outputs.map((o) => o.value)], cone: new Set([...sums.cone, ...needs]) };
    else {
      drafts.push({ before, reductions: [], roots: outputs.map((o) => o.value), cone: needs });
      before = [];
    }
  }
  invariant(left.length === 0, 'a row region has ops whose operands are not computed');
  const repeated = (op: Op): boolean => heavy.has(op.name) && drafts.filter((d) => d.cone.has(op)).length > 1;
  const saved = reduced > savedLimit ? [] : ops.filter((op) => repeated(op) && isFloat(op.results[0]!.type.dtype)).map((op) => op.results[0]!);
  const sweeps = drafts.map((d, i): Sweep => {
    const earlier = new Set(saved.filter((v) => drafts.slice(0, i).some((x) => x.cone.has(def.get(v)!))));
    const needs = new Set<Op>();
    for (const v of d.roots) cone(v, needs, earlier);
    const list = ops.filter((op) => op.name === 'constant' || needs.has(op));
    const read = new Set([...list.flatMap((op) => op.operands), ...d.roots]);
    return {
      before: d.before,
      ops: list,
      inputs: region.inputs.flatMap((v, k) => (isFull.has(v) && read.has(v) ? [k] : [])),
      reductions: d.reductions,
      saves: saved.filter((v) => needs.has(def.get(v)!)),
      loads: [...earlier].filter((v) => read.has(v)),
      outputs: i === drafts.length - 1 ? outputs : [],
    };
  });
  return { sweeps, last: before, saved };
}
