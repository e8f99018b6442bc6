/** Divisions of ops: by numbers of parts, by where an operand lies, and where they leave a result. What is made of the same things is the same object, so that what is known of it is found again. */
import type { Op, Value } from '../../ir/graph.ts';
import { run, type Cut, type Division, type Spread, type TileDim } from '../../ir/tiles.ts';
import { dtypes, sizeOf } from '../../ir/type.ts';
import { divisionFrom, equalParts, namesIn, resultSpread } from './divide.ts';
import { keyOf } from './op-key.ts';
import type { Split } from './search.ts';
import { inSerial } from './serial.ts';
import type { TileTarget } from './target.ts';
import { walkOf, type Walk } from './walk.ts';

const ofSplits = new WeakMap<Split, Division>();
const ofSpreads = new WeakMap<Spread, Map<string, Division | undefined>>();

/** The division under which operand `k` of an op is read where it lies. `op`: what the op computes. */
export function inheritedDivision(walk: Walk, op: string, k: number, home: Spread): Division | undefined {
  let known = ofSpreads.get(home);
  if (!known) ofSpreads.set(home, (known = new Map()));
  const key = `${k} ${op}`;
  if (!known.has(key)) known.set(key, divisionFrom(walk, k, home));
  return known.get(key);
}

const ofDivisions = new WeakMap<Division, Map<string, Spread>>();

/** Where a division that was made for an op leaves a result of the given shape: the same object every time, so that what is known of it is found again. */
export function resultOf(walk: Walk, division: Division, shape: readonly number[]): Spread {
  let known = ofDivisions.get(division);
  if (!known) ofDivisions.set(division, (known = new Map()));
  const key = shape.join();
  let made = known.get(key);
  if (!made) known.set(key, (made = resultSpread(walk, division, shape)));
  return made;
}

/** Where the result of a reshape lies as a view of its operand, if every tile's elements stay where they are. */
export function viewed(op: Op, home: Spread): Spread | undefined {
  if (home.flat) return home;
  const walk = walkOf(op);
  const division = inheritedDivision(walk, keyOf(op), 0, home);
  return division && resultOf(walk, division, op.results[0]!.type.shape);
}

/** A value that is there from the start, spread evenly over all tiles, its elements in a row: the same object in every plan. */
export function evenly({ type }: Value, target: TileTarget): Spread {
  const { constants } = target;
  const n = sizeOf(type.shape);
  const parts = Math.max(1, Math.min(constants.tiles, Math.ceil((n * dtypes[type.dtype].bytes) / constants.grain)));
  let known = evens.get(target);
  if (!known) evens.set(target, (known = new Map()));
  // One tile holds all of it, as every op reads it.
  const key = constants.tiles === 1 ? type.shape.join() : `${n} ${parts}`;
  let spread = known.get(key);
  if (!spread) known.set(key, (spread = constants.tiles === 1 ? { base: 0, dims: [], axes: type.shape.map((d): Cut => ({ by: [], combs: [run(0, d)] })) } : { base: 0, dims: [{ name: 'flat', parts, stride: 1 }], axes: [{ by: [0], combs: equalParts(n, parts) }], flat: true }));
  return spread;
}

const evens = new WeakMap<TileTarget, Map<string, Spread>>();

/** A division by numbers of parts, serial ones too. Columns of a product lie on neighbouring tiles, since pairs of those receive together what both read. */
export function divisionOf(walk: Walk, split: Split): Division {
  let made = ofSplits.get(split);
  if (!made) {
    const { serial } = split;
    const v = serial && walk.vars[serial.at]!;
    made = divided(walk, split);
    if (v) made = inSerial(made, v.name, v.size, serial.times);
    ofSplits.set(split, made);
  }
  return made;
}

function divided(walk: Walk, split: Split): Division {
  const columns = columnsOf(walk);
  const rank = (i: number): number => (columns.has(i) ? 3 - (split.parts[i]! % 2) : walk.vars[i]!.role === 'reduce' ? 1 : 0);
  const order = walk.vars.map((_, i) => i).filter((i) => split.parts[i]! > 1).sort((a, b) => rank(a) - rank(b) || a - b);
  const dims: TileDim[] = [];
  const ranges: Record<string, Cut> = {};
  let stride = split.parts.reduce((n, p) => n * p, 1);
  order.forEach((i) => {
    const v = walk.vars[i]!;
    const parts = split.parts[i]!;
    stride /= parts;
    const grain = split.sizes[i]! * parts >= v.size && split.sizes[i]! % 16 === 0 && Math.ceil(v.size / 16) >= parts && walk.kind === 'contract' ? grainOfSize(v.size, parts, split.sizes[i]!) : v.grain;
    ranges[v.name] = { by: [dims.length], combs: equalParts(v.size, parts, grain) };
    dims.push({ name: v.name, parts, stride });
  });
  return { base: 0, dims, ranges };
}

/** The grain under which equal parts have the size that was judged. */
function grainOfSize(size: number, parts: number, largest: number): number {
  for (const grain of [16, 8]) if (largest % grain === 0 && Math.ceil(Math.ceil(size / grain) / parts) * grain === largest) return grain;
  return 1;
}

/** Positions of the vars of a product that its first operand does not have. */
function columnsOf({ kind, vars, pieces }: Walk): ReadonlySet<number> {
  if (kind !== 'contract') return new Set();
  const read = new Set(pieces.flatMap((p) => p.reads[0]!.flatMap((indices) => indices.flatMap(namesIn))));
  const isRead = (v: Walk['vars'][number]): boolean => (v.axis === undefined ? read.has(v.name) : pieces.some((p) => p.writes[v.axis!]!.terms.some(([d]) => read.has(d))));
  return new Set([...vars.keys()].filter((i) => vars[i]!.role === 'parallel' && !isRead(vars[i]!)));
}
