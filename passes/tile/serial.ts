/** Serial splits: one dim of a result in parts that follow each other on the same tiles, so that one part's operands and contributions are held at a time. */
import { countOf, digitsOf, elementsOf, lastOf, type Cut, type Division, type Spread, type TileDim } from '../../ir/tiles.ts';
import { combOf, scaled } from './comb.ts';
import { equalParts } from './divide.ts';
import type { Model } from './estimate.ts';

/** `times` parts of the var at position `at`. */
export interface Serial { readonly at: number; readonly times: number }

/** Numbers of serial parts that are considered (Graphcore's planner has the same). */
const serialParts = [2, 4, 8];
/** Elements of a serial part on a tile at least: the columns of the matrix unit. */
const leastPart = 16;

/** Serial splits of a product: any dim of its result that is long enough. Sums stay whole, since contributions are merged once. */
export function serialOptions(m: Model): Serial[] {
  if (m.walk.kind !== 'contract') return [];
  return m.walk.vars.flatMap((v, at) => (v.role === 'parallel' && v.axis === undefined ? serialParts.filter((times) => v.size >= times * leastPart).map((times) => ({ at, times })) : []));
}

/** Whether an operand's slices depend on a var: those that do not are gathered once, before the parts follow each other. */
export function dependsOn(m: Model, k: number, at: number): boolean {
  return m.pieces.some((p) => p.operands[k]!.some((axes) => axes.some((a) => a.terms.some(([d]) => p.dims[d]!.at === at))));
}

/** A division whose parts of one var follow each other in `times` parts each. */
export function inSerial(d: Division, name: string, size: number, times: number): Division {
  const own: Cut = d.ranges[name] ?? { by: [], combs: equalParts(size, 1) };
  const time: TileDim = { name: `${name} in time`, parts: times, stride: 0, time: true };
  const combs = own.combs.flatMap((c) => {
    const n = countOf(c);
    return equalParts(n, times, n % leastPart === 0 && n >= leastPart * times ? leastPart : 1).map((piece) => scaled(piece, 1, c.base));
  });
  return { base: d.base, dims: [...d.dims, time], ranges: { ...d.ranges, [name]: { by: [...own.by, d.dims.length], combs } } };
}

/** How many parts follow each other. */
export const timesOf = (s: { readonly dims: readonly TileDim[] }): number => s.dims.reduce((n, d) => (d.time ? n * d.parts : n), 1);

/** Whether slices change from one serial part to the next. */
export const changes = (s: Spread): boolean => s.axes.some((c) => c.by.some((d) => s.dims[d]!.time));

/** What lies on each tile when all serial parts have passed; undefined where that is no product of combs. */
export function overTime(s: Spread): Spread | undefined {
  if (s.dims.every((d) => !d.time)) return s;
  const place = new Map<number, number>();
  const dims = s.dims.filter((d, i) => {
    if (!d.time) place.set(i, place.size);
    return !d.time;
  });
  let changing = 0;
  const axes: Cut[] = [];
  for (const cut of s.axes) {
    const kept = cut.by.filter((d) => !s.dims[d]!.time);
    if (kept.length === cut.by.length) {
      axes.push({ by: kept.map((d) => place.get(d)!), combs: cut.combs });
      continue;
    }
    changing++;
    const lists = new Map<number, number[]>();
    cut.combs.forEach((c, i) => {
      const at = digitsOf(i, cut.by.map((d) => s.dims[d]!.parts));
      const key = cut.by.reduce((n, d, j) => (s.dims[d]!.time ? n : n * s.dims[d]!.parts + at[j]!), 0);
      lists.set(key, [...(lists.get(key) ?? []), ...elementsOf(c)]);
    });
    const combs = [...lists].sort(([a], [b]) => a - b).map(([, list]) => ({ list, comb: combOf([...new Set(list)].sort((a, b) => a - b)) }));
    if (combs.some(({ list, comb }) => countOf(comb) !== new Set(list).size || (list.length > 0 && lastOf(comb) !== list.reduce((a, x) => Math.max(a, x), 0)))) return undefined;
    axes.push({ by: kept.map((d) => place.get(d)!), combs: combs.map(({ comb }) => comb) });
  }
  return changing > 1 ? undefined : { ...s, dims, axes };
}
