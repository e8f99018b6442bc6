/** Arithmetic of combs: the elements of one tensor axis that a tile holds. */
import { countOf, elementsOf, lastOf, nothing, run, type Comb } from '../../ir/tiles.ts';

type Level = Comb['levels'][number];

/** A comb of the given levels, in its shortest form: levels of one element go, levels that continue each other are merged. */
function normal(base: number, levels: readonly Level[]): Comb {
  if (levels.some((l) => l.n <= 0)) return nothing;
  const out: Level[] = [];
  for (const level of [...levels].filter((l) => l.n > 1).sort((a, b) => b.step - a.step)) {
    const coarse = out.at(-1);
    if (coarse && coarse.step === level.step * level.n) out[out.length - 1] = { n: coarse.n * level.n, step: level.step };
    else out.push(level);
  }
  return { base, levels: out };
}

/** All neighbouring elements from the first to the last. */
export const hull = (c: Comb): Comb => (countOf(c) === 0 ? nothing : run(c.base, lastOf(c) - c.base + 1));

/** Every element times `times` plus `plus`. */
export function scaled(c: Comb, times: number, plus = 0): Comb {
  if (times === 0) return countOf(c) === 0 ? nothing : run(plus, 1);
  const base = times > 0 ? c.base : lastOf(c);
  return normal(base * times + plus, c.levels.map((l) => ({ n: l.n, step: l.step * Math.abs(times) })));
}

/** Sums of one element of each; neighbouring elements between the ends where sums overlap and the set is none of levels. */
export function sumOf(combs: readonly Comb[]): Comb {
  if (combs.some((c) => countOf(c) === 0)) return nothing;
  const base = combs.reduce((s, c) => s + c.base, 0);
  const levels = combs.flatMap((c) => c.levels).filter((l) => l.n > 1).sort((a, b) => a.step - b.step);
  const out: Level[] = [];
  let reach = 0; // distance from the first to the last element of the levels so far
  for (const l of levels) {
    const fine = out.at(-1);
    if (l.step > reach) out.push(l);
    else if (fine && out.length === 1 && l.step % fine.step === 0) out[0] = { n: (l.n - 1) * (l.step / fine.step) + fine.n, step: fine.step };
    else out.splice(0, out.length, { n: reach + (l.n - 1) * l.step + 1, step: 1 });
    reach += (l.n - 1) * l.step;
  }
  return normal(base, out);
}

/** The elements in [0, size). */
export function clipped(c: Comb, size: number): Comb {
  if (countOf(c) === 0) return nothing;
  const last = lastOf(c);
  if (c.base >= 0 && last < size) return c;
  if (c.levels.length === 0 || last < 0 || c.base >= size) return nothing;
  if (c.levels.length === 1) {
    const { n, step } = c.levels[0]!;
    const from = c.base < 0 ? Math.ceil(-c.base / step) : 0;
    const to = Math.min(n - 1, Math.floor((size - 1 - c.base) / step));
    return to < from ? nothing : normal(c.base + from * step, [{ n: to - from + 1, step }]);
  }
  return combOf(elementsOf(c).filter((x) => x >= 0 && x < size));
}

/** Ascending elements as a comb: exact where they are evenly spaced, or runs of equal length that are; else all between the ends. */
export function combOf(elements: readonly number[]): Comb {
  const n = elements.length;
  if (n === 0) return nothing;
  const first = elements[0]!;
  if (n === 1) return run(first, 1);
  const step = elements[1]! - first;
  let inner = 1;
  while (inner < n && elements[inner]! - elements[inner - 1]! === step) inner++;
  if (inner === n) return normal(first, [{ n, step }]);
  if (n % inner === 0) {
    const outer = elements[inner]! - first;
    const c = normal(first, [{ n: n / inner, step: outer }, { n: inner, step }]);
    if (elementsOf(c).every((x, i) => x === elements[i])) return c;
  }
  return run(first, elements[n - 1]! - first + 1);
}

/** The smallest comb found that holds all elements of both. */
export function union(a: Comb, b: Comb): Comb {
  if (countOf(a) === 0 || contains(b, a)) return b;
  if (countOf(b) === 0 || contains(a, b)) return a;
  const first = Math.min(a.base, b.base);
  return run(first, Math.max(lastOf(a), lastOf(b)) - first + 1);
}

/** Whether an element belongs to a comb. */
export function has(c: Comb, x: number): boolean {
  let rest = x - c.base;
  for (const l of c.levels) {
    if (rest < 0 || l.n === 0) return false;
    const i = Math.min(l.n - 1, Math.floor(rest / l.step));
    rest -= i * l.step;
  }
  return rest === 0;
}

const isRun = (c: Comb): boolean => c.levels.length === 0 || (c.levels.length === 1 && c.levels[0]!.step === 1);

/** Number of elements that two combs share. */
export function shared(a: Comb, b: Comb): number {
  if (isRun(a) && isRun(b)) return Math.max(0, Math.min(lastOf(a), lastOf(b)) - Math.max(a.base, b.base) + 1);
  const [few, many] = countOf(a) <= countOf(b) ? [a, b] : [b, a];
  return elementsOf(few).reduce((n, x) => n + (has(many, x) ? 1 : 0), 0);
}

/** Whether `outer` holds every element of `inner`. */
export const contains = (outer: Comb, inner: Comb): boolean => sameComb(outer, inner) || shared(outer, inner) === countOf(inner);

export const sameComb = (a: Comb, b: Comb): boolean => a === b || (a.base === b.base && a.levels.length === b.levels.length && a.levels.every((l, i) => l.n === b.levels[i]!.n && l.step === b.levels[i]!.step));

/**
 * The digits of the elements in a mixed radix, outermost first: one comb a digit if the elements are exactly their product, else undefined.
 */
export function digits(c: Comb, radix: readonly number[]): Comb[] | undefined {
  if (countOf(c) === 0) return radix.map(() => nothing);
  const out: Comb[] = [];
  let stride = 1;
  const strides = radix.map(() => 1);
  for (let i = radix.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= radix[i]!;
  }
  const parts: Level[][] = radix.map(() => []);
  for (const level of c.levels) {
    let { n, step } = level;
    for (let i = radix.length - 1; i >= 0 && n > 1; i--) {
      const s = strides[i]!;
      const room = i === 0 ? Infinity : strides[i - 1]!;
      if (step >= room) continue;
      if (step % s !== 0) return undefined;
      if ((n - 1) * step < room && n * step <= room) {
        parts[i]!.push({ n, step: step / s });
        n = 1;
      } else if (room % step === 0 && n % (room / step) === 0) {
        parts[i]!.push({ n: room / step, step: step / s });
        n /= room / step;
        step = room;
      } else if ((n - 1) * step < room) {
        parts[i]!.push({ n, step: step / s });
        n = 1;
      } else return undefined;
    }
    if (n > 1) return undefined;
  }
  let rest = c.base;
  radix.forEach((size, i) => {
    const digit = Math.floor(rest / strides[i]!);
    rest -= digit * strides[i]!;
    const comb = normal(digit, parts[i]!);
    out.push(comb);
    if (lastOf(comb) >= size) out.length = 0;
  });
  return out.length === radix.length && countOf(c) === out.reduce((n, d) => n * countOf(d), 1) ? out : undefined;
}
