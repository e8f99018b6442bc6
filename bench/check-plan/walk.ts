/** Walks a plan's steps: what every buffer holds by then, and whether that is what the steps read. */
import { Coverage } from './coverage.ts';
import { rootOf } from './memory.ts';
import { called, elementBytes, flatSteps, stepCalled, type Access, type Buffer, type Compute, type Exchange, type Plan, type Problem, type Step } from './plan.ts';
import { sizeOf, spreadKey, type Slices } from './slices.ts';

/** What lies in a memory: the buffer that was written last, whole or, where writes take serial parts, the element numbers that have come on each tile. */
interface Content { readonly buffer: Buffer; readonly parts?: Map<number, Set<number>> }

/** Problems of steps and of what they read and write, in order. */
export function checkSteps(plan: Plan, slices: Slices): Problem[] {
  return new Walk(plan, slices).run();
}

class Walk {
  readonly #plan: Plan;
  readonly #slices: Slices;
  readonly #coverage: Coverage;
  readonly #problems: Problem[] = [];
  readonly #said = new Set<string>();
  /** Buffers that are filled by the host or a step, not only views of what others fill. */
  readonly #filled: ReadonlySet<number>;
  readonly #contents = new Map<number, Content>();
  readonly #dying: ReadonlyMap<number, readonly Buffer[]>;
  readonly #fitting = new Map<string, number | undefined>();

  constructor(plan: Plan, slices: Slices) {
    this.#plan = plan;
    this.#slices = slices;
    this.#coverage = new Coverage(plan, slices);
    this.#filled = new Set([
      ...plan.buffers.filter((b) => b.kind === 'state' || b.kind === 'constant' || b.kind === 'input').map((b) => b.id),
      ...flatSteps(plan.steps).flatMap((s) => (s.kind === 'exchange' ? s.copies.map((c) => c.to) : s.writes.map((w) => w.buffer))),
    ]);
    this.#dying = Map.groupBy(plan.buffers.filter((b) => b.viewOf === undefined), (b) => b.death);
  }

  run(): Problem[] {
    if (!this.#numbered()) return this.#problems;
    for (const b of this.#plan.buffers) {
      if (b.kind === 'state' || b.kind === 'constant' || b.kind === 'input') this.#load(b);
      else if (b.viewOf !== undefined && !this.#filled.has(b.id)) this.#checkReshape(b, this.#plan.buffers[b.viewOf]!);
      else if (!this.#filled.has(b.id) && !this.#plan.buffers.some((v) => v.viewOf === b.id && this.#filled.has(v.id))) this.#say(`${called(b)} is never filled`, { buffer: b.id });
    }
    for (const s of this.#plan.steps) this.#step(s, 0);
    this.#end();
    return this.#problems;
  }

  #say(message: string, where: Omit<Problem, 'message'>): void {
    if (this.#said.has(message)) return;
    this.#said.add(message);
    this.#problems.push({ message, ...where });
  }

  /** Step numbers ascend by one, a repeat has the number of its first step, and every buffer that is named exists. */
  #numbered(): boolean {
    let next = 0;
    const visit = (s: Step): void => {
      if (s.index !== next) this.#say(`${stepCalled(s)} stands where step ${next} is expected`, { step: s.index });
      if (s.kind === 'repeat') s.body.forEach(visit);
      else next = s.index + 1;
      const ids = s.kind === 'exchange' ? s.copies.flatMap((c) => [c.from, c.to]) : s.kind === 'compute' ? [...s.reads, ...s.writes].map((a) => a.buffer) : [];
      for (const id of ids) if (!this.#plan.buffers[id]) this.#say(`${stepCalled(s)} names buffer ${id}, which the plan does not have`, { step: s.index, buffer: id });
    };
    this.#plan.steps.forEach(visit);
    return this.#problems.length === 0;
  }

  #load(b: Buffer): void {
    if (b.viewOf !== undefined) return this.#say(`${called(b)} is filled by the host, but is a view`, { buffer: b.id });
    if (!this.#coverage.isWhole(b.spread, b.shape, 0)) this.#say(`${called(b)} does not hold all ${sizeOf(b.shape)} elements`, { buffer: b.id });
    this.#contents.set(b.id, { buffer: b });
  }

  /** A view that nothing writes has another shape, and the same elements in the same order on every tile. */
  #checkReshape(b: Buffer, of: Buffer): void {
    if (sizeOf(b.shape) !== sizeOf(of.shape)) return this.#say(`${called(b)} has ${sizeOf(b.shape)} elements, ${called(of)}, of which it is a view, has ${sizeOf(of.shape)}`, { buffer: b.id });
    if (b.spread.flat && of.spread.flat && spreadKey(b.spread) === spreadKey(of.spread)) return;
    const [own, others] = [this.#slices.parts(b.spread).byTile, this.#slices.parts(of.spread).byTile];
    for (const tile of new Set([...own.keys(), ...others.keys()])) {
      const [part, other] = [own.get(tile), others.get(tile)];
      const [x, y] = [part ? this.#slices.numbers(b.spread, b.shape, part) : [], other ? this.#slices.numbers(of.spread, of.shape, other) : []];
      if (x.length !== y.length || x.some((n, i) => n !== y[i])) return this.#say(`${called(b)} holds other elements on tile ${tile} than ${called(of)}, of which it is a view`, { buffer: b.id, tile });
    }
  }

  #step(s: Step, iteration: number): void {
    if (s.kind === 'repeat') {
      for (let i = 0; i < s.times; i++) for (const inner of s.body) this.#step(inner, i);
      return;
    }
    if (s.kind === 'exchange') this.#exchange(s, iteration);
    else this.#compute(s, iteration);
    for (const b of this.#dying.get(s.index) ?? []) if (b.kind !== 'output' && b.kind !== 'state' && b.kind !== 'constant') this.#contents.delete(b.id);
  }

  /** All sources are read before anything is filled. */
  #exchange(s: Exchange, iteration: number): void {
    for (const c of s.copies) {
      const [from, to] = [this.#plan.buffers[c.from]!, this.#plan.buffers[c.to]!];
      this.#held(s, to, 'is sent to');
      const say = (message: string, more: Omit<Problem, 'message' | 'step' | 'buffer'> = {}): void => this.#say(`${stepCalled(s)}: ${called(to)} ${message}`, { step: s.index, buffer: to.id, ...more });
      if (!this.#holds(s, from)) continue;
      if (from.dtype !== to.dtype || sizeOf(from.shape) !== sizeOf(to.shape) || (!c.merge && from.width !== to.width)) say(`is sent ${from.dtype}[${from.shape.join(',')}], but holds ${to.dtype}[${to.shape.join(',')}]`);
      else if (from.shape.join() !== to.shape.join() && !(from.spread.flat && to.spread.flat)) say(`has the shape [${to.shape.join(',')}], ${called(from)} has [${from.shape.join(',')}]`);
      else {
        const missing = this.#coverage.missing(from.spread, to.spread, to.shape, iteration);
        if (missing) say(`needs ${missing.count * elementBytes(to)!} bytes on tile ${missing.tile}, from element ${missing.element} on, that no part of ${called(from)} holds`, { tile: missing.tile, bytes: missing.count * elementBytes(to)! });
        const room = to.width / from.width;
        if (c.merge && !(this.#coverage.contributors(from.spread, from.shape, iteration) <= room && Number.isInteger(room))) say(`has room for ${room} contributions to an element, ${called(from)} makes ${this.#coverage.contributors(from.spread, from.shape, iteration)}`);
      }
    }
    for (const c of s.copies) this.#fill(this.#plan.buffers[c.to]!);
  }

  #compute(s: Compute, iteration: number): void {
    const { byTile, twice } = this.#slices.parts(s.division, iteration);
    if (twice !== undefined) this.#say(`${stepCalled(s)} has two vertices on tile ${twice}`, { step: s.index, tile: twice });
    for (const a of s.reads) {
      const b = this.#plan.buffers[a.buffer]!;
      if (this.#holds(s, b)) this.#local(s, a, byTile, 'reads', iteration);
    }
    for (const a of s.writes) {
      const b = this.#plan.buffers[a.buffer]!;
      this.#held(s, b, 'is written');
      if (this.#local(s, a, byTile, 'writes', iteration)) this.#fill(b, a, iteration);
      if (s.part !== 'contribute' && !a.slice.dims.some((d) => d.time) && !this.#coverage.isWhole(a.slice, b.shape, iteration)) this.#say(`${stepCalled(s)} does not write all ${sizeOf(b.shape)} elements of ${called(b)}`, { step: s.index, buffer: b.id });
    }
  }

  /** Whether a buffer is held at a step; says so where it is not. */
  #held(s: Step, b: Buffer, used: string): boolean {
    const root = rootOf(this.#plan, b);
    for (const x of root === b ? [b] : [b, root]) {
      if (x.birth <= s.index && s.index <= x.death) continue;
      this.#say(`${stepCalled(s)}: ${called(b)} ${used} ${s.index < x.birth ? `before ${x === b ? 'its' : `its memory, ${called(x)}, has its`} birth at step ${x.birth}` : `after ${x === b ? 'it' : `its memory, ${called(x)},`} was freed at step ${x.death}`}; ${b.bytes} bytes`, { step: s.index, buffer: b.id, bytes: b.bytes });
      return false;
    }
    return true;
  }

  /** Whether a buffer is held and its memory holds its value; says so where it does not. */
  #holds(s: Step, b: Buffer): boolean {
    if (!this.#held(s, b, 'is read')) return false;
    let source = b;
    while (!this.#filled.has(source.id) && source.viewOf !== undefined) source = this.#plan.buffers[source.viewOf]!;
    const content = this.#contents.get(rootOf(this.#plan, b).id);
    if (content?.buffer === source) return true;
    this.#say(`${stepCalled(s)}: ${called(b)} is read, but ${content ? `${called(content.buffer)} was written over it` : 'nothing has filled it: a copy or a vertex is missing'}; ${b.bytes} bytes`, { step: s.index, buffer: b.id, bytes: b.bytes });
    return false;
  }

  /** Whether each vertex's slice lies in the buffer's part on its own tile, and has been filled where it is read. */
  #local(s: Compute, a: Access, vertices: ReadonlyMap<number, readonly number[]>, verb: 'reads' | 'writes', iteration: number): boolean {
    const b = this.#plan.buffers[a.buffer]!;
    const where = { step: s.index, buffer: b.id };
    const fault = this.#slices.fault(a.slice, b.shape);
    if (fault !== undefined) {
      this.#say(`${stepCalled(s)} ${verb} a slice of ${called(b)} that ${fault}`, where);
      return false;
    }
    const key = `${spreadKey({ ...s.division, axes: [] })}|${spreadKey(a.slice)}|${spreadKey(b.spread)}[${b.shape.join()}]${iteration}`;
    if (!this.#fitting.has(key)) this.#fitting.set(key, this.#outside(a, b, vertices, iteration));
    const tile = this.#fitting.get(key);
    if (tile !== undefined) this.#say(`${stepCalled(s)} ${verb} elements of ${called(b)} on tile ${tile} that do not lie there`, { ...where, tile });
    const content = this.#contents.get(rootOf(this.#plan, b).id);
    if (verb === 'reads' && content?.parts) {
      for (const [t, part] of this.#slices.parts(a.slice, iteration).byTile) {
        const absent = this.#slices.numbers(a.slice, b.shape, part).filter((n) => !content.parts!.get(t)?.has(n)).length;
        if (absent > 0) this.#say(`${stepCalled(s)} reads ${absent * elementBytes(b)!} bytes of ${called(b)} on tile ${t} that nothing has filled`, { ...where, tile: t, bytes: absent * elementBytes(b)! });
      }
    }
    return tile === undefined;
  }

  /** The first tile of a vertex whose slice is not inside the buffer's part there. */
  #outside(a: Access, b: Buffer, vertices: ReadonlyMap<number, readonly number[]>, iteration: number): number | undefined {
    const [wanted, held] = [this.#slices.parts(a.slice, iteration).byTile, this.#slices.parts(b.spread, iteration).byTile];
    const alike = !a.slice.flat === !b.spread.flat || b.shape.length === 1;
    for (const tile of vertices.keys()) {
      const [part, own] = [wanted.get(tile), held.get(tile)];
      if (!part || !own) return tile;
      if (alike) {
        const outer = this.#slices.combs(b.spread, own);
        if (this.#slices.combs(a.slice, part).every((c, axis) => this.#slices.within(c, outer[axis]!))) continue;
        return tile;
      }
      const numbers = new Set(this.#slices.numbers(b.spread, b.shape, own));
      if (this.#slices.numbers(a.slice, b.shape, part).some((n) => !numbers.has(n))) return tile;
    }
    return undefined;
  }

  /** A buffer's memory holds its value from now on: the slice that is written, all of it where none is given. */
  #fill(b: Buffer, a?: Access, iteration = 0): void {
    const root = rootOf(this.#plan, b).id;
    if (!a || !a.slice.dims.some((d) => d.time) || spreadKey(a.slice) === spreadKey(b.spread)) return void this.#contents.set(root, { buffer: b });
    const before = this.#contents.get(root);
    if (before?.buffer === b && !before.parts) return;
    const parts = before?.buffer === b ? before.parts! : new Map<number, Set<number>>();
    for (const [tile, part] of this.#slices.parts(a.slice, iteration).byTile) parts.set(tile, new Set([...(parts.get(tile) ?? []), ...this.#slices.numbers(a.slice, b.shape, part)]));
    const full = [...this.#slices.elementsByTile(b.spread)].every(([tile, n]) => parts.get(tile)?.size === n);
    this.#contents.set(root, full ? { buffer: b } : { buffer: b, parts });
  }

  /** After the last step every state lies where it lay before the first, and the host can read every output. */
  #end(): void {
    for (const b of this.#plan.buffers) {
      if (b.viewOf !== undefined || (b.kind !== 'state' && b.kind !== 'output')) continue;
      const content = this.#contents.get(b.id);
      const where = { buffer: b.id, bytes: b.bytes };
      if (!content || content.parts || !this.#coverage.isWhole(content.buffer.spread, content.buffer.shape, 0)) this.#say(`after the last step ${called(b)} does not hold all ${sizeOf(b.shape)} elements`, where);
      else if (b.kind === 'state' && !this.#samePlaces(content.buffer, b)) this.#say(`after the last step ${called(b)} lies otherwise than before the first: as ${called(content.buffer)}`, where);
    }
  }

  #samePlaces(a: Buffer, b: Buffer): boolean {
    if (spreadKey(a.spread) === spreadKey(b.spread)) return true;
    const [x, y] = [this.#slices.parts(a.spread).byTile, this.#slices.parts(b.spread).byTile];
    if (x.size !== y.size) return false;
    return [...x].every(([tile, part]) => {
      const other = y.get(tile);
      const numbers = this.#slices.numbers(a.spread, a.shape, part);
      const others = other && this.#slices.numbers(b.spread, b.shape, other);
      return others?.length === numbers.length && numbers.every((n, i) => n === others[i]);
    });
  }
}
