/**
 * Reductions and everything around them: plain reductions, fused ones, and whole softmax and norm regions. All reductions of a kernel run over the same
 * axes. For each kept element (or vector of them) the reduced dims are swept as often as reductions depend on each other; values in between live in
 * locals, and expensive ones that a later sweep reads again are kept in scratch.
 */
import { invariant } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import { types, type Asm, type E, type Fn, type Local, type Vec } from './asm.ts';
import { computeType, loadElement, normalize, storeElement } from './dtype.ts';
import { isLaneType, isVectorChain, scalarChain, splatElement, vecChain, type ScalarValues, type VecValues } from './elementwise/index.ts';
import type { KernelCode } from './kernel.ts';
import { folds, scalarLanes, vectorLanes, type Lanes } from './lanes.ts';
import { loadLanes, storeLanes } from './map.ts';
import { chunkTarget, collapse, cutNest, emitNest, kernel, type NestDim, type Row } from './nest.ts';
import { planRows, type RowPlan, type RowRegion, type Sweep } from './row-plan.ts';

/** Emits a region whose reductions run over `axes` of `full`. Operands and results in the order of `inputs` and `outputs`. */
export function emitRows(asm: Asm, key: string, region: RowRegion, operands: readonly Placed[], results: readonly Placed[]): KernelCode {
  const plan = planRows(region);
  const shape = planShape(asm, plan, operands, results);
  const reduced = sizeOf(plan.reducedShape);
  const target = Math.max(1, Math.ceil(chunkTarget / Math.max(1, reduced * plan.sweeps.length)));
  if (shape.kept.some((d) => d.size === 0)) return { fn: '', chunks: 0, scratchBytes: 0 };
  const cut = cutNest(shape.kept, target);
  const scratchBytes = plan.saved.length * savedBytes(plan, shape);
  return kernel(asm, key, operands.length + results.length, cut.chunks, scratchBytes, (f, k) =>
    emitNest(f, shape.kept, cut, k.chunk, k.ptrs, { row: (row) => emitKeptRow(f, plan, shape, row, k.scratch) }));
}

/** The region of a plain reduction. */
export const plainRegion = (op: Op): RowRegion => ({ ops: [op], inputs: op.operands, outputs: op.results });

/** Lanes run along the reduced dims (and are joined at the end), across kept elements, or not at all. */
type Mode = 'along' | 'across' | 'scalar';

interface Shape {
  readonly mode: Mode;
  readonly kept: readonly NestDim[];
  readonly reduced: readonly NestDim[];
  readonly tensors: readonly Placed[];
  /** Bytes of a saved value in scratch per reduced index. */
  readonly indexBytes: number;
}

/** Bytes of one saved value; a vector's store may run past its last element. */
const savedBytes = (plan: RowPlan, shape: Shape): number => Math.ceil((sizeOf(plan.reducedShape) * shape.indexBytes + 16) / 16) * 16;

function planShape(asm: Asm, plan: RowPlan, operands: readonly Placed[], results: readonly Placed[]): Shape {
  const tensors = [...operands, ...results];
  const steps = plan.frames.map((frame, i) => frame.map((axis) => (axis === undefined || tensors[i]!.type.shape[axis] === 1 ? 0 : tensors[i]!.strides[axis]! * dtypes[tensors[i]!.type.dtype].bytes)));
  const dim = (axis: number): NestDim => ({ name: `d${axis}`, size: plan.full[axis]!, steps: steps.map((s) => s[axis]!) });
  const axes = plan.full.map((_, i) => i);
  const main = plan.main;
  const bySource = (a: NestDim, b: NestDim): number => Math.abs(b.steps[main]!) - Math.abs(a.steps[main]!);
  const kept = collapse(axes.filter((a) => !plan.axes.includes(a)).map(dim).sort(bySource));
  const reduced = collapse(axes.filter((a) => plan.axes.includes(a)).map(dim).sort(bySource));
  const none = (name: string): NestDim => ({ name, size: 1, steps: tensors.map(() => 0) });
  if (kept.length === 0) kept.push(none(' kept'));
  if (reduced.length === 0) reduced.push(none(' reduced'));
  const vectors = asm.simd && tensors.every((t) => isLaneType(t.type.dtype)) && plan.vectorizable;
  const bytes = dtypes[tensors[main]!.type.dtype].bytes;
  const unit = (d: NestDim): boolean => d.steps[main] === bytes;
  const mode: Mode = vectors && unit(kept.at(-1)!) ? 'across' : vectors && unit(reduced.at(-1)!) ? 'along' : 'scalar';
  return { mode, kept, reduced, tensors, indexBytes: mode === 'across' ? 16 * acrossUnroll(plan) : mode === 'along' ? 4 : 8 };
}

const acrossUnroll = (plan: RowPlan): number => (plan.ops.length <= 6 ? 4 : 2);

/** Emission in one width: what a value is, and how it is loaded, folded and stored. `u` numbers vectors side by side. */
interface Width<V> {
  /** Arithmetic of a reduction's sums. */
  sums(op: Op): Lanes<V>;
  load(i: number, ptr: Local, u: number): V;
  store(i: number, ptr: Local, u: number, v: () => V): E;
  chain(ops: readonly Op[], values: Map<Value, () => V>, outputs: readonly Value[]): E[];
  keep(v: Value): { get(): V; set(v: V): E };
  /** From the type of values to that of sums and back. */
  widen(v: Value, x: V): V;
  narrow(v: Value, x: V): V;
  scratchLoad(v: Value, ptr: Local, offset: number): V;
  scratchStore(v: Value, ptr: Local, offset: number, x: V): E;
}

function emitKeptRow(f: Fn, plan: RowPlan, shape: Shape, row: Row, scratch: Local): E[] {
  const { asm } = f;
  const dim = shape.kept.at(-1)!;
  const own = row.ptrs.map((p, i) => (dim.steps[i] === 0 ? p : f.local('i32')));
  const copies = own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.set(p, f.get(row.ptrs[i]!))]));
  const advance = (n: number): E[] => own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.inc(p, n * dim.steps[i]!)]));
  const left = f.local('i32');
  const loop = (elements: number, body: E[]): E => {
    const top = f.label('k');
    return asm.m.loop(top, f.if(asm.m.i32.ge_s(f.get(left), asm.i32(elements)), [...body, ...advance(elements), f.inc(left, -elements), asm.m.br(top)]));
  };
  const start = [...copies, f.set(left, typeof row.count === 'number' ? asm.i32(row.count) : f.get(row.count))];
  const rowOf = <V>(w: Width<V>, unroll: number, along: boolean): E[] => new RowEmitter(f, plan, shape, own, scratch, w, unroll, along).emit();
  if (shape.mode === 'scalar') return [...start, loop(1, rowOf(scalarWidth(f, shape), 1, false))];
  if (shape.mode === 'along') return [...start, loop(1, rowOf(vectorWidth(f, shape, shape.reduced.at(-1)!, 4), 1, true))];
  const unroll = acrossUnroll(plan);
  const count = typeof row.count === 'number' ? row.count : Infinity;
  return [
    ...start,
    ...(count >= 4 * unroll ? [loop(4 * unroll, rowOf(vectorWidth(f, shape, dim, 4), unroll, false))] : []),
    ...(count >= 4 ? [loop(4, rowOf(vectorWidth(f, shape, dim, 4), 1, false))] : []),
    ...(count % 4 !== 0 || count === Infinity ? [loop(1, rowOf(vectorWidth(f, shape, dim, 1), 1, false))] : []),
  ];
}

/** The sweeps for one kept element, or for `unroll` vectors of kept elements. */
class RowEmitter<V> {
  readonly #f: Fn;
  readonly #plan: RowPlan;
  readonly #shape: Shape;
  readonly #ptrs: readonly Local[];
  readonly #scratch: Local;
  readonly #w: Width<V>;
  readonly #unroll: number;
  /** Lanes along the reduced dims. */
  readonly #along: boolean;
  readonly #kept: Map<Value, () => V>[];
  constructor(f: Fn, plan: RowPlan, shape: Shape, ptrs: readonly Local[], scratch: Local, w: Width<V>, unroll: number, along: boolean) {
    this.#f = f;
    this.#plan = plan;
    this.#shape = shape;
    this.#ptrs = ptrs;
    this.#scratch = scratch;
    this.#w = w;
    this.#unroll = unroll;
    this.#along = along;
    this.#kept = Array.from({ length: unroll }, () => new Map<Value, () => V>());
  }

  emit(): E[] {
    const code: E[] = [];
    const { inputs } = this.#plan;
    inputs.forEach((v, i) => {
      if (this.#plan.isFull.has(v)) return;
      this.#kept.forEach((values, u) => {
        const l = this.#w.keep(v);
        code.push(l.set(this.#w.load(i, this.#ptrs[i]!, u)));
        values.set(v, () => l.get());
      });
    });
    for (const sweep of this.#plan.sweeps) code.push(...this.#keptOps(sweep.before), ...this.#sweep(sweep));
    code.push(...this.#keptOps(this.#plan.last));
    this.#plan.outputs.forEach((v, k) => {
      if (this.#plan.isFull.has(v)) return;
      const i = inputs.length + k;
      this.#kept.forEach((values, u) => code.push(this.#w.store(i, this.#ptrs[i]!, u, values.get(v)!)));
    });
    return code;
  }

  /** Elementwise ops on kept values; each result is kept. */
  #keptOps(ops: readonly Op[]): E[] {
    return this.#kept.flatMap((values) => ops.flatMap((op) => {
      const [result] = op.results;
      const code = this.#w.chain([...this.#plan.constants, op], values, [result!]);
      if (op.name === 'constant') return code;
      const l = this.#w.keep(result!);
      const value = values.get(result!)!;
      const set = l.set(value());
      values.set(result!, () => l.get());
      return [...code, set];
    }));
  }

  #sweep(sweep: Sweep): E[] {
    const f = this.#f;
    const dims = this.#shape.reduced;
    const lanes = this.#along ? 4 : 1;
    // Several independent sums along the row hide the latency of addition; 0..side-1 of them per element.
    const side = this.#along ? (sweep.ops.length <= 4 ? 4 : 2) : 1;
    const sums = sweep.reductions.map((op) => Array.from({ length: this.#unroll * side }, () => this.#w.sums(op).local()));
    const code = sweep.reductions.flatMap((op, k) => sums[k]!.map((s) => s.set(this.#w.sums(op).constant(foldOf(op).start(op.operands[0]!.type.dtype)))));
    const position = f.local('i32');
    if (sweep.saves.length + sweep.loads.length > 0) code.push(f.set(position, f.get(this.#scratch)));
    const bytesPerValue = savedBytes(this.#plan, this.#shape);

    const step = (ptrs: readonly Local[], at: number, tail: boolean): E[] => this.#kept.flatMap((kept, u) => {
      const values = new Map(kept);
      const out: E[] = [];
      for (const i of sweep.inputs) {
        const l = this.#w.keep(this.#plan.inputs[i]!);
        out.push(l.set(tail ? this.#tailLoad(i, ptrs[i]!) : this.#w.load(i, ptrs[i]!, this.#along ? at : u)));
        values.set(this.#plan.inputs[i]!, () => l.get());
      }
      const place = (v: Value): number => this.#plan.saved.indexOf(v) * bytesPerValue + (this.#along ? at * 16 : u * 16);
      for (const v of sweep.loads) {
        const l = this.#w.keep(v);
        out.push(l.set(this.#w.scratchLoad(v, position, place(v))));
        values.set(v, () => l.get());
      }
      const wanted = [...sweep.reductions.map((op) => op.operands[0]!), ...sweep.saves, ...sweep.outputs.map((o) => o.value)];
      out.push(...this.#w.chain(sweep.ops, values, wanted));
      for (const v of sweep.saves) out.push(this.#w.scratchStore(v, position, place(v), values.get(v)!()));
      sweep.reductions.forEach((op, k) => {
        const sum = sums[k]![u * side + (tail ? 0 : at % side)]!;
        const v = op.operands[0]!;
        const x = this.#w.widen(v, values.get(v)!());
        const joined = tail ? this.#tailJoin(op, sum.get(), x) : foldOf(op).join(this.#w.sums(op), sum.get(), x);
        out.push(sum.set(joined));
      });
      for (const o of sweep.outputs) {
        const i = this.#plan.inputs.length + o.result;
        out.push(tail ? this.#tailStore(i, ptrs[i]!, values.get(o.value)!) : this.#w.store(i, ptrs[i]!, this.#along ? at : u, values.get(o.value)!));
      }
      return out;
    });

    const used = new Set([...sweep.inputs, ...sweep.outputs.map((o) => this.#plan.inputs.length + o.result)]);
    const level = (k: number, at: readonly Local[]): E[] => {
      const d = dims[k]!;
      const own = d.steps.map((s, i) => (s === 0 || !used.has(i) ? at[i]! : f.local('i32')));
      const start = own.flatMap((p, i) => (p === at[i] ? [] : [f.set(p, f.get(at[i]!))]));
      const advance = (n: number): E[] => [
        ...own.flatMap((p, i) => (p === at[i] ? [] : [f.inc(p, n * d.steps[i]!)])),
        ...(k === dims.length - 1 && sweep.saves.length + sweep.loads.length > 0 ? [f.inc(position, n * this.#shape.indexBytes)] : []),
      ];
      const i = f.local('i32');
      const rounds = (n: number, body: E[]): E[] => (n === 0 ? [] : n === 1 ? body : [f.repeat(i, 0, n, 1, body)]);
      if (k < dims.length - 1) return [...start, ...rounds(d.size, [...level(k + 1, own), ...advance(1)])];
      if (!this.#along) return [...start, ...rounds(d.size, [...step(own, 0, false), ...advance(1)])];
      const wide = Math.floor(d.size / (lanes * side));
      const fours = Math.floor((d.size - wide * lanes * side) / lanes);
      return [
        ...start,
        ...rounds(wide, [...Array.from({ length: side }, (_, s) => step(own, s, false)).flat(), ...advance(lanes * side)]),
        ...rounds(fours, [...step(own, 0, false), ...advance(lanes)]),
        ...rounds(d.size % lanes, [...step(own, 0, true), ...advance(1)]),
      ];
    };
    code.push(...level(0, this.#ptrs));
    sweep.reductions.forEach((op, k) => {
      const result = op.results[0]!;
      this.#kept.forEach((values, u) => {
        const parts = sums[k]!.slice(u * side, (u + 1) * side);
        const total = this.#w.sums(op).local();
        code.push(total.set(parts.slice(1).reduce((s, p) => foldOf(op).join(this.#w.sums(op), s, p.get()), parts[0]!.get())));
        const l = this.#w.keep(result);
        code.push(l.set(this.#along ? this.#acrossLanes(op, total) : this.#w.narrow(result, total.get())));
        values.set(result, () => l.get());
      });
    });
    return code;
  }

  // Lanes along the row (V is Vec): the last elements one at a time, and the joining of lanes.

  #tailLoad(i: number, ptr: Local): V {
    return splatElement(this.#f, this.#shape.tensors[i]!.type.dtype, () => this.#f.get(ptr), 0) as V;
  }
  #tailStore(i: number, ptr: Local, v: () => V): E {
    return storeLanes(this.#f, this.#shape.tensors[i]!, ptr, 0, 0, v as () => Vec, 1);
  }
  /** Joins the first lane alone. */
  #tailJoin(op: Op, sum: V, x: V): V {
    const { m } = this.#f.asm;
    const neutral = this.#f.asm.simd ? this.#f.vconst(Number(foldOf(op).start(op.operands[0]!.type.dtype))) : [];
    const first = m.v128.const([255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const masked: Vec = [m.v128.bitselect((x as Vec)[0]!, neutral[0]!, first)];
    return foldOf(op).join(this.#w.sums(op), sum, masked as V);
  }
  /** All four lanes joined, in all lanes. */
  #acrossLanes(op: Op, total: { get(): V; set(v: V): E }): V {
    const f = this.#f;
    const { m } = f.asm;
    const turned = (lanes: readonly number[]): Vec => [m.i8x16.shuffle((total.get() as Vec)[0]!, (total.get() as Vec)[0]!, lanes.flatMap((l) => [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3]))];
    const join = (lanes: readonly number[]): V => foldOf(op).join(this.#w.sums(op), total.get(), turned(lanes) as V);
    const pairs = total.set(join([2, 3, 0, 1]));
    return [m.block(null, [pairs, (join([1, 0, 3, 2]) as Vec)[0]!], types.v128)] as V;
  }
}

const foldNames = { reduceSum: 'sum', reduceProd: 'prod', reduceMax: 'max', reduceMin: 'min' } as const;
function foldOf(op: Op): (typeof folds)['sum' | 'prod' | 'max' | 'min'] {
  const name = foldNames[op.name as keyof typeof foldNames];
  invariant(name !== undefined, `${op.name} is not a plain fold`);
  return folds[name];
}

function scalarWidth(f: Fn, shape: Shape): Width<E> {
  const { asm } = f;
  const { m } = asm;
  const isWide = (v: Value): boolean => computeType(v.type.dtype) === 'f32';
  return {
    // Sums of floats are kept in f64.
    sums: (op) => scalarLanes(f, op.operands[0]!.type.dtype, true),
    load: (i, ptr) => loadElement(asm, shape.tensors[i]!.type.dtype, f.get(ptr)),
    store: (i, ptr, _u, v) => storeElement(asm, shape.tensors[i]!.type.dtype, f.get(ptr), v()),
    chain: (ops, values, outputs) => scalarChain(f, ops, values as ScalarValues, outputs),
    keep(v) {
      const l = f.local(computeType(v.type.dtype));
      return { get: () => f.get(l), set: (e) => f.set(l, e) };
    },
    widen: (v, x) => (isWide(v) ? m.f64.promote(x) : x),
    narrow: (v, x) => normalize(asm, v.type.dtype, isWide(v) ? m.f32.demote(x) : x),
    scratchLoad: (v, ptr, offset) => m[computeType(v.type.dtype)].load(offset, 4, f.get(ptr)),
    scratchStore: (v, ptr, offset, x) => m[computeType(v.type.dtype)].store(offset, 4, f.get(ptr), x),
  };
}

function vectorWidth(f: Fn, shape: Shape, dim: NestDim, count: 1 | 4): Width<Vec> {
  const lanes = vectorLanes(f);
  const { m } = f.asm;
  return {
    sums: () => lanes,
    load(i, ptr, u) {
      const t = shape.tensors[i]!;
      const step = dim.steps[i]!;
      if (step === 0 || count === 1) return splatElement(f, t.type.dtype, () => f.get(ptr), 4 * u * step);
      return loadLanes(f, t, ptr, step, 4 * u);
    },
    store(i, ptr, u, v) {
      const step = dim.steps[i]!;
      return storeLanes(f, shape.tensors[i]!, ptr, step, 4 * u, v, step === 0 ? 1 : count);
    },
    chain: (ops, values, outputs) => vecChain(f, ops, values as VecValues, outputs, { inline: true }),
    keep(v) {
      const l = f.vlocal(v.type.dtype === 'f32' ? 'f32' : 'i32');
      return { get: () => f.vget(l), set: (e) => f.vset(l, e) };
    },
    widen: (_, x) => x,
    narrow: (_, x) => x,
    scratchLoad: (_, ptr, offset) => [m.v128.load(offset, 4, f.get(ptr))],
    scratchStore: (_, ptr, offset, x) => m.v128.store(offset, 4, f.get(ptr), x[0]!),
  };
}
