/** Turns a graph into steps over buffers: exchanges, vertices, merges. Addresses come later. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { bytesOf, dtypes, sameShape, sizeOf } from '../../ir/type.ts';
import { countOf, elementsOf, run, type BufferKind, type Comb, type Copy, type Cut, type Division, type Spread, type StepCycles, type TileBuffer, type TileDim, type TileStep } from '../../ir/tiles.ts';
import { Chooser, keyOf, type Choice } from './choose.ts';
import { combOf } from './comb.ts';
import { divisionFrom, equalParts, isLocal, largestSlice, resultSpread, signature, totalElements } from './divide.ts';
import { copySenders, programBytes, programKey } from './exchange-code.ts';
import { Outlook } from './outlook.ts';
import { partOptions } from './search.ts';
import { changes, overTime, timesOf } from './serial.ts';
import { toGrain, type TileTarget } from './target.ts';
import { walkOf } from './walk.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
export type LoweredBuffer = Mutable<TileBuffer>;

/** Steps and buffers without addresses. */
export interface Lowered {
  readonly steps: readonly TileStep[];
  /** How many there are, bodies of repeats counted once. */
  readonly count: number;
  readonly buffers: readonly LoweredBuffer[];
  /** Cycles by the op that they are spent for. */
  readonly relaxed: Chooser['relaxed'];
  /** Distinct vertex types. */
  readonly vertices: ReadonlySet<string>;
}

export interface LowerOptions {
  /** Bytes of temporaries that one op may take on a tile. */
  readonly bound: number;
  /** Those of single ops, by their number. */
  readonly bounds: ReadonlyMap<number, number>;
  /** Whether products may run in serial parts. */
  readonly serial: boolean;
  readonly onProgress?: (done: number, of: number) => void;
}

/** Lowers a prepared graph. */
export function lower(graph: Graph, target: TileTarget, options: LowerOptions): Lowered {
  return new Lowering(graph, target, options).run();
}

class Lowering {
  readonly #graph: Graph;
  readonly #t: TileTarget;
  readonly #chooser: Chooser;
  readonly #outlook: Outlook;
  readonly #buffers: LoweredBuffer[] = [];
  readonly #steps: TileStep[] = [];
  readonly #options: LowerOptions;
  /** The number of the next step. */
  #now = 0;
  /** Steps of the repeat that is being made. */
  #body: TileStep[] | undefined;
  readonly #homes = new Map<Value, number>();
  readonly #vertices = new Set<string>();
  /** Reads of each value that are still to come. */
  readonly #left = new Map<Value, number>();
  readonly #aliases = new Map<number, Value[]>();
  readonly #updates = new Map<Value, Value[]>();
  /** Constants and inputs that nothing has read yet: they can lie where their first reader wants them. */
  readonly #free = new Set<Value>();
  /** Steps whose code is there already: repeated blocks share it. */
  readonly #coded = new Set<string>();

  constructor(graph: Graph, target: TileTarget, options: LowerOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#t = target;
    this.#chooser = new Chooser(target, options.bound);
    this.#outlook = new Outlook(graph, target, this.#chooser);
  }

  run(): Lowered {
    const g = this.#graph;
    for (const op of g.ops) for (const v of op.operands) this.#left.set(v, (this.#left.get(v) ?? 0) + 1);
    for (const o of g.outputs) this.#left.set(o.value, (this.#left.get(o.value) ?? 0) + 1);
    for (const u of g.updates) {
      this.#updates.set(u.value, [...(this.#updates.get(u.value) ?? []), u.state]);
      this.#left.set(u.value, (this.#left.get(u.value) ?? 0) + 1);
    }
    const updated = new Set(g.updates.map((u) => u.state));
    for (const s of g.state) if (this.#left.has(s.value) || updated.has(s.value)) this.#hold(s.value, updated.has(s.value) ? 'state' : 'constant', s.name);
    for (const v of g.inputs) this.#hold(v, 'input', v.name ?? 'input');
    g.ops.forEach((op, i) => {
      if (i % 100 === 0) this.#options.onProgress?.(i, g.ops.length);
      this.#op(op, i);
    });
    this.#finish();
    return { steps: this.#steps, count: this.#now, buffers: this.#buffers, relaxed: this.#chooser.relaxed, vertices: this.#vertices };
  }

  // Buffers

  #buffer(value: Value, name: string, kind: BufferKind, spread: Spread, source: readonly string[], extra: { width?: number; bytes?: number; viewOf?: number } = {}): LoweredBuffer {
    const width = extra.width ?? 1;
    const b: LoweredBuffer = {
      id: this.#buffers.length, value: name, source, kind, dtype: value.type.dtype, shape: value.type.shape, spread, width,
      bytes: extra.bytes ?? toGrain(this.#t, largestSlice(spread) * width * dtypes[value.type.dtype].bytes), offset: 0, birth: this.#now, death: this.#now, ...(extra.viewOf !== undefined && { viewOf: extra.viewOf }),
    };
    this.#buffers.push(b);
    return b;
  }

  /** Spreads a value evenly over all tiles, its elements in a row. */
  #hold(v: Value, kind: BufferKind, name: string): void {
    const spread = this.#even(v);
    const b = this.#buffer(v, name, kind, spread, []);
    b.birth = 0;
    this.#homes.set(v, b.id);
    if (kind !== 'state') this.#free.add(v);
  }

  /** Moves operands of an op that nothing has read yet to where it reads them, if its division gives each tile a share of them. */
  #settle(op: Op, { walk, needs, local, contributors }: Choice): void {
    op.operands.forEach((v, k) => {
      if (!this.#free.delete(v) || !local[k]) return;
      const home = this.#home(v);
      const read = contributors === 1 || this.#contributes(op, walk.root, k);
      if (!read || changes(needs[k]!) || isLocal(needs[k]!, home.spread)) return;
      home.spread = needs[k]!;
      home.bytes = toGrain(this.#t, largestSlice(home.spread) * dtypes[v.type.dtype].bytes);
    });
  }

  #even(v: Value): Spread {
    const n = sizeOf(v.type.shape);
    // One tile holds all of it, as every op reads it.
    if (this.#t.constants.tiles === 1) return { base: 0, dims: [], axes: v.type.shape.map((d): Cut => ({ by: [], combs: [run(0, d)] })) };
    const parts = Math.max(1, Math.min(this.#t.constants.tiles, Math.ceil((n * dtypes[v.type.dtype].bytes) / this.#t.constants.grain)));
    return { base: 0, dims: [{ name: 'flat', parts, stride: 1 }], axes: [{ by: [0], combs: equalParts(n, parts) }], flat: true };
  }

  #home(v: Value): LoweredBuffer {
    const id = this.#homes.get(v);
    invariant(id !== undefined, `tiles: value ${v.name ?? '(unnamed)'} is read before it is made`);
    return this.#buffers[id]!;
  }

  /** Notes that a buffer, and the one it is a view of, hold something at the step that comes next. */
  #touch(b: LoweredBuffer): void {
    for (let x: LoweredBuffer | undefined = b; x; x = x.viewOf === undefined ? undefined : this.#buffers[x.viewOf]) x.death = Math.max(x.death, this.#now);
  }

  #read(v: Value): void {
    this.#left.set(v, this.#left.get(v)! - 1);
  }

  // Ops

  #op(op: Op, index: number): void {
    if (op.name === 'constant') {
      if (op.results.some((r) => this.#left.has(r))) this.#hold(op.results[0]!, 'constant', op.results[0]!.name ?? `constant ${index}`);
      return;
    }
    if (op.name === 'reshape' && this.#view(op)) return;
    const homes = op.operands.map((v) => this.#home(v).spread);
    const free = op.operands.map((v) => this.#free.has(v) && op.operands.indexOf(v) === op.operands.lastIndexOf(v));
    // New state lies where the old one does, whole.
    const repeats = this.#options.serial && op.results.length === 1 && !this.#updates.has(op.results[0]!);
    const choice = this.#chooser.choose(op, homes, free, repeats, this.#options.bounds.get(index), (c) => this.#after(op, c));
    this.#settle(op, choice);
    if (timesOf(choice.division) > 1) this.#repeated(op, index, choice);
    else if (choice.contributors > 1) this.#merged(op, index, choice, this.#gather(op, choice, this.#firstOf(op, choice)));
    else this.#whole(op, index, choice, this.#gather(op, choice, () => true));
    for (const v of op.operands) this.#read(v);
  }

  /** Cycles that ops to come pay for where a choice leaves the results. */
  #after(op: Op, choice: Choice): number {
    const [result] = op.results;
    if (!result || this.#t.constants.tiles === 1) return 0;
    const spread = choice.contributors > 1 ? this.#mergeSpread(op, choice, new Set([...op.operands.keys()].filter(this.#firstOf(op, choice)))) : overTime(choice.made);
    return spread ? this.#outlook.cyclesAfter(result, spread) : 0;
  }

  /** Serial parts: what all of them read is gathered once, the rest in each. */
  #repeated(op: Op, index: number, choice: Choice): void {
    const first = choice.contributors > 1 ? this.#firstOf(op, choice) : () => true;
    const once = this.#gather(op, choice, (k) => first(k) && !changes(choice.needs[k]!));
    const from = this.#now;
    const buffers = this.#buffers.length;
    this.#body = [];
    const each = this.#gather(op, choice, (k) => first(k) && changes(choice.needs[k]!));
    const reads = [...op.operands.keys()].filter(first).map((k) => (changes(choice.needs[k]!) ? each : once).shift()!);
    if (choice.contributors > 1) this.#merged(op, index, choice, reads);
    else this.#whole(op, index, choice, reads);
    const body = this.#body;
    this.#body = undefined;
    this.#steps.push({ kind: 'repeat', index: from, times: timesOf(choice.division), body });
    // The next part reads again what was there before the first: it is held until the last part is done.
    for (const b of this.#buffers.slice(0, buffers)) if (b.death >= from) b.death = Math.max(b.death, this.#now);
    // And it makes its part beside those that are there.
    this.#home(op.results[0]!).birth = from;
  }

  #push(step: TileStep): void {
    (this.#body ?? this.#steps).push(step);
    this.#now++;
  }

  /** The operands that contributions need. */
  #firstOf(op: Op, { walk }: Choice): (k: number) => boolean {
    const root = op === walk.root ? op.operands : walk.root.operands.map((v) => op.operands[op.regions[0]!.inputs.indexOf(v)]);
    const first = new Set([...op.operands.keys()].filter((k) => root.includes(op.operands[k]!) || this.#isBefore(op, walk.root, k)));
    return (k) => first.has(k);
  }

  /** A reshape that leaves every tile's elements where they are. */
  #view(op: Op): boolean {
    const v = op.operands[0]!;
    this.#free.delete(v);
    const home = this.#home(v);
    const result = op.results[0]!;
    const walk = walkOf(op);
    let spread: Spread | undefined;
    if (home.spread.flat) spread = home.spread;
    else {
      const division = divisionFrom(walk, 0, home.spread);
      if (division) spread = resultSpread(walk, division, result.type.shape);
    }
    if (!spread) return false;
    const b = this.#buffer(result, nameOf(result, op), 'activation', spread, op.source, { bytes: home.bytes, viewOf: home.id });
    this.#homes.set(result, b.id);
    this.#read(v);
    return true;
  }

  #whole(op: Op, index: number, choice: Choice, reads: readonly { buffer: LoweredBuffer; slice: Spread }[]): void {
    const { division, walk, made: spread } = choice;
    // Results of control flow differ in shape.
    const writes = this.#wanted(op).map((r, i) => this.#result(r, op, i === 0 || sameShape(r.type.shape, op.results[0]!.type.shape) ? spread : resultSpread(walk, division, r.type.shape), choice));
    this.#compute(op, index, 'whole', choice.estimate.vertex, division, reads, writes, choice.estimate.compute, choice.estimate.macs, timesOf(spread) > 1 ? spread : undefined);
    for (const b of reads) this.#touchLast(b.buffer);
  }

  /** The results of an op up to the last that something reads: a pool whose positions nobody asks for makes none. */
  #wanted(op: Op): readonly Value[] {
    const last = op.results.findLastIndex((r) => this.#left.has(r));
    return op.results.slice(0, Math.max(1, last + 1));
  }

  /** Contributions of all tiles to a result, their exchange and their merge. */
  #merged(op: Op, index: number, choice: Choice, reads: readonly { buffer: LoweredBuffer; slice: Spread }[]): void {
    const { division, walk } = choice;
    const isFirst = this.#firstOf(op, choice);
    const first = new Set([...op.operands.keys()].filter(isFirst));
    const result = op.results[0]!;
    const width = walk.combine === 'moments' ? 3 : 1;
    const dtype = walk.root.results[0]!.type.dtype;
    const partial = this.#buffer({ type: { dtype, shape: result.type.shape }, name: undefined }, `${nameOf(result, op)}.parts`, 'partial', choice.made, op.source, { width });
    this.#compute(op, index, 'contribute', choice.estimate.vertex, division, reads, [partial], choice.estimate.compute, choice.estimate.macs);

    const spread = this.#mergeSpread(op, choice, first);
    const each = largestSlice(spread);
    const depth = choice.contributors;
    const received = each * depth * width * dtypes[dtype].bytes;
    const receive = this.#buffer({ type: { dtype, shape: result.type.shape }, name: undefined }, `${nameOf(result, op)}.received`, 'receive', spread, op.source, { width: width * depth, bytes: toGrain(this.#t, received) });
    const others = [...op.operands.keys()].filter((k) => !first.has(k));
    const needs = others.map((k) => broadcastNeed(op.operands[k]!, result, spread));
    const more: { buffer: LoweredBuffer; slice: Spread }[] = [];
    const copies: Copy[] = [{ from: partial.id, to: receive.id, merge: true }];
    let bytes = received;
    others.forEach((k, i) => {
      const home = this.#home(op.operands[k]!);
      const all = overTime(needs[i]!);
      if (all && isLocal(all, home.spread)) more.push({ buffer: home, slice: needs[i]! });
      else {
        const g = this.#buffer(op.operands[k]!, `${home.value}.copy`, 'gather', needs[i]!, []);
        copies.push({ from: home.id, to: g.id });
        bytes += largestSlice(needs[i]!) * dtypes[g.dtype as keyof typeof dtypes].bytes;
        this.#touch(home);
        more.push({ buffer: g, slice: needs[i]! });
      }
    });
    this.#touch(partial);
    this.#exchange(copies, bytes, totalElements(spread) * depth * width * dtypes[dtype].bytes);
    const dims = mergeDivision(spread);
    const writes = this.#wanted(op).map((r) => this.#result(r, op, spread, undefined));
    this.#compute(op, index, 'merge', `${mergeVertex[walk.combine] ?? walk.combine} ${dtype}`, dims, [{ buffer: receive, slice: spread }, ...more], writes, choice.estimate.merge, 0, timesOf(spread) > 1 ? spread : undefined);
  }

  /** Whether contributions need an operand. */
  #contributes(op: Op, root: Op, k: number): boolean {
    return this.#isBefore(op, root, k) || root.operands.includes(op.regions[0]!.inputs[k]!);
  }

  /** Whether an operand is read by elementwise ops before the root. */
  #isBefore(op: Op, root: Op, k: number): boolean {
    if (op === root) return true;
    const region = op.regions[0]!;
    const input = region.inputs[k]!;
    const at = region.ops.indexOf(root);
    return region.ops.slice(0, at).some((o) => o.operands.includes(input));
  }

  /** Where contributions meet: where the state lies that they change, else on the tiles that made them, else spread evenly. */
  #mergeSpread(op: Op, choice: Choice, first: ReadonlySet<number>): Spread {
    const result = op.results[0]!;
    if (timesOf(choice.division) > 1) {
      const shared = subdivided(choice);
      return shared && overTime(shared) ? shared : onFirst(choice);
    }
    const state = op.operands.find((v, k) => !first.has(k) && this.#home(v).spread.flat && bytesOf(v.type) > 64 && sizeOf(v.type.shape) === sizeOf(result.type.shape));
    const flatOthers = op.operands.every((v, k) => first.has(k) || sizeOf(v.type.shape) === 1 || sizeOf(v.type.shape) === sizeOf(result.type.shape));
    if (state && flatOthers) return this.#home(state).spread;
    return subdivided(choice) ?? evenProduct(result.type.shape, Math.min(this.#t.constants.tiles, Math.ceil((sizeOf(result.type.shape) * choice.contributors) / leastShare)));
  }

  // Steps

  #gather(op: Op, choice: Choice, wanted: (k: number) => boolean): { buffer: LoweredBuffer; slice: Spread }[] {
    const reads: { buffer: LoweredBuffer; slice: Spread }[] = [];
    const copies: Copy[] = [];
    let [bytes, all] = [0, 0];
    const known = new Map<Value, LoweredBuffer>();
    op.operands.forEach((v, k) => {
      if (!wanted(k)) return;
      const home = this.#home(v);
      const need = choice.needs[k]!;
      if (choice.local[k]) {
        reads.push({ buffer: home, slice: need });
        return;
      }
      let g = known.get(v);
      if (!g) {
        g = this.#buffer(v, `${home.value}.copy`, 'gather', need, []);
        known.set(v, g);
        copies.push({ from: home.id, to: g.id });
        const size = dtypes[v.type.dtype].bytes;
        bytes += largestSlice(need) * size;
        all += totalElements(need) * size;
        this.#touch(home);
      }
      reads.push({ buffer: g, slice: need });
    });
    if (copies.length > 0) this.#exchange(copies, bytes, all, choice);
    return reads;
  }

  #exchange(copies: readonly Copy[], largest: number, bytes: number, choice?: Choice): void {
    const { exchange, pairFactor } = this.#t.constants;
    const sent = Math.max(0, ...copies.filter((c) => !c.merge).map((c) => this.#buffers[c.from]!.bytes / timesOf(this.#buffers[c.to]!.spread)));
    const streamed = choice && choice.walk.kind === 'contract' && !choice.local[0] && choice.division.dims.some((d) => d.parts % 2 === 0 && d.stride % 2 === 1 && !choice.needs[0]!.axes.some((c) => c.by.includes(choice.division.dims.indexOf(d))));
    const paired = streamed ? largestSlice(choice.needs[0]!) * dtypes[choice.walk.op.operands[0]!.type.dtype].bytes : 0;
    const received = largest - paired + paired / (streamed ? pairFactor : 1);
    const code = copies.reduce((n, x) => {
      const [from, to] = [this.#buffers[x.from]!, this.#buffers[x.to]!];
      return n + this.#once(programKey(from, to, x.merge === true), () => programBytes(this.#t, copySenders(from, to, x.merge === true)));
    }, 0);
    this.#push({ kind: 'exchange', index: this.#now, copies, bytes, largest, cycles: { compute: 0, exchange: Math.max(received, sent) / exchange, sync: 0 }, code });
  }

  #compute(op: Op, index: number, part: 'whole' | 'contribute' | 'merge', vertex: string, division: Division, reads: readonly { buffer: LoweredBuffer; slice: Spread }[], writes: readonly LoweredBuffer[], compute: number, macs: number, made?: Spread): void {
    // `made`: what is written at a time, where the buffers hold more.
    for (const r of reads) this.#touch(r.buffer);
    for (const w of writes) {
      if (w.viewOf === undefined) w.birth = this.#now;
      this.#touch(w);
    }
    this.#vertices.add(vertex);
    const c = this.#t.constants;
    const code = c['code.control'] + this.#once(`${part} ${keyOf(op)} ${signature(division)}`, () => c['code.vertex'] + c['code.edge'] * (reads.length + writes.length));
    const cycles: StepCycles = { compute, exchange: 0, sync: c.sync + c.control };
    this.#push({
      kind: 'compute', index: this.#now, op: index, part, name: op.results[0]?.name ?? op.name, source: op.source, root: rootName(op), vertex, division,
      reads: reads.map((r) => ({ buffer: r.buffer.id, slice: r.slice })), writes: writes.map((w) => ({ buffer: w.id, slice: made ?? w.spread })),
      cycles, code, macs,
    });
  }

  /** Bytes of code that a step adds: none where an equal step has it. */
  #once(key: string, bytes: () => number): number {
    if (this.#coded.has(key)) return 0;
    this.#coded.add(key);
    return bytes();
  }

  #touchLast(b: LoweredBuffer): void {
    b.death = Math.max(b.death, this.#now - 1);
  }

  /** A result's buffer: over the state it replaces or an operand that dies here, where both lie alike, else its own. */
  #result(r: Value, op: Op, spread: Spread, choice: Choice | undefined): LoweredBuffer {
    const name = nameOf(r, op);
    const over = this.#overwritten(r, op, spread, choice);
    const b = this.#buffer(r, name, 'activation', overTime(spread)!, op.source, over ? { bytes: over.bytes, viewOf: over.id } : {});
    this.#homes.set(r, b.id);
    return b;
  }

  #overwritten(r: Value, op: Op, spread: Spread, choice: Choice | undefined): LoweredBuffer | undefined {
    const size = dtypes[r.type.dtype].bytes;
    for (const state of this.#updates.get(r) ?? []) {
      const home = this.#home(state);
      const own = op.operands.filter((v) => v === state).length;
      if ((this.#left.get(state) ?? 0) === own && isLocal(spread, home.spread)) return home;
    }
    if (!choice) return undefined;
    for (const [k, v] of op.operands.entries()) {
      // Of other ops, what is read element by element after the root: a sum that the op adds to.
      if (choice.walk.kind !== 'map' && (op.name !== 'fused' || this.#contributes(op, choice.walk.root, k))) continue;
      const home = this.#home(v);
      const own = op.operands.filter((x) => x === v).length;
      if (!choice.local[k] || this.#left.get(v) !== own || home.kind !== 'activation' || dtypes[v.type.dtype].bytes !== size || sizeOf(v.type.shape) !== sizeOf(r.type.shape)) continue;
      const root = this.#root(home);
      if (root.kind !== 'activation' || !isLocal(spread, home.spread) || this.#shared(root, v)) continue;
      const list = this.#aliases.get(root.id) ?? [];
      if (list.includes(r)) continue;
      if (this.#takenBy.get(root.id) === op) continue;
      this.#takenBy.set(root.id, op);
      return home;
    }
    return undefined;
  }

  readonly #takenBy = new Map<number, Op>();

  #root(b: LoweredBuffer): LoweredBuffer {
    let x = b;
    while (x.viewOf !== undefined) x = this.#buffers[x.viewOf]!;
    return x;
  }

  /** Whether another value that is still to be read lies in the same memory. */
  #shared(root: LoweredBuffer, but: Value): boolean {
    for (const [v, id] of this.#homes) if (v !== but && (this.#left.get(v) ?? 0) > 0 && this.#root(this.#buffers[id]!) === root) return true;
    return false;
  }

  /** Brings new values of state home, and holds outputs to the end. */
  #finish(): void {
    const copies: Copy[] = [];
    let largest = 0;
    let bytes = 0;
    for (const u of this.#graph.updates) {
      const [from, to] = [this.#home(u.value), this.#home(u.state)];
      if (this.#root(from) === to) continue;
      this.#touch(from);
      copies.push({ from: from.id, to: to.id });
      largest += to.bytes;
      bytes += bytesOf(u.state.type);
    }
    if (copies.length > 0) this.#exchange(copies, largest, bytes);
    const last = Math.max(0, this.#now - 1);
    for (const b of this.#buffers) b.death = b.kind === 'state' || b.kind === 'constant' ? last : Math.min(b.death, last);
    for (const o of this.#graph.outputs) {
      const b = this.#root(this.#home(o.value));
      b.death = last;
      if (b.kind === 'activation') b.kind = 'output';
    }
  }
}

/** What an op is besides its elementwise ops. */
const rootName = (op: Op): string => {
  const { kind, root } = walkOf(op);
  return kind === 'map' ? 'map' : root.name;
};

/** Contributions are merged by the vertex that reduces within a tile, moments by one of their own. */
const mergeVertex: Readonly<Record<string, string>> = { sum: 'reduceSum', prod: 'reduceProd', max: 'reduceMax', min: 'reduceMin', moments: 'merge moments' };

const nameOf = (v: Value, op: Op): string => v.name ?? op.results[0]?.name ?? op.name;

/** Slices of an operand that broadcasts to a result, under a spread of the result. */
function broadcastNeed(v: Value, result: Value, spread: Spread): Spread {
  const one: Cut = { by: [], combs: [run(0, 1)] };
  if (spread.flat) return { ...spread, axes: [sizeOf(v.type.shape) === 1 ? one : spread.axes[0]!] };
  const skip = result.type.shape.length - v.type.shape.length;
  return { base: spread.base, dims: spread.dims, axes: v.type.shape.map((d, i) => (d === result.type.shape[skip + i] ? spread.axes[skip + i]! : one)) };
}

/** A merge runs over the axes of the result. */
function mergeDivision(spread: Spread): Division {
  if (spread.flat) return { base: spread.base, dims: spread.dims, ranges: { flat: spread.axes[0]! }, flat: true };
  return { base: spread.base, dims: spread.dims, ranges: Object.fromEntries(spread.axes.map((c, i) => [`@${i}`, c])) };
}

/** The tiles that contribute to the same elements share them out, where their combs are cut independently and are runs. */
function subdivided(choice: Choice): Spread | undefined {
  let known = shared.get(choice.division);
  if (known === undefined) shared.set(choice.division, (known = sharedOutMerge(choice) ?? null));
  return known ?? undefined;
}

/** Equal choices are made again and again: of equal ops, and in every plan. */
const shared = new WeakMap<Division, Spread | null>();

function sharedOutMerge({ division, made, contributors: each }: Choice): Spread | undefined {
  const named = new Set(made.axes.flatMap((c) => c.by));
  const reduced = division.dims.flatMap((d, i) => (named.has(i) || d.parts === 1 ? [] : [d]));
  const contributors = reduced.reduce((n, d) => n * d.parts, 1);
  if (contributors !== each || reduced.length === 0) return undefined;
  const stride = Math.min(...reduced.map((d) => d.stride));
  const reach = reduced.reduce((n, d) => n + (d.parts - 1) * d.stride, 0);
  if (reach !== (contributors - 1) * stride) return undefined;
  const kept = division.dims.map((d, i) => ({ d, i })).filter(({ i }) => named.has(i));
  const dims: TileDim[] = kept.map(({ d }) => d);
  const place = new Map(kept.map(({ i }, at) => [i, at]));
  const axes = made.axes.map((c): Cut => ({ by: c.by.map((i) => place.get(i)!), combs: c.combs }));
  const extents = axes.map((c) => Math.max(...c.combs.map(countOf)));
  const added = sharedOut(extents, Math.min(contributors, Math.ceil((extents.reduce((n, e) => n * e, 1) * contributors) / leastShare)));
  let s = added.reduce((n, p) => n * p, 1);
  for (const [axis, parts] of added.entries()) {
    s /= parts;
    if (parts === 1) continue;
    const cut = axes[axis]!;
    axes[axis] = { by: [...cut.by, dims.length], combs: cut.combs.flatMap((c) => pieces(c, parts)) };
    dims.push({ name: `merge${axis}`, parts, stride: s * stride });
  }
  return { base: division.base, dims, axes };
}

/** The first of the tiles that contribute to the same elements. */
function onFirst({ made }: Choice): Spread {
  const named = [...new Set(made.axes.flatMap((c) => c.by))].sort((a, b) => a - b);
  return { base: made.base, dims: named.map((d) => made.dims[d]!), axes: made.axes.map((c) => ({ by: c.by.map((d) => named.indexOf(d)), combs: c.combs })) };
}

/** Channels (the second of several axes) are shared out in blocks of this many, so that groups of them stay whole. */
const channelBlock = 16;

/** Contributions that a tile merges at least: fewer would not be faster. */
const leastShare = 64;

/** Parts of each axis, at most `tiles` together, that leave the smallest slice. */
function sharedOut(extents: readonly number[], tiles: number): number[] {
  const options = extents.map((n, axis) => partOptions(n, axis === 1 && extents.length > 2 ? channelBlock : 1, tiles));
  let best: { parts: number[]; slice: number } = { parts: extents.map(() => 1), slice: Infinity };
  const parts: number[] = [];
  const visit = (axis: number, used: number, slice: number): void => {
    if (axis === extents.length) {
      if (slice < best.slice) best = { parts: [...parts], slice };
      return;
    }
    for (const p of options[axis]!) {
      if (used * p > tiles) break;
      parts[axis] = p;
      visit(axis + 1, used * p, slice * Math.ceil(extents[axis]! / p));
    }
  };
  visit(0, 1, 1);
  return best.parts;
}

/** A comb in equal runs of its elements. */
function pieces(c: Comb, parts: number): Comb[] {
  const all = elementsOf(c);
  if (all.length >= parts * channelBlock && all.length % channelBlock === 0) {
    const blocks = all.length / channelBlock;
    return Array.from({ length: parts }, (_, p) => combOf(all.slice(Math.floor((p * blocks) / parts) * channelBlock, Math.floor(((p + 1) * blocks) / parts) * channelBlock)));
  }
  return Array.from({ length: parts }, (_, p) => combOf(all.slice(Math.floor((p * all.length) / parts), Math.floor(((p + 1) * all.length) / parts))));
}

/** A tensor cut along its axes, outer ones first, over at most `tiles` tiles. */
export function evenProduct(shape: readonly number[], tiles: number): Spread {
  const dims: TileDim[] = [];
  let left = tiles;
  const parts = shape.map((d) => {
    const p = Math.max(1, Math.min(d, left));
    left = Math.floor(left / p);
    return p;
  });
  let stride = parts.reduce((n, p) => n * p, 1);
  const axes = shape.map((d, i): Cut => {
    stride /= parts[i]!;
    if (parts[i] === 1) return { by: [], combs: [run(0, d)] };
    dims.push({ name: `d${i}`, parts: parts[i]!, stride });
    return { by: [dims.length - 1], combs: equalParts(d, parts[i]!) };
  });
  return { base: 0, dims, axes };
}
