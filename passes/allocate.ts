/** Static addresses for buffers with lifetimes. */

export interface Lifetime {
  readonly bytes: number;
  /** First and last step (inclusive) at which the buffer holds something. */
  readonly from: number;
  readonly to: number;
}

export const alignment = 64;
export const align = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/**
 * Offsets so that buffers whose lifetimes meet do not overlap. Tries three orders of placement (by size, by lifetime times size, by first step), each
 * buffer at the lowest gap that holds it, and keeps the one with the lowest end. Offsets are multiples of 64.
 */
export function allocate(items: readonly Lifetime[]): { readonly offsets: number[]; readonly end: number } {
  const byIndex = items.map((_, i) => i);
  const span = (i: number): number => items[i]!.to - items[i]!.from + 1;
  const orders = [
    [...byIndex].sort((a, b) => items[b]!.bytes - items[a]!.bytes || span(b) - span(a) || a - b),
    [...byIndex].sort((a, b) => items[b]!.bytes * span(b) - items[a]!.bytes * span(a) || a - b),
    [...byIndex].sort((a, b) => items[a]!.from - items[b]!.from || items[b]!.bytes - items[a]!.bytes || a - b),
  ];
  let best: { offsets: number[]; end: number } | undefined;
  for (const order of orders) {
    const tried = place(items, order);
    if (!best || tried.end < best.end) best = tried;
  }
  return best!;
}

function place(items: readonly Lifetime[], order: readonly number[]): { offsets: number[]; end: number } {
  const offsets = new Array<number>(items.length).fill(0);
  const placed: number[] = []; // sorted by offset
  let end = 0;
  for (const i of order) {
    const item = items[i]!;
    const bytes = align(Math.max(1, item.bytes));
    let offset = 0;
    let bestGap = Infinity;
    let bestOffset = -1;
    for (const j of placed) {
      const other = items[j]!;
      if (other.to < item.from || item.to < other.from) continue;
      const gap = offsets[j]! - offset;
      if (gap >= bytes && gap < bestGap) {
        bestGap = gap;
        bestOffset = offset;
      }
      offset = Math.max(offset, offsets[j]! + align(Math.max(1, other.bytes)));
    }
    offsets[i] = bestOffset >= 0 ? bestOffset : offset;
    end = Math.max(end, offsets[i] + bytes);
    let at = placed.length;
    while (at > 0 && offsets[placed[at - 1]!]! > offsets[i]) at--;
    placed.splice(at, 0, i);
  }
  return { offsets, end };
}

/** The largest sum of bytes live at one step: no plan can end below it. */
export function liveBound(items: readonly Lifetime[]): number {
  const events = items.flatMap((x) => [
    { at: x.from, bytes: x.bytes },
    { at: x.to + 1, bytes: -x.bytes },
  ]);
  events.sort((a, b) => a.at - b.at || a.bytes - b.bytes);
  let live = 0;
  let most = 0;
  for (const e of events) {
    live += e.bytes;
    most = Math.max(most, live);
  }
  return most;
}
