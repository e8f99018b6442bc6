/** The sweeps of a row kernel as code. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import { sizeOf } from '../../../ir/type.ts';
import { types, type E, type Fn, type Local, type Vec } from '../asm.ts';
import { splatElement } from '../elementwise/index.ts';
import { folds } from '../lanes.ts';
import { storeLanes } from '../map.ts';
import type { RowPlan, Sweep } from './plan.ts';
import { savedBytes, type Shape } from './shape.ts';
import type { Width } from './width.ts';

/** The code of all sweeps for one kept element, or for `unroll` vectors of kept elements. `along`: lanes run along the reduced dims. */
export function emitSweeps<V>(f: Fn, plan: RowPlan, shape: Shape, ptrs: readonly Local[], scratch: Local, w: Width<V>, unroll: number, along: boolean): E[] {
  return new RowEmitter(f, plan, shape, ptrs, scratch, w, unroll, along).emit();
}

/** The same for a kernel that goes through the reduced dim in blocks: sums wait in memory from one block to the next. */
export interface BlockedSweep {
  /** Bytes of the sums of one vector row of kept elements. */
  readonly stateBytes: number;
  /** Start values of the sums. */
  start(state: Local): E[];
  /** Adds `rows` reduced elements from where the pointers stand. */
  block(rows: Local, state: Local): E[];
  /** What follows the sums. */
  end(state: Local): E[];
}

/** The parts of a kernel of one sweep (`blockRows`); every part is emitted with its own locals. */
export function blockedSweep<V>(f: Fn, plan: RowPlan, shape: Shape, ptrs: readonly Local[], scratch: Local, w: Width<V>, unroll: number): BlockedSweep {
  const emitter = (): RowEmitter<V> => new RowEmitter(f, plan, shape, ptrs, scratch, w, unroll, false);
  return {
    stateBytes: plan.sweeps[0]!.reductions.length * unroll * 16,
    start: (state) => emitter().blockStart(state),
    block: (rows, state) => emitter().block(rows, state),
    end: (state) => emitter().blockEnd(state),
  };
}

/** Elements that a partial sum in f32 takes up before it is added to the total: the error of a sum grows with the length of each of the two, not with that of the row. */
const partialLength = 64;

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
    const code = this.#keptInputs();
    for (const sweep of this.#plan.sweeps) code.push(...this.#keptOps(sweep.before), ...this.#sweep(sweep));
    return [...code, ...this.#keptResults()];
  }

  blockStart(state: Local): E[] {
    return this.#state((op, at) => this.#w.scratchStore(op.operands[0]!, state, at, this.#startOf(op)));
  }

  block(rows: Local, state: Local): E[] {
    const [sweep] = this.#plan.sweeps as readonly [Sweep];
    return [...this.#keptInputs(), ...this.#keptOps(sweep.before), ...this.#sweep(sweep, { rows, state })];
  }

  blockEnd(state: Local): E[] {
    const [sweep] = this.#plan.sweeps as readonly [Sweep];
    const sums = this.#state((op, at, values) => {
      const l = this.#w.keep(op.results[0]!);
      values.set(op.results[0]!, () => l.get());
      return l.set(this.#w.narrow(op.results[0]!, this.#w.scratchLoad(op.operands[0]!, state, at)));
    });
    return [...this.#keptInputs(), ...this.#keptOps(sweep.before), ...sums, ...this.#keptResults()];
  }

  /** One statement for each sum that waits in memory, `at` bytes from where the state stands. */
  #state(statement: (op: Op, at: number, values: Map<Value, () => V>) => E): E[] {
    return this.#plan.sweeps[0]!.reductions.flatMap((op, k) => this.#kept.map((values, u) => statement(op, (k * this.#unroll + u) * 16, values)));
  }

  #startOf(op: Op): V {
    return this.#w.sums(op).constant(foldOf(op).start(op.operands[0]!.type.dtype));
  }

  #keptInputs(): E[] {
    return this.#plan.inputs.flatMap((v, i) => (this.#plan.isFull.has(v) ? [] : this.#kept.map((values, u) => {
      const l = this.#w.keep(v);
      values.set(v, () => l.get());
      return l.set(this.#w.load(i, this.#ptrs[i]!, u));
    })));
  }

  /** What follows the last sweep. */
  #keptResults(): E[] {
    const code = this.#keptOps(this.#plan.last);
    this.#plan.outputs.forEach((v, k) => {
      if (this.#plan.isFull.has(v)) return;
      const i = this.#plan.inputs.length + k;
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

  /** One sweep; with `block`, over that many elements of the only reduced dim, from sums in memory to sums in memory. */
  #sweep(sweep: Sweep, block?: { readonly rows: Local; readonly state: Local }): E[] {
    const f = this.#f;
    const dims = this.#shape.reduced;
    const lanes = this.#along ? 4 : 1;
    // Several independent sums along the row hide the latency of addition; 0..side-1 of them per element.
    const short = dims.length > 1 && dims.at(-1)!.size <= 16;
    const side = this.#along ? (sweep.ops.length <= 4 || short ? 4 : 2) : 1;
    const sums = sweep.reductions.map((op) => Array.from({ length: this.#unroll * side }, () => this.#w.sums(op).local()));
    const code = sweep.reductions.flatMap((op, k) => sums[k]!.map((s) => s.set(this.#startOf(op))));
    const totals = block === undefined && this.#isLongSum(sweep) ? sweep.reductions.map((op, k) => sums[k]!.map(() => this.#w.sums(op).local())) : undefined;
    if (totals) code.push(...sweep.reductions.flatMap((op, k) => totals[k]!.map((t) => t.set(this.#startOf(op)))));
    /** Adds partial sums to their totals and starts them again. */
    const flush = (): E[] => sweep.reductions.flatMap((op, k) => sums[k]!.flatMap((s, i) => (totals ? [totals[k]![i]!.set(foldOf(op).join(this.#w.sums(op), totals[k]![i]!.get(), s.get())), s.set(this.#startOf(op))] : [])));
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

    /** Elements that a partial sum takes up in one round of dim k. */
    const takenBy = (k: number): number => dims.slice(k + 1).reduce((n, d, at) => n * Math.ceil(k + 1 + at === dims.length - 1 ? d.size / (lanes * side) : d.size), 1);
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
      if (block) return [...start, f.loop(i, f.asm.i32(0), () => f.get(block.rows), 1, [...step(own, 0, false), ...advance(1)])];
      const loop = (counter: Local, n: number, body: E[]): E[] => (n === 0 ? [] : n === 1 ? body : [f.repeat(counter, 0, n, 1, body)]);
      const perRound = takenBy(k);
      const atOnce = Math.ceil(partialLength / perRound);
      const rounds = (n: number, body: () => E[]): E[] => {
        if (!totals || perRound >= partialLength) return loop(i, n, body());
        if (n < 2 * atOnce) return [...loop(i, n, body()), ...(n >= atOnce ? flush() : [])];
        return [...loop(f.local('i32'), Math.floor(n / atOnce), [...loop(i, atOnce, body()), ...flush()]), ...(n % atOnce > 0 ? [...loop(i, n % atOnce, body()), ...flush()] : [])];
      };
      if (k < dims.length - 1) return [...start, ...rounds(d.size, () => [...level(k + 1, own), ...advance(1)])];
      if (!this.#along) return [...start, ...rounds(d.size, () => [...step(own, 0, false), ...advance(1)])];
      const wide = Math.floor(d.size / (lanes * side));
      const fours = Math.floor((d.size - wide * lanes * side) / lanes);
      return [
        ...start,
        ...rounds(wide, () => [...Array.from({ length: side }, (_, s) => step(own, s, false)).flat(), ...advance(lanes * side)]),
        ...rounds(fours, () => [...step(own, 0, false), ...advance(lanes)]),
        ...rounds(d.size % lanes, () => [...step(own, 0, true), ...advance(1)]),
      ];
    };
    code.push(...level(0, this.#ptrs));
    if (block) {
      return [...code, ...sweep.reductions.flatMap((op, k) => sums[k]!.map((s, u) => {
        const at = (k * this.#unroll + u) * 16;
        return this.#w.scratchStore(op.operands[0]!, block.state, at, foldOf(op).join(this.#w.sums(op), this.#w.scratchLoad(op.operands[0]!, block.state, at), s.get()));
      }))];
    }
    code.push(...flush());
    const results = totals ?? sums;
    sweep.reductions.forEach((op, k) => {
      const result = op.results[0]!;
      this.#kept.forEach((values, u) => {
        const parts = results[k]!.slice(u * side, (u + 1) * side);
        const total = this.#w.sums(op).local();
        code.push(total.set(parts.slice(1).reduce((s, p) => foldOf(op).join(this.#w.sums(op), s, p.get()), parts[0]!.get())));
        const l = this.#w.keep(result);
        code.push(l.set(this.#along ? this.#acrossLanes(op, total) : this.#w.narrow(result, total.get())));
        values.set(result, () => l.get());
      });
    });
    return code;
  }

  /** Whether a sweep sums up many elements in f32; scalar sums are in f64. */
  #isLongSum({ reductions }: Sweep): boolean {
    return this.#shape.mode !== 'scalar' && reductions.some((op) => op.name === 'reduceSum') && sizeOf(this.#shape.reduced.map((d) => d.size)) > 2 * partialLength;
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
