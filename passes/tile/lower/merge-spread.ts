/** Where contributions meet. */
import type { Value } from '../../../ir/graph.ts';
import { countOf, elementsOf, run, type Comb, type Cut, type Division, type Spread, type TileDim } from '../../../ir/tiles.ts';
import { bytesOf, sizeOf } from '../../../ir/type.ts';
import type { Choice } from '../choose.ts';
import { combOf } from '../comb.ts';
import { equalParts } from '../divide.ts';
import { partOptions } from '../search.ts';
import { overTime, timesOf } from '../serial.ts';
import { contributing } from './contributing.ts';

/** How an op is cut, as far as it decides where contributions meet. */
type Made = Pick<Choice, 'walk' | 'division' | 'made' | 'contributors'>;

/** Where contributions to an op's result meet: where the state lies that they change, else on the tiles that made them, else spread evenly. `homes`: where operands lie. */
export function mergeSpread(choice: Made, homes: readonly Spread[], tiles: number): Spread {
  const { op } = choice.walk;
  const { shape } = op.results[0]!.type;
  if (timesOf(choice.division) > 1) {
    const shared = subdivided(choice);
    return shared && overTime(shared) ? shared : onFirst(choice);
  }
  const first = contributing(op, choice.walk.root);
  const size = sizeOf(shape);
  const others = [...op.operands.keys()].filter((k) => !first.has(k));
  const state = others.find((k) => homes[k]!.flat && bytesOf(op.operands[k]!.type) > 64 && sizeOf(op.operands[k]!.type.shape) === size);
  if (state !== undefined && others.every((k) => [1, size].includes(sizeOf(op.operands[k]!.type.shape)))) return homes[state]!;
  return subdivided(choice) ?? evenMeet(choice, tiles);
}

/** Slices of an operand that broadcasts to a result, under a spread of the result. */
export function broadcastNeed(v: Value, result: Value, spread: Spread): Spread {
  const { shape } = v.type;
  let needs = broadcasts.get(spread);
  if (!needs) broadcasts.set(spread, (needs = new Map()));
  const key = `${shape.join()} ${result.type.shape.length}`;
  let need = needs.get(key);
  if (!need) needs.set(key, (need = broadcasted(shape, result.type.shape, spread)));
  return need;
}

const broadcasts = new WeakMap<Spread, Map<string, Spread>>();

function broadcasted(shape: readonly number[], result: readonly number[], spread: Spread): Spread {
  const one: Cut = { by: [], combs: [run(0, 1)] };
  if (spread.flat) return { ...spread, axes: [sizeOf(shape) === 1 ? one : spread.axes[0]!] };
  const skip = result.length - shape.length;
  return { base: spread.base, dims: spread.dims, axes: shape.map((d, i) => (d === result[skip + i] ? spread.axes[skip + i]! : one)) };
}

/** The tiles that contribute to the same elements share them out, where their combs are cut independently and are runs. */
function subdivided(choice: Made): Spread | undefined {
  let known = shared.get(choice.division);
  if (known === undefined) shared.set(choice.division, (known = sharedOutMerge(choice) ?? null));
  return known ?? undefined;
}

/** Equal choices are made again and again: of equal ops, and in every plan. */
const shared = new WeakMap<Division, Spread | null>();

function sharedOutMerge({ division, made, contributors: each }: Made): Spread | undefined {
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
function onFirst({ division, made }: Made): Spread {
  let known = firsts.get(division);
  if (!known) firsts.set(division, (known = onFirstOf(made)));
  return known;
}

const firsts = new WeakMap<Division, Spread>();

function onFirstOf(made: Spread): Spread {
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

/** Contributions that no tiles can share out among themselves are spread evenly. */
function evenMeet({ walk, division, contributors }: Made, tiles: number): Spread {
  const { shape } = walk.op.results[0]!.type;
  let known = evens.get(division);
  if (!known) evens.set(division, (known = evenProduct(shape, Math.min(tiles, Math.ceil((sizeOf(shape) * contributors) / leastShare)))));
  return known;
}

const evens = new WeakMap<Division, Spread>();

/** A tensor cut along its axes, outer ones first, over at most `tiles` tiles. */
function evenProduct(shape: readonly number[], tiles: number): Spread {
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
