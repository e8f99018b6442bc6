/**
 * What the page of a plan calculates in the browser, from plan.json alone. The functions are put into the page as text (`source` of html.ts), so they use nothing but each other and what
 * browsers have.
 */

/** plan.json as far as the page reads it (docs/plan.schema.json). */
export interface PagePlan {
  readonly model: string;
  readonly target: string;
  readonly tiles: number;
  readonly bytesPerTile: number;
  readonly samples: number;
  readonly cuts: readonly { readonly by: readonly number[]; readonly combs: readonly (readonly number[])[] }[];
  readonly buffers: readonly PageBuffer[];
  readonly steps: readonly PageStep[];
  readonly memory: { readonly always: number; readonly code: number; readonly peak: number; readonly peakStep: number; readonly gaps: number; readonly total: number; readonly limit: number };
  readonly notes: readonly string[];
}
interface PageDim { readonly parts: number; readonly stride: number; readonly time?: true }
export interface PageBuffer {
  readonly id: number; readonly value: string; readonly source: readonly string[]; readonly kind: string; readonly dtype: string; readonly shape: readonly number[];
  readonly spread: { readonly base: number; readonly dims: readonly PageDim[]; readonly axes: readonly number[] };
  readonly width: number; readonly bytes: number; readonly offset: number; readonly birth: number; readonly death: number; readonly viewOf?: number;
}
interface PageCycles { readonly compute: number; readonly exchange: number; readonly sync: number }
export type PageStep =
  | { readonly kind: 'exchange'; readonly index: number; readonly cycles: PageCycles; readonly bytes: number }
  | { readonly kind: 'compute'; readonly index: number; readonly op: number; readonly name: string; readonly source: readonly string[]; readonly root: string; readonly vertex: string; readonly division: { readonly dims: readonly PageDim[] }; readonly macs: number; readonly cycles: PageCycles }
  | { readonly kind: 'repeat'; readonly times: number; readonly body: readonly PageStep[] };

/** An op of the plan with all its steps, exchanges before it included. Cycles and multiply-adds of a whole run on the worst tile. */
export interface OpRow { name: string; root: string; vertex: string; first: number; tiles: number; compute: number; exchange: number; sync: number; macs: number; available: number }

/** Bytes of a scalar of each dtype. */
export type ScalarBytes = Readonly<Record<string, number>>;

/** Bytes of a buffer's slice on each tile, as pairs of tile and bytes. */
export function slicesOf(plan: PagePlan, b: PageBuffer, scalarBytes: ScalarBytes): [number, number][] {
  const { base, dims, axes } = b.spread;
  const counts = axes.map((a) => plan.cuts[a]!.combs.map((c) => c.reduce((n, x, i) => (i % 2 === 1 ? n * x : n), 1)));
  const total = dims.reduce((n, d) => n * (d.time ? 1 : d.parts), 1);
  const found: [number, number][] = [];
  const part = dims.map(() => 0);
  for (let p = 0; p < total; p++) {
    let rest = p;
    let tile = base;
    for (let i = dims.length - 1; i >= 0; i--) {
      const d = dims[i]!;
      if (d.time) continue;
      part[i] = rest % d.parts;
      rest = Math.floor(rest / d.parts);
      tile += part[i]! * d.stride;
    }
    const elements = axes.reduce((n, a, axis) => n * counts[axis]![plan.cuts[a]!.by.reduce((at, d) => at * dims[d]!.parts + part[d]!, 0)]!, 1);
    found.push([tile % plan.tiles, elements * b.width * scalarBytes[b.dtype]!]);
  }
  return found;
}

/** Buffers with memory of their own that are held at a step, the largest first. */
export function aliveAt(plan: PagePlan, step: number): PageBuffer[] {
  return plan.buffers.filter((b) => b.viewOf === undefined && b.birth <= step && step <= b.death).sort((a, b) => b.bytes - a.bytes);
}

/** Bytes that each tile uses at a step. */
export function usedAt(plan: PagePlan, step: number, scalarBytes: ScalarBytes): Float64Array {
  const used = new Float64Array(plan.tiles);
  for (const b of aliveAt(plan, step)) for (const [tile, bytes] of slicesOf(plan, b, scalarBytes)) used[tile]! += bytes;
  return used;
}

/** The number of exchanges and computes. */
export function countSteps(steps: readonly PageStep[]): number {
  return steps.reduce((n, s) => n + (s.kind === 'repeat' ? countSteps(s.body) : 1), 0);
}

/** By tile the bytes of state and constants, and the most bytes used at any step. */
export function tileMemory(plan: PagePlan, scalarBytes: ScalarBytes): { always: Float64Array; peak: Float64Array } {
  const [always, used, peak] = [new Float64Array(plan.tiles), new Float64Array(plan.tiles), new Float64Array(plan.tiles)];
  const own = plan.buffers.filter((b) => b.viewOf === undefined);
  const changes = own.flatMap((b) => [{ b, step: b.birth, sign: 1 }, { b, step: b.death + 1, sign: -1 }]).sort((x, y) => x.step - y.step || x.sign - y.sign);
  for (const { b, sign } of changes) {
    for (const [tile, bytes] of slicesOf(plan, b, scalarBytes)) {
      used[tile]! += sign * bytes;
      if (used[tile]! > peak[tile]!) peak[tile] = used[tile]!;
      if (sign > 0 && (b.kind === 'state' || b.kind === 'constant')) always[tile]! += bytes;
    }
  }
  return { always, peak };
}

/** Slot bytes held at each step, by whether they are always live. */
export function liveness(plan: PagePlan): { always: number; moving: number[] } {
  const steps = Math.max(1, countSteps(plan.steps));
  const moving = Array.from({ length: steps }, () => 0);
  let always = 0;
  for (const b of plan.buffers) {
    if (b.viewOf !== undefined) continue;
    if (b.kind === 'state' || b.kind === 'constant') always += b.bytes;
    else for (let s = b.birth; s <= b.death && s < steps; s++) moving[s]! += b.bytes;
  }
  return { always, moving };
}

/** Every op with its cycles, an exchange counted with the vertex it comes before. `macsPerCycle` by dtype. */
export function opRows(plan: PagePlan, macsPerCycle: Readonly<Record<string, number>>): OpRow[] {
  const rows = new Map<number, OpRow>();
  const empty = (name: string, first: number): OpRow => ({ name, root: '', vertex: '', first, tiles: 0, compute: 0, exchange: 0, sync: 0, macs: 0, available: 0 });
  let before = empty('new state brought home', 0);
  const visit = (steps: readonly PageStep[], times: number): void => {
    for (const s of steps) {
      if (s.kind === 'repeat') {
        visit(s.body, times * s.times);
        continue;
      }
      const row = s.kind === 'exchange' ? before : rows.get(s.op) ?? empty(s.source[0] ?? s.name, s.index);
      row.compute += times * s.cycles.compute;
      row.exchange += times * s.cycles.exchange;
      row.sync += times * s.cycles.sync;
      if (s.kind === 'exchange') {
        row.first = s.index;
        continue;
      }
      row.exchange += before.exchange;
      row.sync += before.sync;
      before = empty(before.name, 0);
      row.root = s.root;
      row.vertex = row.vertex || s.vertex;
      row.tiles = Math.max(row.tiles, s.division.dims.reduce((n, d) => n * (d.time ? 1 : d.parts), 1));
      row.macs += times * s.macs;
      row.available += times * s.cycles.compute * (macsPerCycle[s.vertex.endsWith('f16') ? 'f16' : 'f32'] ?? 0);
      rows.set(s.op, row);
    }
  };
  visit(plan.steps, 1);
  return [...rows.values(), ...(before.exchange + before.sync > 0 ? [before] : [])];
}
