/** Slices from axes: what each part of a divided op reads and makes. */
import type { Index, Place } from '../../ir/axes.ts';
import { rowMajor } from '../../ir/type.ts';
import { countOf, elementsOf, lastOf, nothing, run, type Comb, type Cut, type Division, type Spread, type TileDim } from '../../ir/tiles.ts';
import { clipped, combOf, digits, hull, sameComb, scaled, sumOf, union } from './comb.ts';
import type { Walk, WalkPiece } from './walk.ts';

const whole = (size: number): Cut => ({ by: [], combs: [run(0, size)] });

/** Cuts a range in equal parts, as far as its grain allows; parts differ by one grain at most. */
export function equalParts(size: number, parts: number, grain = 1): Comb[] {
  const grains = Math.ceil(size / grain);
  return Array.from({ length: parts }, (_, p) => {
    const from = Math.min(size, Math.floor((p * grains) / parts) * grain);
    const to = Math.min(size, Math.floor(((p + 1) * grains) / parts) * grain);
    return to > from ? run(from, to - from) : nothing;
  });
}

/** The slices of operand `k` that each part reads. */
export function operandSpread(walk: Walk, division: Division, k: number, shape: readonly number[]): Spread {
  if (division.flat) return flatSpread(division, shape);
  const reads = walk.pieces.flatMap((piece) => piece.reads[k]!.map((indices) => ({ piece, indices })));
  const { base, dims } = division;
  if (walk.kind === 'single') return { base, dims, axes: shape.map((d) => whole(d)) };
  const axes = shape.map((_, axis): Cut => {
    const by = [...new Set(reads.flatMap(({ piece, indices }) => namesIn(indices[axis]!).flatMap((name) => cutOf(walk, division, piece, name)?.by ?? [])))].sort((a, b) => a - b);
    return table(dims, by, (at) => reads.map(({ piece, indices }) => indexComb(walk, division, piece, indices, axis, shape, at)).reduce((a, b) => union(a, b), nothing));
  });
  return { base, dims, axes };
}

/** The slices of the results that each part makes (all results of an op are walked alike). */
export function resultSpread(walk: Walk, division: Division, shape: readonly number[]): Spread {
  if (division.flat) return flatSpread(division, shape);
  const { base, dims } = division;
  if (walk.kind === 'single') return { base, dims, axes: shape.map((d) => whole(d)) };
  const axes = shape.map((size, axis): Cut => {
    const direct = walk.vars.find((v) => v.axis === axis);
    if (direct) return division.ranges[direct.name] ?? whole(size);
    const place = walk.pieces[0]!.writes[axis]!;
    if (walk.pieces.some((p) => p.writes[axis]!.terms.length !== place.terms.length) || walk.pieces.some((p) => p.writes[axis]!.plus !== place.plus)) return whole(size);
    const by = [...new Set(place.terms.flatMap(([name]) => division.ranges[name]?.by ?? []))].sort((a, b) => a - b);
    return table(dims, by, (at) => placed(place, (name) => rangeOf(walk, division, walk.pieces[0]!, name, at)));
  });
  return { base, dims, axes };
}

function flatSpread(division: Division, shape: readonly number[]): Spread {
  const scalar = shape.every((d) => d === 1);
  return { base: division.base, dims: division.dims, axes: [scalar ? { by: [], combs: [run(0, 1)] } : division.ranges['flat']!], flat: true };
}

const placed = (place: Place, range: (name: string) => Comb): Comb => scaled(sumOf(place.terms.map(([name, times]) => scaled(range(name), times))), 1, place.plus);

/** A comb for each combination of the parts of some tile dims. */
function table(dims: readonly TileDim[], by: readonly number[], comb: (at: ReadonlyMap<number, number>) => Comb): Cut {
  const total = by.reduce((n, d) => n * dims[d]!.parts, 1);
  const at = new Map<number, number>(by.map((d) => [d, 0]));
  const combs: Comb[] = [];
  for (let i = 0; i < total; i++) {
    let rest = i;
    for (let j = by.length - 1; j >= 0; j--) {
      const { parts } = dims[by[j]!]!;
      at.set(by[j]!, rest % parts);
      rest = Math.floor(rest / parts);
    }
    combs.push(comb(at));
  }
  return { by, combs };
}

/** The cut that decides a dim of a piece: its own, or that of the result axis that it is placed on. */
function cutOf(walk: Walk, division: Division, piece: WalkPiece, name: string): Cut | undefined {
  const own = division.ranges[name];
  if (own) return own;
  const v = walk.vars.find((x) => x.axis !== undefined && piece.writes[x.axis]!.terms.some(([d]) => d === name));
  return v && division.ranges[v.name];
}

/** The values of a dim of a piece on one part. */
function rangeOf(walk: Walk, division: Division, piece: WalkPiece, name: string, at: ReadonlyMap<number, number>): Comb {
  const size = walk.sizes.get(name)!;
  const own = division.ranges[name];
  if (own) return combAt(own, division.dims, at);
  const v = walk.vars.find((x) => x.axis !== undefined && piece.writes[x.axis]!.terms.some(([d]) => d === name));
  const cut = v && division.ranges[v.name];
  if (!cut) return size === 0 ? nothing : run(0, size);
  const c = combAt(cut, division.dims, at);
  if (countOf(c) === 0) return nothing;
  const { terms, plus } = piece.writes[v.axis!]!;
  const times = terms[0]![1];
  const from = Math.max(0, Math.ceil((c.base - plus) / times));
  const to = Math.min(size - 1, Math.floor((lastOf(c) - plus) / times));
  return to < from ? nothing : run(from, to - from + 1);
}

/** The comb of a cut at some parts. */
export function combAt(cut: Cut, dims: readonly TileDim[], at: ReadonlyMap<number, number> | readonly number[]): Comb {
  let i = 0;
  for (const d of cut.by) i = i * dims[d]!.parts + (Array.isArray(at) ? (at as readonly number[])[d]! : (at as ReadonlyMap<number, number>).get(d)!);
  return cut.combs[i]!;
}

/** Dims that an index depends on; those of a span's group all do. */
export function namesIn(index: Index): string[] {
  switch (index.kind) {
    case 'affine': return index.terms.map(([name]) => name);
    case 'table': return index.inner === undefined ? [index.dim] : [index.dim, index.inner];
    case 'whole': return [];
    case 'span': return [...index.dims];
  }
}

/** Elements of an operand axis that a part reads. */
function indexComb(walk: Walk, division: Division, piece: WalkPiece, indices: readonly Index[], axis: number, shape: readonly number[], at: ReadonlyMap<number, number>): Comb {
  const index = indices[axis]!;
  const size = shape[axis]!;
  const range = (name: string): Comb => rangeOf(walk, division, piece, name, at);
  switch (index.kind) {
    case 'whole': return size === 0 ? nothing : run(0, size);
    case 'table': {
      const outer = elementsOf(range(index.dim));
      const inner = index.inner === undefined ? undefined : { size: walk.sizes.get(index.inner)!, values: elementsOf(range(index.inner)) };
      const read = outer.flatMap((o) => (inner ? inner.values.map((i) => index.at[o * inner.size + i]!) : [index.at[o]!]));
      return combOf([...new Set(read)].sort((a, b) => a - b));
    }
    case 'span': {
      const sizes = index.dims.map((name) => walk.sizes.get(name)!);
      const strides = rowMajor(sizes);
      const ends = index.dims.map((name) => range(name));
      if (ends.some((c) => countOf(c) === 0)) return nothing;
      const [from, to] = [ends.reduce((s, c, i) => s + c.base * strides[i]!, 0), ends.reduce((s, c, i) => s + lastOf(c) * strides[i]!, 0)];
      const stride = indices.reduce((s, r, a) => (a > axis && r.kind === 'span' && r.group === index.group ? s * shape[a]! : s), 1);
      const [first, last] = [Math.floor(from / stride), Math.floor(to / stride)];
      return Math.floor(first / size) === Math.floor(last / size) ? run(first % size, last - first + 1) : run(0, size);
    }
    case 'affine': {
      if (index.terms.length === 0 && index.over === 1) return clipped(run(index.plus, 1), size);
      const sum = scaled(sumOf(index.terms.map(([name, times]) => scaled(range(name), times))), 1, index.plus);
      if (countOf(sum) === 0) return nothing;
      const c = index.over === 1 ? sum : run(Math.floor(sum.base / index.over), Math.floor(lastOf(sum) / index.over) - Math.floor(sum.base / index.over) + 1);
      if (c.base >= 0 && lastOf(c) < size) return c;
      if (index.outside === '0' || index.outside === '-inf') return clipped(c, size);
      if (index.outside === 'edge') {
        const from = Math.max(0, Math.min(size - 1, c.base));
        return run(from, Math.min(size - 1, Math.max(0, lastOf(c))) - from + 1);
      }
      return run(0, size);
    }
  }
}

/**
 * The division under which an op reads operand `k` just where it lies, or undefined: every dim that the operand's axes name takes over the parts of the operand's spread; its other dims stay whole.
 */
export function divisionFrom(walk: Walk, k: number, spread: Spread): Division | undefined {
  const { base, dims } = spread;
  if (dims.some((d) => d.time)) return undefined;
  if (spread.flat) return walk.elementwise ? { base, dims, ranges: { flat: spread.axes[0]! }, flat: true } : undefined;
  const piece = walk.pieces[0];
  if (walk.pieces.length !== 1 || piece!.reads[k]!.length !== 1) return undefined;
  const cuttable = new Set(walk.vars.map((v) => v.name));
  const ranges: Record<string, Cut> = {};
  for (const [axis, index] of piece!.reads[k]![0]!.entries()) {
    const cut = spread.axes[axis]!;
    if (cut.by.length === 0) continue;
    if (index.kind !== 'affine' || index.over !== 1 || index.plus !== 0 || index.terms.length === 0) return undefined;
    const sizes = index.terms.map(([name]) => walk.sizes.get(name)!);
    const strides = rowMajor(sizes);
    if (index.terms.some(([name, times], i) => times !== strides[i] || ranges[name])) return undefined;
    const split = cut.combs.map((c) => digits(c, sizes));
    if (split.some((s) => s === undefined)) return undefined;
    index.terms.forEach(([name], i) => {
      const combs = split.map((s) => s![i]!);
      if (!combs.every((c) => sameComb(c, combs[0]!)) || countOf(combs[0]!) !== sizes[i]) ranges[name] = { by: cut.by, combs };
    });
  }
  if (Object.keys(ranges).some((name) => !cuttable.has(name))) return undefined;
  // Dims of the spread that no range names would replicate the work.
  const used = new Set(Object.values(ranges).flatMap((c) => c.by));
  if (dims.some((d, i) => d.parts > 1 && !used.has(i))) return undefined;
  return { base, dims, ranges };
}

const largest = new WeakMap<Spread, number>();

/** Largest number of elements that one part of a spread holds. */
export function largestSlice(spread: Spread): number {
  let n = largest.get(spread);
  if (n === undefined) largest.set(spread, (n = boundOf(spread)));
  return n;
}

/** The product of each axis's largest comb, or exact where axes share tile dims. */
function boundOf(spread: Spread): number {
  const seen = new Set<number>();
  let coupled = false;
  for (const cut of spread.axes) {
    for (const d of cut.by) {
      coupled ||= seen.has(d);
      seen.add(d);
    }
  }
  if (!coupled) return spread.axes.reduce((n, cut) => n * cut.combs.reduce((m, c) => Math.max(m, countOf(c)), 0), 1);
  const by = [...seen].sort((a, b) => a - b);
  const parts = by.map((d) => spread.dims[d]!.parts);
  const total = parts.reduce((n, p) => n * p, 1);
  const at = new Map<number, number>();
  let most = 0;
  for (let i = 0; i < total; i++) {
    let rest = i;
    for (let j = by.length - 1; j >= 0; j--) {
      at.set(by[j]!, rest % parts[j]!);
      rest = Math.floor(rest / parts[j]!);
    }
    most = Math.max(most, spread.axes.reduce((n, cut) => n * countOf(combAt(cut, spread.dims, at)), 1));
  }
  return most;
}

/** Elements that all parts of a spread hold together (replicas counted). */
export function totalElements(spread: Spread): number {
  const axes = spread.axes;
  const seen = new Set(axes.flatMap((c) => c.by));
  const replicas = spread.dims.reduce((n, d, i) => (seen.has(i) ? n : n * d.parts), 1);
  const byCount = axes.reduce((n, c) => n + c.by.length, 0);
  if (byCount === seen.size) return replicas * axes.reduce((n, cut) => n * cut.combs.reduce((m, c) => m + countOf(c), 0), 1);
  return replicas * largestSlice(spread) * [...seen].reduce((n, d) => n * spread.dims[d]!.parts, 1);
}

/** About how many tiles the fullest part receives its slice of `need` from. */
export function sendersOf(need: Spread, home: Spread): number {
  if (need.flat || home.flat) return Math.ceil(largestSlice(need) / Math.max(1, largestSlice(home)));
  const most = Math.min(tilesOf(home.dims), largestSlice(need));
  const senders = need.axes.reduce((n, cut, axis) => {
    const parts = home.axes[axis]!.combs;
    if (parts.length <= 1) return n;
    const sample = [cut.combs[0]!, cut.combs[cut.combs.length >> 1]!, cut.combs.at(-1)!];
    return n * Math.max(1, ...sample.map((c) => parts.reduce((k, p) => (countOf(p) > 0 && countOf(c) > 0 && p.base <= lastOf(c) && lastOf(p) >= c.base ? k + 1 : k), 0)));
  }, 1);
  return Math.min(most, senders);
}

const signatures = new WeakMap<object, string>();
/** A text that is equal for spreads, or divisions, that cut alike: what code that moves or walks them depends on. */
export function signature(s: { readonly base: number; readonly dims: readonly TileDim[]; readonly axes?: readonly Cut[]; readonly ranges?: Readonly<Record<string, Cut>> }): string {
  const known = signatures.get(s);
  if (known !== undefined) return known;
  const cut = (c: Cut): string => `${c.by.join()}:${c.combs.length}:${comb(c.combs[0]!)}:${comb(c.combs.at(-1)!)}`;
  const comb = (c: Comb): string => `${c.base}/${c.levels.map((l) => `${l.n}x${l.step}`).join('/')}`;
  const text = `${s.base} ${s.dims.map((d) => `${d.parts}*${d.stride}`).join()} ${(s.axes ?? []).map(cut).join(';')} ${Object.entries(s.ranges ?? {}).map(([k, c]) => k + cut(c)).join(';')}`;
  signatures.set(s, text);
  return text;
}

/** Number of tiles that a spread uses. */
const tilesOf = (dims: readonly TileDim[]): number => dims.reduce((n, d) => (d.time ? n : n * d.parts), 1);

/** Whether two lists of tile dims place their parts alike. */
const sameTiles = (a: { readonly base: number; readonly dims: readonly TileDim[] }, b: { readonly base: number; readonly dims: readonly TileDim[] }): boolean =>
  a.base === b.base && (a.dims === b.dims || (a.dims.length === b.dims.length && a.dims.every((d, i) => d.parts === b.dims[i]!.parts && d.stride === b.dims[i]!.stride && d.time === b.dims[i]!.time)));

/** Whether every part finds its slice of `need` in what its tile holds by `home`. */
export function isLocal(need: Spread, home: Spread): boolean {
  if ((need.flat ?? false) !== (home.flat ?? false) && need.axes.length !== 1) return false;
  if (!sameTiles(need, home)) return false;
  return need.axes.every((cut, axis) => {
    const other = home.axes[axis]!;
    if (other === cut) return true;
    if (other.by.length === 0) return cut.combs.every((c) => countOf(hull(c)) === 0 || (other.combs[0]!.base <= c.base && lastOf(c) <= lastOf(other.combs[0]!) && countOf(other.combs[0]!) === lastOf(other.combs[0]!) - other.combs[0]!.base + 1));
    return cut.by.length === other.by.length && cut.by.every((d, i) => d === other.by[i]) && cut.combs.every((c, i) => sameComb(c, other.combs[i]!));
  });
}

/** Most elements of a share, in parts of what each tile would hold if all held as many. */
const mostOfShare = 1.25;

/** Whether the parts hold each element of a tensor once, and about as many on every tile. */
export function isShare(s: Spread, shape: readonly number[], tiles: number): boolean {
  const total = shape.reduce((n, d) => n * d, 1);
  if (s.flat || largestSlice(s) > mostOfShare * Math.ceil(total / tiles)) return false;
  const named = s.axes.flatMap((c) => c.by);
  if (new Set(named).size !== named.length || s.dims.some((d, i) => d.time || (d.parts > 1 && !named.includes(i)))) return false;
  return s.axes.every((cut, axis) => {
    const elements = cut.combs.flatMap(elementsOf);
    return elements.length === shape[axis] && new Set(elements).size === elements.length;
  });
}
