/**
 * The general kernel: walks the pieces of an op's axes. It reads each operand at the piece's index, folds over the reduce dims (for one operand: its
 * values; for two: their products), runs an elementwise chain on the result and writes it. It serves moves, windows, resampling and reductions of every
 * layout, and contractions of every dtype that have no faster kernel. Four f32 lanes run along a parallel dim that is contiguous in the result.
 */
import { invariant } from '../../ir/diagnostic.ts';
import type { Dim, Piece, Stage } from '../../ir/axes.ts';
import type { Op, Value } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, type DType } from '../../ir/type.ts';
import { accessOf, outsideMark, placeAccess, type Access, type Clip, type OffsetTable } from './access.ts';
import { types, type Asm, type E, type Fn, type Local, type Vec } from './asm.ts';
import { computeType, loadElement, normalize, storeElement } from './dtype.ts';
import { isLaneType, isVectorChain, scalarChain, splatElement, vecChain, type ScalarValues, type VecValues } from './elementwise/index.ts';
import type { KernelCode } from './kernel.ts';
import { folds, scalarLanes, vectorLanes, type FoldName, type Lanes } from './lanes.ts';
import { loadLanes, stepAlong, storeLanes } from './map.ts';
import { chunkTarget, collapse, cutNest, emitNest, kernelOfParts, type NestDim, type Part, type Row } from './nest.ts';

export interface Walk {
  readonly space: readonly Dim[];
  readonly stage: Stage;
  /** Operands that the stage reads, in its order, with their places among the kernel's operands. */
  readonly reads: readonly { readonly placed: Placed; readonly operand: number }[];
  /** Where the reduce dims are folded; undefined where the body only moves. */
  readonly fold: FoldName | undefined;
  /** What a read outside gives where nothing is folded. */
  readonly outside: number | bigint;
  /** Multiplies each read value by an entry of this table, chosen by two dims (of a resampling). */
  readonly weights?: { readonly outer: string; readonly inner: string | undefined; readonly at: readonly number[] };
  /** Elementwise ops on what is read: `values` are the values of `reads`, `output` is what is folded. */
  readonly prologue?: { readonly ops: readonly Op[]; readonly values: readonly Value[]; readonly output: Value };
  /** Elementwise ops on the result, what they read (which broadcasts to the result), and the folded value as they see it. */
  readonly epilogue?: { readonly ops: readonly Op[]; readonly root: Value; readonly extras: readonly { readonly value: Value; readonly placed: Placed; readonly operand: number }[]; readonly outputs: readonly Value[] };
  /** One for each output of the epilogue; all have one shape. */
  readonly results: readonly Placed[];
}

/** Emits a walk as a kernel of `operands` operands. */
export function emitWalk(asm: Asm, key: string, walk: Walk, operands: number): KernelCode {
  const parts = walk.stage.pieces.flatMap((piece) => walkParts(asm, walk, piece, operands));
  return kernelOfParts(asm, key, operands + walk.results.length, parts);
}

/** The tensors of a piece: reads that it has, extras, and the results. */
interface Tensors { readonly accesses: readonly Access[]; readonly placed: readonly Placed[]; readonly pointers: readonly number[]; readonly reads: number; readonly firstResult: number }

/** One piece of a walk, as parts of a kernel of `operands` operands. */
export function walkParts(asm: Asm, walk: Walk, piece: Piece, operands: number): Part[] {
  const dims = new Map(walk.space.filter((d) => piece.dims.includes(d.name)).map((d) => [d.name, d]));
  const written = new Set(piece.writes.flatMap((p) => p.terms.map(([d]) => d)));
  const parallel = [...dims.values()].filter((d) => written.has(d.name));
  const reduce = [...dims.values()].filter((d) => !written.has(d.name) && d.role === 'reduce');
  if (parallel.some((d) => d.size === 0)) return [];
  const t = tensorsOf(walk, piece, dims, operands);
  const odd = new Set(t.accesses.flatMap((a) => [...a.tables.flatMap((x) => [x.outer, x.inner ?? x.outer]), ...a.clips.flatMap((c) => c.terms.map(([d]) => d))]));
  if (walk.weights) for (const d of [walk.weights.outer, walk.weights.inner ?? walk.weights.outer]) odd.add(d);
  const nestDim = (d: Dim): NestDim => ({ name: d.name, size: d.size, steps: t.accesses.map((a) => a.steps.get(d.name) ?? 0), ...(odd.has(d.name) && { indexed: true }) });
  const main = t.firstResult;
  const ordered = parallel.map(nestDim).sort((a, b) => Math.abs(b.steps[main]!) - Math.abs(a.steps[main]!));
  const outer = collapse(ordered);
  if (outer.length === 0 || outer.at(-1)!.indexed) outer.push({ name: ' one', size: 1, steps: t.accesses.map(() => 0) });
  const inner = collapse(reduce.map(nestDim));
  const work = inner.reduce((n, d) => n * Math.max(1, d.size), 1);
  const cut = cutNest(outer, Math.max(16, Math.ceil(chunkTarget / Math.max(1, work))));
  return [{
    cut,
    work: work * outer.reduce((n, d) => n * d.size, 1),
    emit(f, chunk, ptrs) {
      const bases = t.accesses.map((a, i) => {
        const base = f.local('i32');
        return { base, set: f.set(base, asm.plus(f.get(ptrs[t.pointers[i]!]!), a.fixed)) };
      });
      const tables = new Tables(f, dims);
      return [
        ...bases.map((b) => b.set),
        ...emitNest(f, outer, cut, chunk, bases.map((b) => b.base), {
          row: (row) => emitRow(f, walk, t, tables, outer.at(-1)!, inner, row),
        }),
      ];
    },
  }];
}

function tensorsOf(walk: Walk, piece: Piece, dims: ReadonlyMap<string, Dim>, operands: number): Tensors {
  const read = walk.reads.flatMap((r, i) => {
    const index = piece.reads[i];
    return index ? [{ access: accessOf(index, r.placed, dims), placed: r.placed, pointer: r.operand }] : [];
  });
  const { shape } = walk.results[0]!.type;
  const rank = shape.length;
  const extras = (walk.epilogue?.extras ?? []).map((x) => {
    // Broadcast against the result: its places, with this operand's strides.
    const strides = shape.map((_, axis) => stepAlong(x.placed, axis - rank) / dtypes[x.placed.type.dtype].bytes);
    return { access: placeAccess(piece.writes, { type: { dtype: x.placed.type.dtype, shape }, strides }), placed: x.placed, pointer: x.operand };
  });
  const results = walk.results.map((placed, i) => ({ access: placeAccess(piece.writes, placed), placed, pointer: operands + i }));
  const all = [...read, ...extras, ...results];
  return { accesses: all.map((a) => a.access), placed: all.map((a) => a.placed), pointers: all.map((a) => a.pointer), reads: read.length, firstResult: read.length + extras.length };
}

/** Looks table entries up; tables lie in memory as constants. */
class Tables {
  readonly #f: Fn;
  readonly #dims: ReadonlyMap<string, Dim>;
  constructor(f: Fn, dims: ReadonlyMap<string, Dim>) {
    this.#f = f;
    this.#dims = dims;
  }
  /** The i32 entry for the current indices. */
  offset(t: OffsetTable, indices: ReadonlyMap<string, Local>): E {
    return this.#f.asm.m.i32.load(this.#f.asm.data(new Uint8Array(t.at.buffer)), 4, this.#entry(t.outer, t.inner, indices));
  }
  weight(at: readonly number[], outer: string, inner: string | undefined, indices: ReadonlyMap<string, Local>): E {
    return this.#f.asm.m.f32.load(this.#f.asm.data(new Uint8Array(Float32Array.from(at).buffer)), 4, this.#entry(outer, inner, indices));
  }
  #entry(outer: string, inner: string | undefined, indices: ReadonlyMap<string, Local>): E {
    const { asm } = this.#f;
    const get = (d: string): E => {
      const l = indices.get(d);
      return l ? this.#f.get(l) : asm.i32(0);
    };
    const number = inner === undefined ? get(outer) : asm.add(asm.times(get(outer), this.#dims.get(inner)!.size), get(inner));
    return asm.times(number, 4);
  }
}

/** How a row is computed in one width. */
interface Width<V> {
  readonly lanes: Lanes<V>;
  /** Accumulators, each `step` elements further along the row. */
  readonly unroll: number;
  readonly elements: number;
  /** Loads read `r` for accumulator `u`; `ptr` is its pointer. */
  load(r: number, ptr: Local, u: number): V;
  weight(e: E): V;
  /** A chain on what was read, as the fold takes it. */
  prologue(values: readonly V[]): { readonly steps: readonly E[]; readonly value: V };
  /** Epilogue and store. */
  finish(ptrs: readonly Local[], values: readonly (() => V)[]): E[];
}

function emitRow(f: Fn, walk: Walk, t: Tensors, tables: Tables, dim: NestDim, inner: readonly NestDim[], row: Row): E[] {
  const { asm } = f;
  const own = row.ptrs.map((p, i) => (dim.steps[i] === 0 ? p : f.local('i32')));
  const copies = own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.set(p, f.get(row.ptrs[i]!))]));
  const advance = (n: number): E[] => own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.inc(p, n * dim.steps[i]!)]));
  const one = (): E[] => emitElements(f, walk, t, tables, inner, row.indices, own, scalarWidth(f, walk, t));
  const wide = asm.simd && isVectorWalk(walk, t, dim);
  const block = (unroll: number): E[] => emitElements(f, walk, t, tables, inner, row.indices, own, vectorWidth(f, walk, t, dim.steps, unroll, 4));
  const single = (): E[] => (wide ? emitElements(f, walk, t, tables, inner, row.indices, own, vectorWidth(f, walk, t, dim.steps, 1, 1)) : one());
  if (typeof row.count === 'number') {
    const code = [...copies];
    let left = row.count;
    if (!wide) return left === 1 ? [...code, ...one()] : [...code, f.repeat(f.local('i32'), 0, left, 1, [...one(), ...advance(1)])];
    for (const unroll of [4, 1]) {
      const n = Math.floor(left / (4 * unroll));
      left -= n * 4 * unroll;
      if (n === 1) code.push(...block(unroll), ...advance(4 * unroll));
      if (n > 1) code.push(f.repeat(f.local('i32'), 0, n, 1, [...block(unroll), ...advance(4 * unroll)]));
    }
    if (left > 0) code.push(f.repeat(f.local('i32'), 0, left, 1, [...single(), ...advance(1)]));
    return code;
  }
  const left = f.local('i32');
  const { count } = row;
  const loop = (elements: number, body: E[]): E => {
    const top = f.label('v');
    return asm.m.loop(top, f.if(asm.m.i32.ge_s(f.get(left), asm.i32(elements)), [...body, ...advance(elements), f.inc(left, -elements), asm.m.br(top)]));
  };
  return [...copies, f.set(left, f.get(count)), ...(wide ? [loop(16, block(4)), loop(4, block(1))] : []), loop(1, single())];
}

/** Whether lanes can run along the row: f32 throughout, contiguous in the result. */
function isVectorWalk(walk: Walk, t: Tensors, dim: NestDim): boolean {
  const reads = t.placed.slice(0, t.reads);
  const f32 = walk.prologue
    ? reads.every((p) => isLaneType(p.type.dtype)) && isVectorChain(walk.prologue.ops) && walk.prologue.output.type.dtype === 'f32'
    : reads.every((p) => p.type.dtype === 'f32');
  const rest = t.placed.slice(t.reads).every((p) => isLaneType(p.type.dtype));
  const chain = walk.epilogue === undefined ? walk.results[0]!.type.dtype === 'f32' : isVectorChain(walk.epilogue.ops) && walk.epilogue.root.type.dtype === 'f32';
  return f32 && rest && chain && dim.steps[t.firstResult] === dtypes[walk.results[0]!.type.dtype].bytes;
}

/** The elements of one step along the row: folds over the reduce dims, or one read. */
function emitElements<V>(f: Fn, walk: Walk, t: Tensors, tables: Tables, inner: readonly NestDim[], outerIndices: ReadonlyMap<string, Local>, ptrs: readonly Local[], w: Width<V>): E[] {
  const { asm } = f;
  const { m } = asm;
  const fold = walk.fold === undefined ? undefined : folds[walk.fold];
  const sums = Array.from({ length: w.unroll }, () => w.lanes.local());
  const dtype = foldedType(walk);
  const code: E[] = sums.map((s) => s.set(w.lanes.constant(fold ? fold.start(dtype) : walk.outside)));
  const body = (indices: ReadonlyMap<string, Local>, at: readonly Local[]): E[] => {
    const addresses: Local[] = [];
    const pre: E[] = [];
    let valid: E | undefined;
    for (let r = 0; r < t.reads; r++) {
      const access = t.accesses[r]!;
      if (access.tables.length === 0) {
        addresses.push(at[r]!);
        continue;
      }
      const address = f.local('i32');
      pre.push(f.set(address, f.get(at[r]!)));
      for (const table of access.tables) {
        const offset = f.local('i32');
        pre.push(f.set(offset, tables.offset(table, indices)), f.set(address, asm.add(f.get(address), f.get(offset))));
        if (table.outside) {
          const ok = m.i32.ne(f.get(offset), asm.i32(outsideMark));
          valid = valid === undefined ? ok : m.i32.and(valid, ok);
        }
      }
      addresses.push(address);
    }
    if (t.reads === 0) return pre;
    const weight = walk.weights && w.lanes.local();
    if (weight && walk.weights) {
      const factor = f.local('f32');
      pre.push(f.set(factor, tables.weight(walk.weights.at, walk.weights.outer, walk.weights.inner, indices)), weight.set(w.weight(f.get(factor))));
      // A tap of weight 0 is not read.
      const counts = m.f32.ne(f.get(factor), m.f32.const(0));
      valid = valid === undefined ? counts : m.i32.and(valid, counts);
    }
    const work = sums.flatMap((s, u) => {
      if (walk.prologue) {
        const { steps, value } = w.prologue(addresses.map((a, r) => w.load(r, a, u)));
        return [...steps, s.set(fold ? fold.join(w.lanes, s.get(), value) : value)];
      }
      const x = w.load(0, addresses[0]!, u);
      if (!fold) return s.set(weight ? w.lanes.mul(x, weight.get()) : x);
      if (t.reads === 2) {
        invariant(walk.fold === 'sum', 'products are summed');
        return s.set(w.lanes.madd(x, w.load(1, addresses[1]!, u), s.get()));
      }
      return s.set(weight ? w.lanes.madd(x, weight.get(), s.get()) : fold.join(w.lanes, s.get(), x));
    });
    return valid === undefined ? [...pre, ...work] : [...pre, f.if(valid, work)];
  };
  const level = (k: number, indices: ReadonlyMap<string, Local>, at: readonly Local[]): E[] => {
    const d = inner[k];
    if (!d) return body(indices, at);
    const index = f.local('i32');
    const nested = new Map([...indices, [d.name, index]]);
    const own = d.steps.map((s, i) => (s === 0 || i >= t.reads ? at[i]! : f.local('i32')));
    const clips = t.accesses.flatMap((a) => a.clips.filter((c) => c.reduce === d.name));
    const step = own.flatMap((p, i) => (p === at[i] ? [] : [f.inc(p, d.steps[i]!)]));
    const start = own.flatMap((p, i) => (p === at[i] ? [] : [f.set(p, f.get(at[i]!))]));
    if (clips.length === 0) return d.size === 0 ? [] : [...start, f.repeat(index, 0, d.size, 1, [...level(k + 1, nested, own), ...step])];
    const [from, to] = [f.local('i32'), f.local('i32')];
    return [
      f.set(from, asm.i32(0)),
      f.set(to, asm.i32(d.size)),
      ...clips.flatMap((c) => narrow(f, c, from, to, indices)),
      ...start,
      ...own.flatMap((p, i) => (p === at[i] ? [] : [f.set(p, asm.add(f.get(p), asm.times(f.get(from), d.steps[i]!)))])),
      f.loop(index, f.get(from), () => f.get(to), 1, [...level(k + 1, nested, own), ...step]),
    ];
  };
  code.push(...level(0, outerIndices, ptrs));
  code.push(...w.finish(ptrs, sums.map((s) => s.get)));
  return code;
}

/** Narrows [from, to) of the reduce dim to where 0 <= Σ times·dim + plus < size. */
function narrow(f: Fn, clip: Clip, from: Local, to: Local, indices: ReadonlyMap<string, Local>): E[] {
  const { asm } = f;
  const { m } = asm;
  const times = clip.terms.find(([d]) => d === clip.reduce)![1];
  const rest = f.local('i32');
  const sum = clip.terms.filter(([d]) => d !== clip.reduce).reduce((e, [d, n]) => {
    const l = indices.get(d);
    return l ? asm.add(e, asm.times(f.get(l), n)) : e;
  }, asm.i32(clip.plus));
  const step = Math.abs(times);
  // a / step rounded up, for any sign of a.
  const ceiling = (a: E): E => {
    if (step === 1) return a;
    const t = f.local('i32');
    return m.block(null, [f.set(t, a), m.select(m.i32.gt_s(f.get(t), asm.i32(0)), m.i32.div_s(asm.plus(f.get(t), step - 1), asm.i32(step)), m.i32.div_s(f.get(t), asm.i32(step)))], types.i32);
  };
  const least = f.local('i32');
  const end = f.local('i32');
  // times > 0: k >= -rest / step and k < (size - rest) / step; times < 0: k > (rest - size) / step and k <= rest / step.
  const [low, high] = times > 0
    ? [ceiling(asm.sub(asm.i32(0), f.get(rest))), ceiling(asm.sub(asm.i32(clip.size), f.get(rest)))]
    : [ceiling(asm.sub(f.get(rest), asm.i32(clip.size - 1))), ceiling(asm.plus(f.get(rest), 1))];
  return [
    f.set(rest, sum),
    f.set(least, low),
    f.set(end, high),
    f.if(m.i32.gt_s(f.get(least), f.get(from)), [f.set(from, f.get(least))]),
    f.if(m.i32.lt_s(f.get(end), f.get(to)), [f.set(to, f.get(end))]),
  ];
}

/** The dtype that is folded or moved. */
const foldedType = (walk: Walk): DType => walk.prologue?.output.type.dtype ?? walk.reads[0]?.placed.type.dtype ?? walk.results[0]!.type.dtype;

function scalarWidth(f: Fn, walk: Walk, t: Tensors): Width<E> {
  const { asm } = f;
  const { m } = asm;
  const dtype = foldedType(walk);
  const lanes = scalarLanes(f, dtype, walk.fold === 'sum' || walk.weights !== undefined);
  const own = computeType(dtype);
  const widened = own === 'f32' && lanes.type === 'f64';
  return {
    lanes,
    unroll: 1,
    elements: 1,
    weight: (e) => (lanes.type === 'f64' ? m.f64.promote(e) : e),
    load(r, ptr) {
      const e = loadElement(asm, t.placed[r]!.type.dtype, f.get(ptr));
      return widened && !walk.prologue ? m.f64.promote(e) : e;
    },
    prologue(loaded) {
      const { ops, values, output } = walk.prologue!;
      const known: ScalarValues = new Map();
      const steps = values.map((v, i) => {
        const l = f.local(computeType(v.type.dtype));
        known.set(v, () => f.get(l));
        return f.set(l, loaded[i]!);
      });
      steps.push(...scalarChain(f, ops, known, [output]));
      const value = known.get(output)!();
      return { steps, value: widened ? m.f64.promote(value) : value };
    },
    finish(ptrs, [value]) {
      const folded = widened ? m.f32.demote(value!()) : value!();
      const target = (i: number): E => f.get(ptrs[t.firstResult + i]!);
      if (!walk.epilogue) return [storeElement(asm, walk.results[0]!.type.dtype, target(0), folded)];
      const root = f.local(own);
      const { ops, extras, outputs } = walk.epilogue;
      const values: ScalarValues = new Map([[walk.epilogue.root, () => f.get(root)]]);
      const code = [f.set(root, normalize(asm, walk.epilogue.root.type.dtype, folded))];
      extras.forEach((x, i) => {
        const l = f.local(computeType(x.value.type.dtype));
        code.push(f.set(l, loadElement(asm, x.value.type.dtype, f.get(ptrs[t.reads + i]!))));
        values.set(x.value, () => f.get(l));
      });
      code.push(...scalarChain(f, ops, values, outputs));
      return [...code, ...outputs.map((v, i) => storeElement(asm, v.type.dtype, target(i), values.get(v)!()))];
    },
  };
}

function vectorWidth(f: Fn, walk: Walk, t: Tensors, steps: readonly number[], unroll: number, lanesCount: 1 | 4): Width<Vec> {
  const lanes = vectorLanes(f);
  const loadAt = (i: number, ptr: Local, u: number): Vec => {
    const placed = t.placed[i]!;
    if (steps[i] === 0 || lanesCount === 1) return splatElement(f, placed.type.dtype, () => f.get(ptr), 4 * u * steps[i]!);
    return loadLanes(f, placed, ptr, steps[i]!, 4 * u);
  };
  return {
    lanes,
    unroll,
    elements: lanesCount,
    weight: (e) => [f.asm.m.f32x4.splat(e)],
    load: loadAt,
    prologue(loaded) {
      const { ops, values, output } = walk.prologue!;
      const known: VecValues = new Map();
      const steps = values.map((v, i) => {
        const l = f.vlocal();
        known.set(v, () => f.vget(l));
        return f.vset(l, loaded[i]!);
      });
      steps.push(...vecChain(f, ops, known, [output], { inline: true }));
      return { steps, value: known.get(output)!() };
    },
    finish(ptrs, values) {
      const store = (i: number, u: number, value: () => Vec): E => {
        const k = t.firstResult + i;
        return storeLanes(f, walk.results[i]!, ptrs[k]!, steps[k]!, 4 * u, value, lanesCount);
      };
      return values.flatMap((value, u) => {
        if (!walk.epilogue) return [store(0, u, value)];
        const { ops, root, extras, outputs } = walk.epilogue;
        const known: VecValues = new Map([[root, value]]);
        const code: E[] = [];
        extras.forEach((x, i) => {
          const l = f.vlocal();
          code.push(f.vset(l, loadAt(t.reads + i, ptrs[t.reads + i]!, u)));
          known.set(x.value, () => f.vget(l));
        });
        code.push(...vecChain(f, ops, known, outputs, { inline: true }));
        return [...code, ...outputs.map((v, i) => store(i, u, known.get(v)!))];
      });
    },
  };
}
