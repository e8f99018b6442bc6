/**
 * Executes a tile plan. Each tile is an ArrayBuffer of its own, poisoned with NaN wherever no live buffer lies; it is filled by the host before the first step, by exchanges, and by vertices
 * that see nothing but their slices on their own tile. A plan that gives the right numbers has its exchanges, slices, lifetimes and addresses right.
 */
import { InternalError, UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { fromRef, toRef } from '../../ir/number.ts';
import type { RefTensor } from '../../ir/op.ts';
import { dtypes, sameType, showType, sizeOf, type Tensor, type TypedArray } from '../../ir/type.ts';
import type { Spread, TileBuffer, TilePlan, TileStep } from '../../ir/tiles.ts';
import { bind, type Binding } from './bind.ts';
import { contributeTo, copyTo, dtypeOf, PlanFault, read, wholeTensor, type Delivery } from './exchange.ts';
import { NotHeld, placesWithin, take, type Held } from './held.ts';
import { TileMemories } from './memory.ts';
import { atTime, cutAt, elementNumbers, partsOf, runsOf, sameList, sliceAt, sliceSize, type Part, type Slice } from './parts.ts';
import { contributing, merging, runContribution, runMerge, runWhole } from './vertex.ts';

export { PlanFault } from './exchange.ts';

/** What a run leaves. */
export interface TileRun {
  /** By output name. */
  readonly outputs: ReadonlyMap<string, Tensor>;
  /** New values of updated state. */
  readonly state: ReadonlyMap<Value, Tensor>;
  /** The end of what was written, by tile, in bytes; code apart. */
  readonly used: Int32Array;
}

export interface TileRunOptions {
  /** Values of state; where there is none, the state's initial value counts. */
  readonly state?: ReadonlyMap<Value, Tensor>;
}

/**
 * Runs the plan of a graph. `inputs` by name. Throws a PlanFault that names step, tile and buffer where the plan is wrong: memory outside a tile, a read of what nothing wrote or what is gone,
 * an element that no tile holds; a UserError where an input is missing or of another type.
 */
export function simulate(graph: Graph, plan: TilePlan, inputs: Readonly<Record<string, Tensor>>, options: TileRunOptions = {}): TileRun {
  return new Simulation(graph, plan).run(inputs, options);
}

class Simulation {
  readonly #graph: Graph;
  readonly #plan: TilePlan;
  readonly #binding: Binding;
  readonly #memories: TileMemories;
  /** Buffers with memory of their own by the last step that they are held at. */
  readonly #dying = new Map<number, TileBuffer[]>();
  /** Contributions to each element of a receiving buffer, by tile. */
  readonly #arrived = new Map<number, { readonly counts: Map<number, Int32Array>; readonly depth: number }>();
  readonly #last: number;

  constructor(graph: Graph, plan: TilePlan) {
    this.#graph = graph;
    this.#plan = plan;
    for (const b of plan.buffers) {
      if (b.offset < 0 || b.offset + b.bytes > plan.bytesPerTile) throw new PlanFault(`buffer ${b.id} (${b.value}) takes bytes ${b.offset} to ${b.offset + b.bytes} of tiles that have ${plan.bytesPerTile}`);
      if (b.viewOf === undefined) this.#dying.set(b.death, [...(this.#dying.get(b.death) ?? []), b]);
    }
    this.#binding = bind(graph, plan);
    this.#last = lastOf(plan.steps);
    // Memory past the last buffer is never touched; a tile's own is as long as what a buffer may take.
    this.#memories = new TileMemories(plan.tiles, plan.buffers.reduce((n, b) => Math.max(n, b.offset + b.bytes), 0));
  }

  run(inputs: Readonly<Record<string, Tensor>>, options: TileRunOptions): TileRun {
    this.#load(inputs, options);
    for (const step of this.#plan.steps) this.#step(step, 0, -1);
    const home = (v: Value): TileBuffer => this.#homeOf(v);
    return {
      outputs: new Map(this.#graph.outputs.map((o) => [o.name, this.#whole(home(o.value), o.value)])),
      state: new Map(this.#graph.updates.map((u) => [u.state, this.#whole(home(u.state), u.state)])),
      used: this.#memories.used,
    };
  }

  #homeOf(v: Value): TileBuffer {
    const b = this.#binding.homes.get(v);
    if (!b) throw new InternalError(`tile plan: no buffer holds ${v.name ?? 'a value'}: ${showType(v.type)}`);
    return b;
  }

  #whole(b: TileBuffer, v: Value): Tensor {
    return { ...wholeTensor(this.#memories, b, this.#plan.tiles), ...v.type };
  }

  // The host

  #load(inputs: Readonly<Record<string, Tensor>>, options: TileRunOptions): void {
    const { homes, constants } = this.#binding;
    const put = (v: Value, tensor: Tensor): void => {
      const b = homes.get(v);
      if (b) this.#scatter(b, tensor);
    };
    for (const s of this.#graph.state) {
      const tensor = options.state?.get(s.value) ?? s.init;
      put(s.value, tensor === 'zero' ? { ...s.value.type, data: new dtypes[s.value.type.dtype].array(sizeOf(s.value.type.shape)) } : tensor);
    }
    for (const v of this.#graph.inputs) {
      const tensor = v.name === undefined ? undefined : inputs[v.name];
      if (!tensor) throw new UserError(`input ${v.name ?? '(unnamed)'}: ${showType(v.type)} is missing; give a tensor of that type`);
      if (!sameType(tensor, v.type)) throw new UserError(`input ${v.name} is ${showType(tensor)}, expected ${showType(v.type)}`);
      put(v, tensor);
    }
    for (const [v, tensor] of constants) put(v, tensor);
  }

  /** The host writes each tile's slice of a tensor. */
  #scatter(b: TileBuffer, tensor: Tensor): void {
    const from = tensor.data as Float64Array;
    for (const [tile, part] of partsOf(b.spread, this.#plan.tiles)) {
      const { starts, length } = runsOf(sliceAt(b.spread, part), b.shape);
      const data = new dtypes[tensor.dtype].array(starts.length * length) as Float64Array;
      for (let i = 0; i < starts.length; i++) data.set(from.subarray(starts[i], starts[i]! + length), i * length);
      this.#store(b, tile, data);
    }
  }

  // Steps

  /** `lasting`: buffers born up to this step outlive it, as an iteration is still to come. */
  #step(step: TileStep, iteration: number, lasting: number): void {
    try {
      switch (step.kind) {
        case 'exchange':
          this.#exchange(step, iteration);
          break;
        case 'compute':
          this.#compute(step, iteration);
          break;
        case 'repeat':
          for (let i = 0; i < step.times; i++) for (const s of step.body) this.#step(s, i, i < step.times - 1 ? step.index : -1);
          return;
      }
    } catch (e) {
      if (e instanceof PlanFault && !e.message.startsWith('step ')) throw new PlanFault(`step ${step.index} (${nameOf(step)}): ${e.message}`);
      throw e;
    }
    for (const b of this.#dying.get(step.index) ?? []) if (b.birth > lasting && !(step.index === this.#last && isHosts(b))) this.#memories.poison(b.offset, b.bytes);
  }

  /** All messages are read before the first is delivered. */
  #exchange(step: TileStep & { kind: 'exchange' }, iteration: number): void {
    const { tiles, buffers } = this.#plan;
    const deliveries = step.copies.map((c): Delivery => {
      const [from, to] = [buffers[c.from]!, buffers[c.to]!];
      this.#alive(from, step.index);
      this.#alive(to, step.index);
      if (!c.merge) return copyTo(this.#memories, from, to, tiles, iteration);
      const counts = new Map<number, Int32Array>();
      this.#arrived.set(to.id, { counts, depth: to.width / from.width });
      return contributeTo(this.#memories, from, to, tiles, iteration, (tile, here) => counts.set(tile, here));
    });
    for (const deliver of deliveries) deliver();
  }

  #compute(step: TileStep & { kind: 'compute' }, iteration: number): void {
    const op = this.#graph.ops[step.op];
    if (!op) throw new InternalError(`tile plan: the graph has no op ${step.op}`);
    const { buffers, tiles } = this.#plan;
    for (const a of [...step.reads, ...step.writes]) this.#alive(buffers[a.buffer]!, step.index);
    for (const [tile, at] of partsOf(step.division, tiles)) {
      const part = atTime(step.division.dims, at, iteration);
      const cut = (name: string): Int32Array | undefined => {
        const c = step.division.ranges[name];
        return c && cutAt(c, step.division.dims, part);
      };
      const made = step.writes.map((w) => this.#slice(w.slice, tile, iteration));
      try {
        const results = this.#vertex(step, op, cut, tile, made, iteration);
        // Results that nothing reads are not written.
        step.writes.forEach((w, i) => this.#writeSlice(buffers[w.buffer]!, made[i]!, tile, iteration, results[i]!));
      } catch (e) {
        if (e instanceof NotHeld || e instanceof PlanFault) throw new PlanFault(`${op.name} on tile ${tile}: ${e.message}`);
        throw e;
      }
    }
  }

  #vertex(step: TileStep & { kind: 'compute' }, op: Op, cut: (name: string) => Int32Array | undefined, tile: number, made: readonly Slice[], iteration: number): readonly RefTensor['data'][] {
    const held = (k: number): Held => this.#held(step.reads[k]!, tile, iteration);
    const expect = (n: number): void => {
      if (step.reads.length !== n) throw new PlanFault(`${step.reads.length} operands are read, the vertex needs ${n}`);
    };
    switch (step.part) {
      case 'whole':
        expect(op.operands.length);
        return runWhole(op, cut, op.operands.map((_, k) => held(k)), made);
      case 'contribute': {
        const wanted = contributing(op);
        expect(wanted.length);
        return [runContribution(op, cut, new Map(wanted.map((k, i) => [k, held(i)])), made[0]!)];
      }
      case 'merge': {
        const wanted = merging(op);
        expect(wanted.length + 1);
        return runMerge(op, this.#received(step.reads[0]!.buffer, tile, iteration), new Map(wanted.map((k, i) => [k, held(i + 1)])), made);
      }
    }
  }

  // Memory

  /** Throws where a buffer is used at a step outside its life. */
  #alive(b: TileBuffer, step: number): void {
    if (step < b.birth || step > b.death) throw new PlanFault(`buffer ${b.id} (${b.value}) is used, but is held from step ${b.birth} to ${b.death}`);
  }

  #slice(spread: Spread, tile: number, iteration: number): Slice {
    const part = partsOf(spread, this.#plan.tiles).get(tile);
    if (!part) throw new PlanFault(`tile ${tile} has no part of a slice that its vertex works on`);
    return sliceAt(spread, atTime(spread.dims, part, iteration));
  }

  /** What lies in a buffer on a tile. */
  #home(b: TileBuffer, tile: number, iteration: number): Held {
    const part: Part | undefined = partsOf(b.spread, this.#plan.tiles).get(tile);
    if (!part) throw new PlanFault(`buffer ${b.id} (${b.value}) has no part on tile ${tile}`);
    const slice = sliceAt(b.spread, atTime(b.spread.dims, part, iteration));
    const memory = read(this.#memories, b, tile, sliceSize(slice));
    const { data } = toRef({ dtype: dtypeOf(b), shape: b.shape, data: memory });
    // A vertex writes its results while others may still be of its operands' elements.
    return { ...slice, dtype: dtypeOf(b), shape: b.shape, data: data === memory ? data.slice() : data };
  }

  #held(access: { readonly buffer: number; readonly slice: Spread }, tile: number, iteration: number): Held {
    const b = this.#plan.buffers[access.buffer]!;
    const home = this.#home(b, tile, iteration);
    const slice = this.#slice(access.slice, tile, iteration);
    if (slice.flat === home.flat || home.lists.length === 1) return { ...home, ...slice, data: take(home, slice.lists, `buffer ${b.id} (${b.value})`) };
    if (slice.flat) return { ...home, ...slice, data: take({ ...home, lists: [elementNumbers(home, b.shape)], flat: true }, slice.lists, `buffer ${b.id} (${b.value})`) };
    throw new PlanFault(`buffer ${b.id} (${b.value}) is cut by element numbers, the slice by axes`);
  }

  #received(buffer: number, tile: number, iteration: number): { data: RefTensor['data']; depth: number; counts: Int32Array } {
    const b = this.#plan.buffers[buffer]!;
    const arrived = this.#arrived.get(b.id);
    const counts = arrived?.counts.get(tile);
    if (!counts) throw new PlanFault(`buffer ${b.id} (${b.value}) received nothing on tile ${tile}`);
    if (counts.length !== sliceSize(this.#slice(b.spread, tile, iteration))) throw new PlanFault(`buffer ${b.id} (${b.value}) received another slice`);
    // Slots that no contribution came to hold poison, and are not looked at.
    const { data } = toRef({ dtype: dtypeOf(b), shape: [], data: this.#memories.read(tile, b.offset, dtypeOf(b), counts.length * b.width, true) });
    return { data, depth: arrived!.depth, counts };
  }

  #writeSlice(b: TileBuffer, made: Slice, tile: number, iteration: number, data: RefTensor['data']): void {
    const stored = fromRef({ dtype: dtypeOf(b), shape: [data.length], data }).data;
    const home = this.#slice(b.spread, tile, iteration);
    if (home.lists.every((l, i) => sameList(l, made.lists[i]!))) return this.#store(b, tile, stored);
    if (b.width !== 1) throw new PlanFault(`buffer ${b.id} (${b.value}) is written in part`);
    const all = this.#memories.read(tile, b.offset, dtypeOf(b), sliceSize(home), true).slice() as Float64Array;
    const places = home.flat === made.flat ? placesWithin(home.lists, made.lists, `buffer ${b.id} (${b.value})`) : placesWithin([elementNumbers(home, b.shape)], [elementNumbers(made, b.shape)], `buffer ${b.id} (${b.value})`);
    for (let i = 0; i < places.length; i++) all[places[i]!] = (stored as Float64Array)[i]!;
    this.#store(b, tile, all);
  }

  #store(b: TileBuffer, tile: number, data: TypedArray): void {
    if (data.byteLength > b.bytes) throw new PlanFault(`buffer ${b.id} (${b.value}) has ${b.bytes} bytes, its slice on tile ${tile} takes ${data.byteLength}`);
    this.#memories.write(tile, b.offset, data);
  }
}

const nameOf = (s: TileStep): string => (s.kind === 'compute' ? `${s.part === 'whole' ? '' : `${s.part} `}${s.source[0] ?? s.name}` : s.kind);


/** The number of the last step. */
const lastOf = (steps: readonly TileStep[]): number => steps.reduce((n, s) => Math.max(n, s.kind === 'repeat' ? lastOf(s.body) : s.index), 0);

/** What the host reads after the last step: results, and inputs that are results. */
const isHosts = (b: TileBuffer): boolean => b.kind === 'state' || b.kind === 'constant' || b.kind === 'input' || b.kind === 'output';
