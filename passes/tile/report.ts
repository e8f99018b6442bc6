/** What a plan says in short: bytes by kind and tile, cycles by kind, what is alive at a step. */
import type { BufferKind, TileBuffer, TilePlan, TileStep } from '../../ir/tiles.ts';
import { dtypes, type DType } from '../../ir/type.ts';
import { countOf } from '../../ir/tiles.ts';
import { combAt } from './divide.ts';

/** All steps in order, bodies of repeats once. */
export function flatSteps(steps: readonly TileStep[]): Exclude<TileStep, { kind: 'repeat' }>[] {
  return steps.flatMap((s) => (s.kind === 'repeat' ? flatSteps(s.body) : [s]));
}

/** Cycles of a whole run, repeats counted. */
export function cyclesOf(steps: readonly TileStep[]): { compute: number; exchange: number; sync: number } {
  const sum = { compute: 0, exchange: 0, sync: 0 };
  for (const s of steps) {
    const c = s.kind === 'repeat' ? cyclesOf(s.body) : s.cycles;
    const times = s.kind === 'repeat' ? s.times : 1;
    sum.compute += c.compute * times;
    sum.exchange += c.exchange * times;
    sum.sync += c.sync * times;
  }
  return sum;
}

/** Cycles of a whole run, of every kind. */
export function totalCycles(plan: TilePlan): number {
  const { compute, exchange, sync } = cyclesOf(plan.steps);
  return compute + exchange + sync;
}

/** Cycles by what the vertices do, the exchanges before a vertex counted with it; largest first. */
export function cyclesByVertex(plan: TilePlan): { vertex: string; steps: number; compute: number; exchange: number; sync: number }[] {
  const rows = new Map<string, { vertex: string; steps: number; compute: number; exchange: number; sync: number }>();
  let before = { exchange: 0, sync: 0 };
  const visit = (steps: readonly TileStep[], times: number): void => {
    for (const s of steps) {
      if (s.kind === 'repeat') visit(s.body, times * s.times);
      else if (s.kind === 'exchange') before = { exchange: before.exchange + times * s.cycles.exchange, sync: before.sync + times * s.cycles.sync };
      else {
        const key = `${s.part === 'merge' ? 'merge of ' : s.part === 'contribute' ? 'parts of ' : ''}${s.root}, ${s.vertex}`;
        const row = rows.get(key) ?? { vertex: key, steps: 0, compute: 0, exchange: 0, sync: 0 };
        row.steps++;
        row.compute += times * s.cycles.compute;
        row.exchange += before.exchange;
        row.sync += before.sync + times * s.cycles.sync;
        before = { exchange: 0, sync: 0 };
        rows.set(key, row);
      }
    }
  };
  visit(plan.steps, 1);
  return [...rows.values()].sort((a, b) => b.compute + b.exchange - a.compute - a.exchange);
}

export interface AliveBuffer { readonly buffer: TileBuffer; readonly bytes: number }

/** Buffers that are held at a step, largest first; views are not counted. */
export function aliveAt(plan: TilePlan, step: number): AliveBuffer[] {
  return plan.buffers.filter((b) => b.viewOf === undefined && b.birth <= step && step <= b.death).map((buffer) => ({ buffer, bytes: buffer.bytes })).sort((a, b) => b.bytes - a.bytes);
}

/** Slot bytes by kind of buffer: of all that are ever held at the peak. */
export function bytesByKind(plan: TilePlan): Partial<Record<BufferKind, number>> {
  const sums: Partial<Record<BufferKind, number>> = {};
  for (const { buffer, bytes } of aliveAt(plan, plan.memory.peakStep)) sums[buffer.kind] = (sums[buffer.kind] ?? 0) + bytes;
  return sums;
}

/** Bytes that tiles use of their slots at a step, by tile. */
export function bytesByTile(plan: TilePlan, step: number): Float64Array {
  const sums = new Float64Array(plan.tiles);
  for (const { buffer } of aliveAt(plan, step)) addSlices(sums, plan, buffer);
  return sums;
}

/** Bytes that one tile uses of a buffer. */
export function sliceBytes(plan: TilePlan, b: TileBuffer, tile: number): number {
  const sums = new Float64Array(plan.tiles);
  addSlices(sums, plan, b);
  return sums[tile]!;
}

function addSlices(sums: Float64Array, plan: TilePlan, b: TileBuffer): void {
  const { dims, axes, base } = b.spread;
  const size = b.width * dtypes[b.dtype as DType].bytes;
  const moving = dims.map((d, i) => ({ d, i })).filter(({ d }) => !d.time);
  const at = dims.map(() => 0);
  const total = moving.reduce((n, { d }) => n * d.parts, 1);
  for (let p = 0; p < total; p++) {
    let rest = p;
    let tile = base;
    for (let j = moving.length - 1; j >= 0; j--) {
      const { d, i } = moving[j]!;
      const part = rest % d.parts;
      at[i] = part;
      rest = Math.floor(rest / d.parts);
      tile += part * d.stride;
    }
    const held = tile % plan.tiles;
    sums[held] = (sums[held] ?? 0) + size * axes.reduce((n, cut) => n * countOf(combAt(cut, dims, at)), 1);
  }
}
