/** Liveness of buffers over steps, and an address for each. */
import type { LoweredBuffer } from './lower/lowering.ts';

/** Bytes of a tile's memory and when they are held. */
export interface Placed {
  /** State and constants; they lie at the bottom. */
  readonly always: number;
  /** The most bytes of other buffers that are held at one step, and the first such step. */
  readonly peak: number;
  readonly peakStep: number;
  /** The end of the last buffer. */
  readonly end: number;
  /** Bytes of buffers other than state and constants, by step. */
  readonly live: readonly number[];
}

/** Bytes by step of all buffers but state and constants. */
export function liveBytes(buffers: readonly LoweredBuffer[], steps: number): number[] {
  const change = new Float64Array(steps + 2);
  for (const b of buffers) {
    if (b.viewOf !== undefined || b.kind === 'state' || b.kind === 'constant') continue;
    change[b.birth]! += b.bytes;
    change[b.death + 1]! -= b.bytes;
  }
  const live: number[] = [];
  let sum = 0;
  for (let s = 0; s < Math.max(1, steps); s++) {
    sum += change[s]!;
    live.push(sum);
  }
  return live;
}

/** Gives every buffer an address, in place. Buffers held at one step never overlap; a view lies where the buffer lies that it is a view of. */
export function placeBuffers(buffers: readonly LoweredBuffer[], steps: number): Placed {
  let always = 0;
  const moving: LoweredBuffer[] = [];
  for (const b of buffers) {
    if (b.viewOf !== undefined) continue;
    if (b.kind === 'state' || b.kind === 'constant') {
      b.offset = always;
      always += b.bytes;
    } else moving.push(b);
  }
  const live = liveBytes(buffers, steps);
  const peak = live.reduce((a, x) => Math.max(a, x), 0);
  const orders = [
    [...moving].sort((a, b) => b.bytes - a.bytes || (b.death - b.birth) - (a.death - a.birth) || a.id - b.id),
    [...moving].sort((a, b) => (b.death - b.birth + 1) * b.bytes - (a.death - a.birth + 1) * a.bytes || a.id - b.id),
    [...moving].sort((a, b) => (b.death - b.birth) - (a.death - a.birth) || b.bytes - a.bytes || a.id - b.id),
  ];
  let best: Packing | undefined;
  for (const order of orders) {
    const tried = packed(order, always);
    if (!best || tried.end < best.end) best = tried;
    if (best.end === always + peak) break;
  }
  best = promoted(best!, always, peak);
  for (const [b, offset] of best.offsets) b.offset = offset;
  for (const b of buffers) {
    let root = b;
    while (root.viewOf !== undefined) root = buffers[root.viewOf]!;
    b.offset = root.offset;
  }
  return { always, peak, peakStep: Math.max(0, live.indexOf(peak)), end: best.end, live };
}

/** Addresses in the order in which they were given. */
interface Packing { readonly end: number; readonly offsets: ReadonlyMap<LoweredBuffer, number> }

/** How often the buffers at the top are given their addresses first. */
const promotions = 24;

/** Buffers that reach highest, over gaps, take their addresses before all others, again and again; the best of all packings. */
function promoted(start: Packing, from: number, peak: number): Packing {
  let [best, last] = [start, start];
  for (let i = 0; i < promotions && best.end > from + peak; i++) {
    const current = last;
    const top = new Set([...current.offsets].filter(([b, offset]) => offset + b.bytes === current.end).map(([b]) => b));
    last = packed([...top, ...[...current.offsets.keys()].filter((b) => !top.has(b))], from);
    if (last.end < best.end) best = last;
  }
  return best;
}

/** A range of addresses that is taken from one step to another. */
interface Taken { readonly from: number; readonly to: number; readonly birth: number; readonly death: number }

/** Steps of one block: a buffer that lives within it is compared with what is held in it alone. */
const blockSteps = 64;

/** Each buffer in turn at the lowest address where it fits. */
function packed(order: readonly LoweredBuffer[], from: number): Packing {
  const offsets = new Map<LoweredBuffer, number>();
  // All ranges, and those of each block of steps, by address.
  const all: Taken[] = [];
  const blocks: Taken[][] = [];
  let end = from;
  for (const b of order) {
    let offset = from;
    if (b.bytes > 0) {
      const [first, last] = [Math.floor(b.birth / blockSteps), Math.floor(b.death / blockSteps)];
      for (const p of first === last ? (blocks[first] ?? []) : all) {
        if (p.death < b.birth || b.death < p.birth || p.to <= offset) continue;
        if (p.from >= offset + b.bytes) break;
        offset = p.to;
      }
      const taken: Taken = { from: offset, to: offset + b.bytes, birth: b.birth, death: b.death };
      insert(all, taken);
      for (let i = first; i <= last; i++) insert((blocks[i] ??= []), taken);
    }
    offsets.set(b, offset);
    end = Math.max(end, offset + b.bytes);
  }
  return { end, offsets };
}

/** Puts a range where it belongs by address. */
function insert(list: Taken[], taken: Taken): void {
  let [lo, hi] = [0, list.length];
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (list[mid]!.from < taken.from) lo = mid + 1;
    else hi = mid;
  }
  list.splice(lo, 0, taken);
}
