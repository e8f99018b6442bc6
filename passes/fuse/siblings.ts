/** Sums over one set of axes that read the same tensors, as one op. */
import { isMap } from '../../ir/fused.ts';
import type { Op } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { sameShape } from '../../ir/type.ts';
import type { Clusters } from './clusters.ts';

/** Sums in one op at most: kernels hold partial sums of each. */
const mostSums = 4;

/**
 * Sums over the same axes of one shape that share operands (the Σ dy and Σ dy·x of a norm), and the elementwise ops that they alone read. Undefined where a sum has no such sibling. `maxOperands`
 * bounds the tensors that all of them read.
 */
export function growSiblings(first: Op, c: Clusters, operandCount: (set: ReadonlySet<Op>) => number, maxOperands: number): ReadonlySet<Op> | undefined {
  if (first.name !== 'reduceSum') return undefined;
  const full = first.operands[0]!.type.shape;
  const axes = nums(first.attrs, 'axes');
  if (axes.length === 0 || full.every((d, i) => d === 1 || axes.includes(i))) return undefined;
  const isSum = (op: Op): boolean => op.name === 'reduceSum' && sameShape(op.operands[0]!.type.shape, full) && sameShape(nums(op.attrs, 'axes'), axes);
  const served = new Map<Op, boolean>();
  /** Elementwise ops that only such sums read. */
  const servesSums = (op: Op): boolean => {
    const known = served.get(op);
    if (known !== undefined) return known;
    const [r] = op.results;
    const own = isMap(op) && sameShape(r!.type.shape, full) && !c.taken(op) && !c.returned(r!) && c.readers(r!).every((reader) => isSum(reader) || servesSums(reader));
    served.set(op, own);
    return own;
  };
  let set: ReadonlySet<Op> = new Set([first]);
  let tried = new Set<Op>([first]);
  for (;;) {
    const shared = [...set].flatMap((op) => op.operands.filter((v) => sameShape(v.type.shape, full)));
    const near = [...shared.flatMap((v) => [c.definition(v), ...c.readers(v)]), ...[...set].filter(isMap).flatMap((op) => c.readers(op.results[0]!))];
    const next = near.filter((op) => op !== undefined).find((op) => !tried.has(op) && !c.taken(op) && (isSum(op) || servesSums(op)));
    if (!next) break;
    tried.add(next);
    const larger = new Set([...set, next]);
    if ([...larger].filter(isSum).length <= mostSums && operandCount(larger) <= maxOperands && c.mayJoin(set, next)) {
      set = larger;
      // What came too early, before an op that reads it, may join now.
      tried = new Set(set);
    }
  }
  // An op that was left out may not read what stands inside.
  const inside = (op: Op): boolean => isSum(op) || c.readers(op.results[0]!).every((reader) => set.has(reader));
  for (let dropped = [...set].find((op) => !inside(op)); dropped; dropped = [...set].find((op) => !inside(op))) set = new Set([...set].filter((op) => op !== dropped));
  return [...set].filter(isSum).length > 1 && set.has(first) ? set : undefined;
}
