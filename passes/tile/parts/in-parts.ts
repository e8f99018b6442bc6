/** Computes a region of a graph part by part, so that values inside it are held one part at a time. */
import { definitions, type Graph, type Op, type Value } from '../../../ir/graph.ts';
import { opDef } from '../../../ir/ops/index.ts';
import type { Again } from '../../../ir/tiles.ts';
import { dtypes, rowMajor, sizeOf, type Tensor } from '../../../ir/type.ts';
import { walkOf } from '../walk.ts';
import { Contributions } from './contributions.ts';
import { partOp, shareOf, type OpCut } from './cut.ts';
import type { Region } from './region.ts';

/** How a region is computed. */
export interface PartOptions {
  readonly again?: Again;
}

/**
 * The same graph with the ops of a region in parts, one part after the other, in the order that they had. Sums over what is cut gather contributions of the parts in their order; what needs
 * such a sum within the region runs part by part after it. A value that is cut and read whole is put together.
 */
export function inParts(graph: Graph, region: Region, options: PartOptions = {}): Graph {
  return new Partition(graph, region, options).run();
}

class Partition {
  readonly #graph: Graph;
  readonly #region: Region;
  readonly #defs: ReadonlyMap<Value, Op>;
  readonly #out: Op[] = [];
  readonly #done = new Set<Op>();
  /** Parts of values that are made in parts, those made so far. */
  readonly #parts = new Map<Value, Value[]>();
  readonly #sums = new Map<Op, Contributions>();
  /** Values put together, and shares that were cut out, by axis and part. */
  readonly #whole = new Map<Value, Value>();
  readonly #shares = new Map<Value, Map<string, Value>>();

  readonly #again: Again;
  readonly #stages: ReadonlyMap<Op, number>;
  /** Results that were computed again, by part and stage. */
  readonly #copies = new Map<Op, Map<string, readonly Value[]>>();

  constructor(graph: Graph, region: Region, { again = 'none' }: PartOptions) {
    this.#graph = graph;
    this.#region = region;
    this.#again = again;
    this.#defs = definitions(graph);
    this.#stages = this.#stagesOf();
  }

  run(): Graph {
    const { ops, outputs, updates } = this.#graph;
    const stages = this.#stages;
    let next = 0;
    for (const op of ops) {
      const cut = this.#region.cuts.has(op);
      for (; cut && next <= stages.get(op)!; next++) {
        const own = ops.filter((o) => this.#region.cuts.has(o) && stages.get(o) === next);
        for (let p = 0; p < this.#region.parts; p++) for (const o of own) this.#part(o, p);
      }
      if (!cut) this.#plain(op);
    }
    const at = (v: Value): Value => this.#read(v, undefined, 0);
    const finished = { ...this.#graph, outputs: outputs.map((o) => ({ name: o.name, value: at(o.value) })), updates: updates.map((u) => ({ state: u.state, value: at(u.value) })) };
    return { ...finished, ops: used({ ...finished, ops: this.#out }) };
  }

  /** How many sums over what is cut come before each op. */
  #stagesOf(): Map<Op, number> {
    const stages = new Map<Op, number>();
    for (const op of this.#graph.ops) {
      stages.set(op, Math.max(0, ...op.operands.map((v) => {
        const def = this.#defs.get(v);
        if (!def) return 0;
        const cut = this.#region.cuts.get(def);
        const own = this.#region.cuts.get(op);
        // A value that is put together needs all parts of its stage.
        const whole = cut && (cut.result === undefined || own?.operands[op.operands.indexOf(v)] !== cut.result);
        return stages.get(def)! + (whole ? 1 : 0);
      })));
    }
    return stages;
  }

  /** An op outside the region. */
  #plain(op: Op): void {
    if (this.#done.has(op)) return;
    this.#done.add(op);
    const operands = op.operands.map((v) => this.#read(v, undefined, 0));
    this.#out.push(operands.every((v, i) => v === op.operands[i]) ? op : { ...op, operands });
  }

  #part(op: Op, p: number): void {
    const cut = this.#region.cuts.get(op)!;
    const made = this.#parts.get(op.results[0]!) ?? [];
    if (cut.result === undefined) {
      const sum = this.#sums.get(op) ?? new Contributions(op, cut);
      this.#sums.set(op, sum);
      if (sum.added > p) return;
      this.#out.push(...sum.add((k) => this.#read(op.operands[k]!, cut.operands[k], p, this.#stages.get(op))));
      if (sum.results) op.results.forEach((r, i) => this.#whole.set(r, sum.results![i]!));
      return;
    }
    if (made.length > p) return;
    if (cut.joins) {
      this.#parts.set(op.results[0]!, [...made, this.#read(op.operands[p]!, undefined, 0, this.#stages.get(op))]);
      return;
    }
    const part = partOp(op, cut, op.operands.map((v, k) => this.#read(v, cut.operands[k], p, this.#stages.get(op))));
    this.#out.push(part);
    op.results.forEach((r, i) => this.#parts.set(r, [...(this.#parts.get(r) ?? []), part.results[i]!]));
  }

  /** A value as an op of a stage reads it: all of it, or one part's share of an axis. */
  #read(v: Value, axis: number | undefined, p: number, stage = 0): Value {
    const def = this.#defs.get(v);
    const cut = def && this.#region.cuts.get(def);
    if (cut && cut.result === axis && axis !== undefined) {
      if (this.#again !== 'none' && stage > this.#stages.get(def)! && (this.#again === 'all' || isLight(def))) return this.#copy(def, cut, p, stage)[def.results.indexOf(v)]!;
      while ((this.#parts.get(v)?.length ?? 0) <= p) this.#part(def, this.#parts.get(v)?.length ?? 0);
      return this.#parts.get(v)![p]!;
    }
    if (axis !== undefined) return this.#share(v, axis, p, this.#again === 'none' ? 0 : stage);
    if (!cut) {
      if (def) this.#plain(def);
      return v;
    }
    for (let i = 0; i < cut.parts; i++) this.#part(def, i);
    const known = this.#whole.get(v);
    if (known) return known;
    const all = made('concat', this.#parts.get(v)!, { axis: cut.result! }, def.source, v.name);
    this.#out.push(all);
    this.#whole.set(v, all.results[0]!);
    return all.results[0]!;
  }

  /** A part that is computed again for the ops of a later stage. */
  #copy(op: Op, cut: OpCut, p: number, stage: number): readonly Value[] {
    const known = this.#copies.get(op) ?? new Map<string, readonly Value[]>();
    this.#copies.set(op, known);
    const key = `${p} ${stage}`;
    const seen = known.get(key);
    if (seen) return seen;
    if (cut.joins) return [this.#read(op.operands[p]!, undefined, 0, stage)];
    const part = partOp(op, cut, op.operands.map((v, k) => this.#read(v, cut.operands[k], p, stage)));
    this.#out.push(part);
    known.set(key, part.results);
    return part.results;
  }

  /** A share of a value that is there as a whole. */
  #share(v: Value, axis: number, p: number, stage: number): Value {
    const { parts } = this.#region;
    const known = this.#shares.get(v) ?? new Map<string, Value>();
    this.#shares.set(v, known);
    const key = `${axis} ${p} ${this.#constant(v) ? 0 : stage}`;
    const seen = known.get(key);
    if (seen) return seen;
    const sizes = shareOf(v.type, axis, parts).shape;
    const starts = sizes.map((d, i) => (i === axis ? p * d : 0));
    const tensor = this.#constant(v);
    const op = tensor ? made('constant', [], { value: sliced(tensor, starts, sizes) }, [], v.name) : made('slice', [this.#read(v, undefined, p)], { starts, sizes, steps: sizes.map(() => 1) }, this.#defs.get(v)?.source ?? [], v.name);
    this.#out.push(op);
    known.set(key, op.results[0]!);
    return op.results[0]!;
  }

  #constant(v: Value): Tensor | undefined {
    const def = this.#defs.get(v);
    if (def) return def.name === 'constant' ? (def.attrs['value'] as Tensor) : undefined;
    const state = this.#graph.state.find((s) => s.value === v);
    return state && state.init !== 'zero' && !this.#graph.updates.some((u) => u.state === v) ? state.init : undefined;
  }
}

/** Whether computing an op again costs about what reading its operands does. */
const isLight = (op: Op): boolean => !['contract', 'reduce', 'single'].includes(walkOf(op).kind);

/** Ops whose results something reads; an op of several results counts where any is read. */
function used(graph: Graph): Op[] {
  const read = new Set<Value>([...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]);
  const out: Op[] = [];
  for (const op of [...graph.ops].reverse()) {
    if (!op.results.some((r) => read.has(r))) continue;
    op.operands.forEach((v) => read.add(v));
    out.push(op);
  }
  return out.reverse();
}

function made(name: string, operands: readonly Value[], attrs: Op['attrs'], source: readonly string[], result: string | undefined): Op {
  const types = opDef(name).infer(operands.map((v) => v.type), attrs, []);
  return { name, operands, attrs, regions: [], source, results: types.map((type): Value => ({ type, name: result })) };
}

/** A box of a tensor's elements. */
function sliced(t: Tensor, starts: readonly number[], sizes: readonly number[]): Tensor {
  const data = new dtypes[t.dtype].array(sizeOf(sizes));
  const strides = rowMajor(t.shape);
  const inner = rowMajor(sizes);
  for (let i = 0; i < data.length; i++) {
    let from = 0;
    sizes.forEach((d, axis) => (from += (starts[axis]! + (Math.floor(i / inner[axis]!) % d)) * strides[axis]!));
    data[i] = t.data[from]!;
  }
  return { dtype: t.dtype, shape: [...sizes], data };
}
