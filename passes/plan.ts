/** Makes a tile program of a fused graph: schedules, chooses layouts, turns moves into views, and gives every buffer a static address. */
import { InternalError, invariant } from '../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import type { Buffer, Entry, Placement, Step, Target, TileProgram } from '../ir/tile.ts';
import { bytesOf, dtypes, sameShape, sameType, showType, sizeOf, type Tensor, type TensorType } from '../ir/type.ts';
import { opDef } from '../ir/ops/index.ts';
import { align, allocate, liveBound, type Lifetime } from './allocate.ts';
import { demandOf, denseStrides, isDense, meets, orderFor, orderForReshape, orderOf, reshapeStrides, rootOf, rowMajorOrder, sameOrder, sameStrides, channelsLastOrder, type Order } from './layout.ts';
import { orderUpdates } from './order-updates.ts';
import { schedule } from './schedule.ts';

/** The tile program of a fused graph for one target. The graph is not changed; copies that a layout asks for become steps of their own. */
export function plan(graph: Graph, target: Target): TileProgram {
  return planEntries([{ name: 'run', graph }], target);
}

/** A graph that one call runs. */
export interface PlannedEntry {
  readonly name: string;
  readonly graph: Graph;
}

/**
 * The tile program of several fused graphs over one state: state of a name is one buffer, and so are inputs of a name and type. The first graph is the program's own; temporaries of all
 * share one region.
 */
export function planEntries(entries: readonly PlannedEntry[], target: Target): TileProgram {
  const scheduled = entries.map((e) => {
    const { graph, liveBytes } = schedule(e.graph);
    return { name: e.name, graph: orderUpdates(graph), liveBytes };
  });
  return new Planner(scheduled[0]!.graph, target).program(scheduled);
}

/** A root of memory. Lifetimes are in positions of the flattened steps. */
interface Root {
  readonly id: number;
  readonly kind: Buffer['kind'];
  readonly bytes: number;
  from: number;
  to: number;
}

/** A value's place inside its root, in elements. */
interface Spot {
  readonly root: Root;
  readonly offset: number;
  readonly strides: readonly number[];
}

/** Families whose emitters follow any layout of the main operand, so that the result takes it over. */
const followers = new Set(['maxPool', 'sumPool', 'maxPoolGrad', 'sumPoolGrad', 'resample', 'pad', 'cumSum', 'cumProd', 'copy']);
const reductions = new Set(['reduceSum', 'reduceProd', 'reduceMax', 'reduceMin', 'moments', 'argMax', 'argMin']);

/** Copies of values in other orders, by order, within one region. */
type Copies = Map<Value, Map<string, Value>>;

class Planner {
  /** The graph that is being planned. */
  #graph: Graph;
  /** Inputs and state of all graphs so far. */
  readonly #inputs = new Map<string, Spot>();
  readonly #state = new Map<string, { readonly type: TensorType; readonly spot: Spot }>();
  readonly #contentNames = new Set<string>();
  /** New values of state, and the state they go to. */
  #updates: ReadonlyMap<Value, Value> = new Map();
  readonly #roots: Root[] = [];
  readonly #spots = new Map<Value, Spot>();
  readonly #contents: { readonly value: Value; readonly name: string; readonly tensor: Tensor | 'zero' }[] = [];
  /** Concat operands that are computed in place, and the concat they belong to. */
  readonly #parts = new Map<Value, { concat: Op; offset: number }>();
  readonly #readers = new Map<Value, Op[]>();
  /** Values that are read at the end of the graph or of their region. */
  readonly #outputs = new Set<Value>();
  #position = 0;
  /** Ops whose step is planned. */
  readonly #done = new Set<Op>();
  /** Roots that something may read again without a reader in the graph: a loop's next round, a branch, a cached copy. */
  readonly #keptAlive = new Set<Root>();
  /** Output buffers that already belong to an output. */
  readonly #claimed = new Set<Root>();

  constructor(graph: Graph, _target: Target) {
    this.#graph = graph;
  }

  program(list: readonly { readonly name: string; readonly graph: Graph; readonly liveBytes: number }[]): TileProgram {
    const entries = list.map(({ name, graph }) => this.#entry(name, graph));
    const end = this.#position;
    for (const r of this.#roots) if (r.kind === 'output') r.to = end;
    return this.#finish(entries, entries[0]!.graph, Math.max(...list.map((e) => e.liveBytes)));
  }

  /** Plans one graph after those before it, so that their temporaries never live at once. */
  #entry(name: string, graph: Graph): Entry & { readonly graph: Graph } {
    this.#graph = graph;
    this.#note(graph);
    for (const v of graph.inputs) {
      const key = `${v.name} ${showType(v.type)}`;
      const known = this.#inputs.get(key);
      const spot = known ?? this.#newSpot('input', v.type, rowMajorOrder(v.type.shape.length));
      this.#spots.set(v, spot);
      this.#inputs.set(key, spot);
    }
    const updated = new Set(graph.updates.map((u) => u.state));
    this.#updates = new Map(graph.updates.filter((u) => u.state !== u.value).map((u) => [u.value, u.state]));
    for (const s of graph.state) {
      if (!updated.has(s.value) && !this.#readers.has(s.value) && !this.#outputs.has(s.value)) continue;
      const known = this.#state.get(s.name);
      if (updated.has(s.value) && known) {
        invariant(sameType(known.type, s.value.type), `plan: state ${s.name} has two types`);
        this.#spots.set(s.value, known.spot);
        continue;
      }
      const spot = this.#newSpot(updated.has(s.value) ? 'state' : 'constant', s.value.type, rowMajorOrder(s.value.type.shape.length));
      this.#spots.set(s.value, spot);
      if (updated.has(s.value)) this.#state.set(s.name, { type: s.value.type, spot });
      this.#content(s.value, s.name, s.init);
    }
    const steps = this.#region(graph, true);
    const outputs = graph.outputs.map((o) => ({ name: o.name, value: this.#output(o.value, steps) }));
    this.#assign(graph.updates.map((u) => u.value), graph.updates.map((u) => u.state), steps);
    this.#position++;
    return { name, steps, graph: { ...graph, outputs } };
  }

  #content(value: Value, wanted: string, tensor: Tensor | 'zero'): void {
    let name = wanted;
    for (let i = 1; this.#contentNames.has(name); i++) name = `${wanted}~${i}`;
    this.#contentNames.add(name);
    this.#contents.push({ value, name, tensor });
  }

  // Memory

  #newRoot(kind: Buffer['kind'], bytes: number): Root {
    const root: Root = { id: this.#roots.length, kind, bytes, from: this.#position, to: this.#position };
    this.#roots.push(root);
    return root;
  }

  #newSpot(kind: Buffer['kind'], type: TensorType, order: Order): Spot {
    return { root: this.#newRoot(kind, bytesOf(type)), offset: 0, strides: denseStrides(type.shape, order) };
  }

  #spot(v: Value): Spot {
    const spot = this.#spots.get(v);
    if (!spot) throw new InternalError(`plan: value ${v.name ?? '(unnamed)'} is read before it is made`);
    return spot;
  }

  #touch(v: Value): void {
    const root = this.#spot(v).root;
    root.to = Math.max(root.to, this.#position);
  }

  #note(graph: Graph): void {
    for (const o of [...graph.outputs, ...graph.updates]) this.#outputs.add(o.value);
    for (const op of graph.ops) {
      for (const v of op.operands) {
        const list = this.#readers.get(v);
        if (list) list.push(op);
        else this.#readers.set(v, [op]);
      }
    }
    const defs = new Map(graph.ops.flatMap((op) => op.results.map((r) => [r, op] as const)));
    for (const op of graph.ops) {
      if (op.name !== 'concat') continue;
      let offset = 0;
      for (const v of op.operands) {
        const def = defs.get(v);
        if (def && makesOwnMemory(def) && !this.#outputs.has(v) && !this.#parts.has(v) && sizeOf(v.type.shape) > 0) this.#parts.set(v, { concat: op, offset });
        offset += v.type.shape[num(op, 'axis')]!;
      }
    }
    for (const op of graph.ops) if (op.name === 'concat') this.#noteContainer(op);
    for (const op of graph.ops) if (op.name === 'if' || op.name === 'loop') for (const r of op.regions) this.#note(r);
  }

  /** A concat whose operands follow each other in a longer one is a part of that: chains that concatenate all results so far grow in one buffer. */
  #noteContainer(op: Op): void {
    const [whole] = op.results;
    const [first] = op.operands;
    if (!whole || !first || this.#outputs.has(whole) || this.#parts.has(whole) || sizeOf(whole.type.shape) === 0) return;
    const axis = num(op, 'axis');
    for (const other of this.#readers.get(first) ?? []) {
      if (other.name !== 'concat' || num(other, 'axis') !== axis || other.operands.length <= op.operands.length) continue;
      const at = other.operands.findIndex((_, i) => op.operands.every((v, k) => other.operands[i + k] === v));
      if (at < 0) continue;
      const offset = other.operands.slice(0, at).reduce((n, v) => n + v.type.shape[axis]!, 0);
      this.#parts.set(whole, { concat: other, offset });
      return;
    }
  }

  // Steps

  /** Plans the ops of the graph (`top`: its outputs may be computed straight into output buffers) or of a region. */
  #region(graph: Graph, top: boolean): Step[] {
    const steps: Step[] = [];
    const copies: Copies = new Map();
    for (const op of graph.ops) this.#op(op, steps, copies, top);
    return steps;
  }

  #op(op: Op, steps: Step[], copies: Copies, top: boolean): void {
    switch (op.name) {
      case 'constant': {
        const v = op.results[0]!;
        if (!this.#isUsed(v)) return;
        const spot = this.#newSpot('constant', v.type, rowMajorOrder(v.type.shape.length));
        this.#spots.set(v, spot);
        this.#content(v, v.name ?? `constant.${spot.root.id}`, op.attrs['value'] as Tensor);
        return;
      }
      case 'reshape':
      case 'transpose':
      case 'slice':
        if (this.#view(op, steps, copies)) return;
        break;
      case 'concat':
        this.#concat(op, steps);
        return;
      case 'if':
        this.#if(op, steps);
        return;
      case 'loop':
        this.#loop(op, steps);
        return;
    }
    this.#kernel(op, steps, copies, top);
  }

  /** Emits a kernel step; `op`'s operands and results have spots. */
  #emit(op: Op, steps: Step[]): void {
    for (const r of op.results) {
      const root = this.#spot(r).root;
      if (root.from > this.#position) root.from = this.#position;
    }
    for (const v of [...op.operands, ...op.results]) this.#touch(v);
    steps.push({ kind: 'kernel', op });
    this.#position++;
  }

  #kernel(op: Op, steps: Step[], copies: Copies, top: boolean): void {
    const operands = op.operands.map((v, i) => {
      const demand = demandOf(op, i);
      return meets(demand, v.type.shape, this.#spot(v).strides) ? v : this.#copied(v, orderFor(demand, v.type.shape.length), steps, copies);
    });
    if (op.name === 'maxPoolGrad') {
      // Cotangents walk with the positions that choose among them.
      const [dy, positions] = operands as [Value, Value];
      const kept = orderOf(positions.type.shape, this.#spot(positions).strides);
      if (!sameOrder(orderOf(dy.type.shape, this.#spot(dy).strides), kept)) operands[0] = this.#copied(dy, kept, steps, copies);
    }
    const order = this.#resultOrder(op, operands);
    const follow = order && isMap(op) ? operands.map((v) => this.#aligned(v, op.results[0]!.type, order, steps, copies)) : operands;
    // Results that nobody reads are dropped from the end (a pool's positions).
    let kept = op.results.length;
    while (kept > 1 && !this.#isUsed(op.results[kept - 1]!)) kept--;
    const results = op.results.slice(0, kept);
    for (const r of results) this.#placeResult(r, order && r.type.shape.length === order.length ? order : rowMajorOrder(r.type.shape.length), op, follow, top);
    this.#emit({ ...op, operands: follow, results }, steps);
    this.#done.add(op);
  }

  #isUsed(v: Value): boolean {
    return this.#readers.has(v) || this.#outputs.has(v);
  }

  #placeResult(r: Value, order: Order, op: Op, operands: readonly Value[], top: boolean): void {
    const part = this.#parts.get(r);
    if (part) {
      this.#spots.set(r, this.#partSpot(part.concat, part.offset, r.type, order));
      return;
    }
    if (top && sameOrder(order, rowMajorOrder(order.length)) && this.#graph.outputs.some((o) => o.value === r)) {
      this.#spots.set(r, this.#newSpot('output', r.type, order));
      return;
    }
    const state = top && sameOrder(order, rowMajorOrder(order.length)) ? this.#updates.get(r) : undefined;
    if (state && this.#mayReplace(state, op, operands)) {
      this.#spots.set(r, this.#spot(state));
      return;
    }
    const strides = denseStrides(r.type.shape, order);
    const reused = isMap(op) ? operands.find((v) => this.#diesHere(v, op) && this.#canOverwrite(v, r, strides)) : undefined;
    this.#spots.set(r, reused && !op.results.some((x) => x !== r && this.#spots.get(x)?.root === this.#spot(reused).root) ? this.#spot(reused) : { root: this.#newRoot('temp', bytesOf(r.type)), offset: 0, strides });
  }

  /** Whether the new value of state may be written over the old one: nothing reads that later, and `op` reads it where it writes, if at all. */
  #mayReplace(state: Value, op: Op, operands: readonly Value[]): boolean {
    const { root } = this.#spot(state);
    if (this.#keptAlive.has(root) || this.#outputs.has(state)) return false;
    for (const [other, spot] of this.#spots) {
      if (spot.root === root && (this.#outputs.has(other) || (this.#readers.get(other) ?? []).some((r) => r !== op && !this.#done.has(r)))) return false;
    }
    const reads = operands.filter((v) => this.#spot(v).root === root);
    return reads.length === 0 || (isMap(op) && reads.every((v) => v === state));
  }

  /** Whether an elementwise result may take the memory of an operand: same walk, same width, the whole buffer, nothing else in it. */
  #canOverwrite(v: Value, r: Value, strides: readonly number[]): boolean {
    const spot = this.#spot(v);
    return (
      spot.root.kind === 'temp' && spot.offset === 0 && sameShape(v.type.shape, r.type.shape) && dtypes[v.type.dtype].bytes === dtypes[r.type.dtype].bytes &&
      spot.root.bytes === bytesOf(r.type) && sameStrides(v.type.shape, spot.strides, strides)
    );
  }

  /** True if no later step reads anything in v's root: v is a kernel's own result, read by `op` alone, with no views and not kept for the end. */
  #diesHere(v: Value, op: Op): boolean {
    const root = this.#spot(v).root;
    if (this.#keptAlive.has(root)) return false;
    for (const [other, spot] of this.#spots) if (spot.root === root && other !== v && this.#readsAhead(other)) return false;
    return !this.#outputs.has(v) && (this.#readers.get(v) ?? []).every((reader) => reader === op || this.#done.has(reader));
  }

  #readsAhead(v: Value): boolean {
    return this.#outputs.has(v) || (this.#readers.get(v) ?? []).some((r) => !this.#done.has(r));
  }

  #resultOrder(op: Op, operands: readonly Value[]): Order | undefined {
    const result = op.results[0]!;
    const rank = result.type.shape.length;
    if (isMap(op) && op.results.some((r) => this.#updates.has(r))) return rowMajorOrder(rank);
    const root = rootOf(op);
    if (root.name === 'convPacked') return channelsLastOrder(rank);
    if (root.name === 'contract') return this.#wanted(result) ?? rowMajorOrder(rank);
    if (reductions.has(root.name) || kindOf(op) === 'reduce') return this.#reducedOrder(op, operands);
    if (isMap(op) || kindOf(op) === 'row' || followers.has(op.name)) {
      const full = operands.filter((v) => v.type.shape.length === rank && sizeOf(v.type.shape) > 1);
      const sized = full.filter((v) => sameShape(v.type.shape, result.type.shape));
      const main = [...(sized.length > 0 ? sized : full)].sort((a, b) => bytesOf(b.type) - bytesOf(a.type));
      const order = (v: Value): Order => orderOf(v.type.shape, this.#spot(v).strides);
      const special = main.find((v) => bytesOf(v.type) === bytesOf(main[0]!.type) && !sameOrder(order(v), rowMajorOrder(rank)));
      const lead = special ?? main[0];
      return lead ? order(lead) : (this.#wanted(result) ?? rowMajorOrder(rank));
    }
    return rowMajorOrder(rank);
  }

  /** A reduction's result keeps its operand's order of the axes that survive. */
  #reducedOrder(op: Op, operands: readonly Value[]): Order {
    const rank = op.results[0]!.type.shape.length;
    const inner = kindOf(op) === 'reduce' ? op.regions[0]!.ops.find((o) => reductions.has(o.name) || followers.has(o.name)) : op;
    const main = operands.find((v) => v.type.shape.length === (inner?.operands[0]?.type.shape.length ?? -1)) ?? operands[0]!;
    const order = orderOf(main.type.shape, this.#spot(main).strides);
    if (!inner) return rowMajorOrder(rank);
    if (followers.has(inner.name)) return order;
    const gone = new Set((inner.attrs['axes'] as readonly number[] | undefined) ?? [inner.attrs['axis'] as number]);
    const kept = order.filter((a) => !gone.has(a));
    const names = [...kept].sort((a, b) => a - b);
    const reduced = kept.map((a) => names.indexOf(a));
    return reduced.length === rank ? reduced : rowMajorOrder(rank);
  }

  /** The order in which a sole reader that transposes, or reshapes after a transpose, would find the value laid out row by row. */
  #wanted(v: Value): Order | undefined {
    const readers = this.#readers.get(v) ?? [];
    const [reader] = readers;
    if (readers.length !== 1 || reader?.name !== 'transpose') return undefined;
    return reader.attrs['perm'] as readonly number[];
  }

  /** For elementwise ops: an operand of the full shape in another order is copied into the result's order if it is large enough to matter. */
  #aligned(v: Value, result: TensorType, order: Order, steps: Step[], copies: Copies): Value {
    if (v.type.shape.length !== order.length || sizeOf(v.type.shape) < 1024 || !sameShape(v.type.shape, result.shape)) return v;
    const spot = this.#spot(v);
    return sameOrder(orderOf(v.type.shape, spot.strides), orderOf(v.type.shape, denseStrides(v.type.shape, order))) ? v : this.#copied(v, order, steps, copies);
  }

  #copied(v: Value, order: Order, steps: Step[], copies: Copies): Value {
    const key = order.join();
    const known = copies.get(v)?.get(key);
    if (known) return known;
    const made: Value = { type: v.type, name: v.name === undefined ? undefined : `${v.name}.${key.replaceAll(',', '')}` };
    this.#spots.set(made, this.#newSpot('temp', v.type, order));
    this.#emit(copyOp(v, made), steps);
    this.#keptAlive.add(this.#spot(made).root);
    const map = copies.get(v) ?? new Map<string, Value>();
    map.set(key, made);
    copies.set(v, map);
    return made;
  }

  // Views

  #view(op: Op, steps: Step[], copies: Copies): boolean {
    let v = op.operands[0]!;
    const result = op.results[0]!;
    let spot = this.#spot(v);
    if (op.name === 'transpose') {
      this.#alias(result, spot.root, spot.offset, (op.attrs['perm'] as readonly number[]).map((p) => spot.strides[p]!));
    } else if (op.name === 'slice') {
      const starts = op.attrs['starts'] as readonly number[];
      const by = op.attrs['steps'] as readonly number[];
      if (by.some((s) => s < 0) || sizeOf(result.type.shape) === 0) return false;
      this.#alias(result, spot.root, spot.offset + starts.reduce((n, s, i) => n + s * spot.strides[i]!, 0), spot.strides.map((s, i) => s * by[i]!));
    } else {
      let strides = reshapeStrides(v.type.shape, spot.strides, result.type.shape);
      if (!strides) {
        v = this.#copied(v, orderForReshape(v.type.shape, spot.strides, result.type.shape), steps, copies);
        spot = this.#spot(v);
        strides = reshapeStrides(v.type.shape, spot.strides, result.type.shape);
        invariant(strides, 'plan: a reshape does not view its copy');
      }
      this.#alias(result, spot.root, spot.offset, strides);
    }
    this.#done.add(op);
    return true;
  }

  #alias(v: Value, root: Root, offset: number, strides: readonly number[]): void {
    this.#spots.set(v, { root, offset, strides });
  }

  // Concat: operands computed in place need nothing; the others are copied into their part.

  #partSpot(concat: Op, offset: number, type: TensorType, order: Order): Spot {
    const whole = concat.results[0]!;
    let spot = this.#spots.get(whole);
    if (!spot) {
      const part = this.#parts.get(whole);
      spot = part ? this.#partSpot(part.concat, part.offset, whole.type, order) : this.#newSpot('temp', whole.type, order);
      this.#spots.set(whole, spot);
    }
    spot.root.from = Math.min(spot.root.from, this.#position);
    invariant(type.shape.length === whole.type.shape.length, 'plan: concat operand of another rank');
    return { root: spot.root, offset: spot.offset + offset * spot.strides[num(concat, 'axis')]!, strides: spot.strides };
  }

  #concat(op: Op, steps: Step[]): void {
    const axis = num(op, 'axis');
    const rank = op.results[0]!.type.shape.length;
    const lead = [...op.operands].sort((a, b) => bytesOf(b.type) - bytesOf(a.type))[0]!;
    const order = orderOf(lead.type.shape, this.#spot(lead).strides);
    let offset = 0;
    for (const v of op.operands) {
      const spot = sizeOf(v.type.shape) > 0 ? this.#partSpot(op, offset, v.type, order.length === rank ? order : rowMajorOrder(rank)) : undefined;
      if (spot && !this.#liesAt(v, spot)) {
        const made: Value = { type: v.type, name: undefined };
        this.#spots.set(made, spot);
        this.#emit({ ...copyOp(v, made), source: op.source }, steps);
      }
      offset += v.type.shape[axis]!;
    }
    if (!this.#spots.has(op.results[0]!)) this.#spots.set(op.results[0]!, this.#newSpot('temp', op.results[0]!.type, rowMajorOrder(rank)));
    this.#touch(op.results[0]!);
    this.#done.add(op);
  }

  #liesAt(v: Value, spot: Spot): boolean {
    const own = this.#spot(v);
    return own.root === spot.root && own.offset === spot.offset && sameStrides(v.type.shape, own.strides, spot.strides);
  }

  // Control flow

  #bindRegion(region: Graph, values: readonly Value[]): void {
    region.inputs.forEach((input, i) => {
      const spot = this.#spot(values[i]!);
      this.#spots.set(input, spot);
      this.#keptAlive.add(spot.root);
    });
  }

  #copyInto(from: Value, to: Value, steps: Step[]): void {
    this.#emit(copyOp(from, to), steps);
  }

  /** Copies all at once: a source in the memory of any target is saved before the first is written, unless it lies where it goes. */
  #assign(from: readonly Value[], to: readonly Value[], steps: Step[]): void {
    const written = new Set(to.map((v) => this.#spot(v).root));
    const sources = from.map((v, i) => {
      if (!written.has(this.#spot(v).root) || this.#liesAt(v, this.#spot(to[i]!))) return v;
      const saved: Value = { type: v.type, name: undefined };
      this.#spots.set(saved, this.#newSpot('temp', v.type, rowMajorOrder(v.type.shape.length)));
      this.#copyInto(v, saved, steps);
      return saved;
    });
    sources.forEach((v, i) => {
      if (!this.#liesAt(v, this.#spot(to[i]!))) this.#copyInto(v, to[i]!, steps);
    });
  }

  #if(op: Op, steps: Step[]): void {
    const [condition, ...captured] = op.operands;
    for (const r of op.results) this.#spots.set(r, this.#newSpot('temp', r.type, rowMajorOrder(r.type.shape.length)));
    const start = this.#position++;
    const branch = (region: Graph): Step[] => {
      this.#bindRegion(region, captured);
      const inner = this.#region(region, false);
      region.outputs.forEach((o, i) => this.#copyInto(o.value, op.results[i]!, inner));
      return inner;
    };
    const then = branch(op.regions[0]!);
    const otherwise = branch(op.regions[1]!);
    for (const v of op.operands) this.#touch(v);
    for (const r of op.results) this.#spot(r).root.from = Math.min(this.#spot(r).root.from, start);
    this.#position++;
    this.#done.add(op);
    steps.push({ kind: 'if', op, condition: condition!, then, otherwise });
  }

  #loop(op: Op, steps: Step[]): void {
    const [limit, startFlag, ...rest] = op.operands;
    const region = op.regions[0]!;
    const carriedCount = num(op, 'carried');
    const inits = rest.slice(0, carriedCount);
    const captured = rest.slice(carriedCount);
    const [index, ...inputs] = region.inputs;
    const carried = inputs.slice(0, carriedCount);
    const proceed: Value = { type: startFlag!.type, name: undefined };
    const start = this.#position;
    for (const v of [proceed, index!, ...carried]) {
      const spot = this.#newSpot('temp', v.type, rowMajorOrder(v.type.shape.length));
      this.#spots.set(v, spot);
      this.#keptAlive.add(spot.root);
    }
    this.#copyInto(startFlag!, proceed, steps);
    inits.forEach((v, i) => this.#copyInto(v, carried[i]!, steps));
    const scans = op.results.slice(carriedCount);
    for (const r of scans) this.#spots.set(r, this.#newSpot('temp', r.type, rowMajorOrder(r.type.shape.length)));
    this.#bindRegion({ ...region, inputs: inputs.slice(carriedCount) }, captured);
    const before = new Set(this.#roots);
    const body = this.#region(region, false);
    const [goOn, ...outs] = region.outputs.map((o) => o.value);
    outs.slice(carriedCount).forEach((v, i) => {
      const row = this.#dense(v, body);
      this.#touch(row);
      this.#touch(scans[i]!);
      body.push({ kind: 'move', from: [row], to: [{ stack: scans[i]!, index: index! }], op });
      this.#position++;
    });
    this.#assign([goOn!, ...outs.slice(0, carriedCount)], [proceed, ...carried], body);
    const end = this.#position++;
    // What was made before the body and is read in it is read again in the next round.
    for (const root of before) if (root.to >= start) root.to = Math.max(root.to, end);
    for (const v of op.operands) this.#touch(v);
    op.results.slice(0, carriedCount).forEach((r, i) => this.#spots.set(r, this.#spot(carried[i]!)));
    for (const v of op.results) this.#touch(v);
    this.#done.add(op);
    steps.push({ kind: 'loop', op, index: index!, limit: limit!, proceed, body });
  }

  /** The value itself where its memory is row-major, else a copy that is. */
  #dense(v: Value, steps: Step[]): Value {
    if (isDense(v.type.shape, this.#spot(v).strides, rowMajorOrder(v.type.shape.length))) return v;
    return this.#copied(v, rowMajorOrder(v.type.shape.length), steps, new Map());
  }

  /** A value of an output buffer: the value itself if it was computed there, else a copy. */
  #output(v: Value, steps: Step[]): Value {
    const spot = this.#spot(v);
    if (spot.root.kind === 'output' && !this.#claimed.has(spot.root) && spot.offset === 0 && isDense(v.type.shape, spot.strides, rowMajorOrder(v.type.shape.length))) {
      this.#claimed.add(spot.root);
      return v;
    }
    const made: Value = { type: v.type, name: v.name };
    this.#spots.set(made, this.#newSpot('output', v.type, rowMajorOrder(v.type.shape.length)));
    this.#claimed.add(this.#spot(made).root);
    this.#copyInto(v, made, steps);
    return made;
  }

  #finish(entries: readonly Entry[], graph: Graph, scheduleBytes: number): TileProgram {
    const temps = this.#roots.filter((r) => r.kind === 'temp');
    const lives: Lifetime[] = temps.map((r) => ({ bytes: r.bytes, from: r.from, to: r.to }));
    const { offsets, end } = allocate(lives);
    const address = new Map<Root, number>();
    let at = 0;
    const bytes = { constant: 0, state: 0, input: 0, output: 0, temp: 0 };
    for (const kind of ['constant', 'state', 'input', 'output'] as const) {
      const start = at;
      for (const r of this.#roots) {
        if (r.kind !== kind) continue;
        address.set(r, at);
        at += align(Math.max(1, r.bytes));
      }
      bytes[kind] = at - start;
    }
    temps.forEach((r, i) => address.set(r, at + offsets[i]!));
    const buffers = this.#roots.map((r): Buffer => ({ id: r.id, kind: r.kind, bytes: r.bytes, address: address.get(r)! }));
    const placements = new Map<Value, Placement>();
    for (const [v, s] of this.#spots) placements.set(v, { buffer: s.root.id, offset: s.offset, strides: s.strides });
    return {
      graph, entries, buffers, placements,
      contents: this.#contents,
      memory: { constants: bytes.constant, state: bytes.state, io: bytes.input + bytes.output, temps: end, liveBound: Math.max(liveBound(lives), 0), scheduleBytes },
    };
  }
}

/** Whether an op writes its results into memory of its own (not a view, a constant or a region's results). */
const makesOwnMemory = (op: Op): boolean => !['constant', 'reshape', 'transpose', 'slice', 'if', 'loop'].includes(op.name);

const kindOf = (op: Op): string | undefined => (op.name === 'fused' ? (op.attrs['kind'] as string) : undefined);
const num = (op: Op, key: string): number => op.attrs[key] as number;

function copyOp(from: Value, to: Value): Op {
  return { name: 'copy', operands: [from], attrs: {}, results: [to], regions: [], source: [] };
}

/** Elementwise ops alone: they read every operand at the element they write. */
function isMap(op: Op): boolean {
  return kindOf(op) === 'map' || (op.name !== 'fused' && opDef(op.name).family === 'map');
}
