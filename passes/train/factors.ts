/** Axes of tensors as ordered factors, each with a mark, and how ops carry them between operands and results. */
import type { Index, Place } from '../../ir/axes.ts';

/** A part of an axis: axis = product of its factors, outermost first. Axes of size 1 have none. */
export interface Factor<M> {
  readonly size: number;
  readonly mark: M;
}
/** The factors of every axis of a tensor. */
export type Factors<M> = readonly (readonly Factor<M>[])[];

/** Dims that a place or index merges into one axis, outermost first; undefined where it does more than merging, or covers only a part of the axis. Dims of size 1 are left out. */
export function merged(x: Place | Index, axis: number, sizes: ReadonlyMap<string, number>): string[] | undefined {
  if ('kind' in x && (x.kind !== 'affine' || x.over !== 1)) return undefined;
  const { terms, plus } = x;
  const dims = terms.filter(([dim]) => sizes.get(dim) !== 1).toSorted((p, q) => q[1] - p[1]);
  let stride = 1;
  for (const [dim, times] of dims.toReversed()) {
    if (times !== stride) return undefined;
    stride *= sizes.get(dim)!;
  }
  return plus === 0 && stride === axis ? dims.map(([dim]) => dim) : undefined;
}

/** Deals the factors of an axis to dims of these sizes, outermost first, cutting factors where needed; undefined where they do not divide. */
export function deal<M>(factors: readonly Factor<M>[], sizes: readonly number[], cut: (mark: M) => boolean = () => true): Factor<M>[][] | undefined {
  const rest = [...factors];
  const dealt = sizes.map((size) => {
    const own: Factor<M>[] = [];
    let wanted = size;
    while (wanted > 1) {
      const f = rest.shift();
      if (!f) return undefined;
      if (wanted % f.size === 0) {
        own.push(f);
        wanted /= f.size;
      } else if (f.size % wanted === 0 && cut(f.mark)) {
        own.push({ size: wanted, mark: f.mark });
        rest.unshift({ size: f.size / wanted, mark: f.mark });
        wanted = 1;
      } else return undefined;
    }
    return own;
  });
  return rest.length === 0 && dealt.every((d) => d !== undefined) ? dealt : undefined;
}

/** Joins neighbours of the same mark. */
export function joined<M>(factors: readonly Factor<M>[]): Factor<M>[] {
  const out: Factor<M>[] = [];
  for (const f of factors) {
    const last = out.at(-1);
    if (f.size === 1) continue;
    if (last?.mark === f.mark) out[out.length - 1] = { size: last.size * f.size, mark: f.mark };
    else out.push(f);
  }
  return out;
}

/** The mark that all factors share; undefined where they differ, or where there are none. */
export function uniform<M>(factors: readonly Factor<M>[]): M | undefined {
  const [first] = factors;
  return first && factors.every((f) => f.mark === first.mark) ? first.mark : undefined;
}
