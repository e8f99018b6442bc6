/** The axes of a reshape: dims that refine both shapes where there are such, a span where there are not. */
import { at, zero, type Axes, type Dim, type Index, type Place } from '../../axes.ts';
import { namesOf } from '../helpers.ts';

/** A run of operand axes and result axes with the same number of elements, cut as finely as possible. */
interface Group {
  readonly from: readonly number[];
  readonly to: readonly number[];
}

/** How the result of a reshape walks its operand. */
export function reshapeAxes(from: readonly number[], to: readonly number[]): Axes {
  const space: Dim[] = [];
  const reads: Index[] = from.map(() => zero);
  const writes: Place[] = to.map(() => ({ terms: [], plus: 0 }));
  const dim = (size: number): Dim => {
    const d: Dim = { name: `d${space.length}`, size, role: 'parallel' };
    space.push(d);
    return d;
  };
  groups(from, to).forEach((group, g) => {
    const refined = refine(group.from.map((a) => from[a]!), group.to.map((a) => to[a]!));
    if (refined) {
      const dims = refined.sizes.map(dim);
      group.from.forEach((a, i) => (reads[a] = at(merge(dims, refined.from[i]!))));
      group.to.forEach((a, i) => (writes[a] = { terms: merge(dims, refined.to[i]!), plus: 0 }));
    } else {
      const dims = group.to.map((a) => dim(to[a]!));
      group.from.forEach((a) => (reads[a] = { kind: 'span', group: g, dims: namesOf(dims) }));
      group.to.forEach((a, i) => (writes[a] = { terms: [[dims[i]!.name, 1]], plus: 0 }));
    }
  });
  return { space, stages: [{ pieces: [{ dims: namesOf(space), reads: [reads], writes, indexed: [] }], combine: 'none', product: false }] };
}

/** A row-major merge of some of the dims, outermost first. */
function merge(dims: readonly Dim[], which: readonly number[]): [string, number][] {
  let stride = 1;
  const terms: [string, number][] = [];
  for (const k of [...which].reverse()) {
    terms.unshift([dims[k]!.name, stride]);
    stride *= dims[k]!.size;
  }
  return terms;
}

/** Axes of size 1 belong to no group; an empty tensor is one group. */
function groups(from: readonly number[], to: readonly number[]): Group[] {
  const a = from.flatMap((d, i) => (d === 1 ? [] : [i]));
  const b = to.flatMap((d, i) => (d === 1 ? [] : [i]));
  if (from.includes(0) || to.includes(0)) return [{ from: a, to: b }];
  const out: Group[] = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    const [i0, j0] = [i, j];
    let p = from[a[i++]!]!;
    let q = to[b[j++]!]!;
    while (p !== q) {
      if (p < q) p *= from[a[i++]!]!;
      else q *= to[b[j++]!]!;
    }
    out.push({ from: a.slice(i0, i), to: b.slice(j0, j) });
  }
  return out;
}

/** Factors of both shapes, outermost first, and which factors each axis merges; undefined where neither of two sizes divides the other. */
function refine(from: readonly number[], to: readonly number[]): { sizes: number[]; from: number[][]; to: number[][] } | undefined {
  if (from.includes(0) || to.includes(0)) return undefined;
  const sizes: number[] = [];
  const out = { sizes, from: from.map((): number[] => []), to: to.map((): number[] => []) };
  let [i, j] = [0, 0];
  let [p, q] = [from[0]!, to[0]!];
  while (i < from.length && j < to.length) {
    const factor = Math.min(p, q);
    if (p % factor !== 0 || q % factor !== 0) return undefined;
    out.from[i]!.push(sizes.length);
    out.to[j]!.push(sizes.length);
    sizes.push(factor);
    p /= factor;
    q /= factor;
    if (p === 1) p = from[++i] ?? 1;
    if (q === 1) q = to[++j] ?? 1;
  }
  return out;
}
