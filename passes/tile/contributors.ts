/** How many tiles contribute to one element of a result. */
import { countOf, elementsOf, lastOf, type Cut, type Division, type Spread } from '../../ir/tiles.ts';
import { combAt } from './divide.ts';

/** The most parts that make one element: replicas of dims that no axis names, times how far combs of one axis overlap. */
export function contributorsOf(made: Spread, division: Division): number {
  const named = new Set(made.axes.flatMap((c) => c.by));
  const replicas = division.dims.reduce((n, d, i) => (named.has(i) || d.time ? n : n * d.parts), 1);
  return coupledAxes(made).reduce((n, axes) => n * (axes.length === 1 ? overlap(axes[0]!) : jointOverlap(axes, division)), replicas);
}

/** Axes of a spread, those together that share tile dims. */
function coupledAxes(made: Spread): Cut[][] {
  const groups: { axes: Cut[]; dims: Set<number> }[] = [];
  for (const cut of made.axes) {
    if (cut.by.length === 0) continue;
    const own = { axes: [cut], dims: new Set(cut.by) };
    for (const g of groups.filter((x) => cut.by.some((d) => x.dims.has(d)))) {
      own.axes.unshift(...g.axes);
      g.dims.forEach((d) => own.dims.add(d));
      groups.splice(groups.indexOf(g), 1);
    }
    groups.push(own);
  }
  return groups.map((g) => g.axes);
}

/** The most parts that hold an element of axes that share tile dims: parts with equal slices where slices are equal or apart, else the product of what each axis allows. */
function jointOverlap(axes: readonly Cut[], division: Division): number {
  const by = [...new Set(axes.flatMap((c) => c.by))];
  const at = division.dims.map(() => 0);
  const counts = new Map<string, number>();
  let volume = 0;
  const total = by.reduce((n, d) => n * division.dims[d]!.parts, 1);
  for (let i = 0; i < total; i++) {
    let rest = i;
    for (const d of by) {
      at[d] = rest % division.dims[d]!.parts;
      rest = Math.floor(rest / division.dims[d]!.parts);
    }
    const combs = axes.map((c) => combAt(c, division.dims, at));
    const elements = combs.reduce((n, c) => n * countOf(c), 1);
    if (elements === 0) continue;
    const key = combs.map((c) => `${c.base}/${c.levels.map((l) => `${l.n}x${l.step}`).join('/')}`).join();
    const seen = counts.get(key) ?? 0;
    if (seen === 0) volume += elements;
    counts.set(key, seen + 1);
  }
  const size = axes.reduce((n, c) => n * (Math.max(...c.combs.map((x) => (countOf(x) === 0 ? 0 : lastOf(x)))) + 1), 1);
  return volume <= size ? Math.max(1, ...counts.values()) : axes.reduce((n, c) => n * overlap(c), 1);
}

/** The most combs of a cut that share an element. */
function overlap(cut: Cut): number {
  if (cut.by.length === 0) return 1;
  const held = cut.combs.filter((c) => countOf(c) > 0);
  if (held.every((c) => c.levels.length === 0 || (c.levels.length === 1 && c.levels[0]!.step === 1))) {
    const events = held.flatMap((c) => [[c.base, 1], [lastOf(c) + 1, -1]] as const).sort((x, y) => x[0] - y[0] || x[1] - y[1]);
    let [open, most] = [0, 1];
    for (const [, change] of events) {
      open += change;
      most = Math.max(most, open);
    }
    return most;
  }
  const counts = new Map<number, number>();
  let most = 1;
  for (const c of held) {
    for (const x of elementsOf(c)) {
      const n = (counts.get(x) ?? 0) + 1;
      counts.set(x, n);
      most = Math.max(most, n);
    }
  }
  return most;
}
