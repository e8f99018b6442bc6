/** Sums over one set of axes that read the same tensors, as one op. */
import { isMap } from '../../ir/fused.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { sameShape } from '../../ir/type.ts';
import type { Clusters } from './clusters.ts';

/** Elementwise ops that take longer than storing what they give and reading it. */
export const heavy: ReadonlySet<string> = new Set(['sigmoid', 'tanh', 'erf']);

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
  // What others read as well is stored in the same pass, where computing it again would take longer.
  const stored = storedBeside(first, full, isSum, c);
  const served = new Map<Op, boolean>();
  /** Elementwise ops that only such sums read. */
  const servesSums = (op: Op): boolean => {
    const known = served.get(op);
    if (known !== undefined) return known;
    const [r] = op.results;
    const own = isMap(op) && sameShape(r!.type.shape, full) && !c.taken(op) && !c.returned(r!) && (r === stored || c.readers(r!).every((reader) => isSum(reader) || servesSums(reader)));
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
  const inside = (op: Op): boolean => isSum(op) || op.results[0] === stored || c.readers(op.results[0]!).every((reader) => set.has(reader));
  for (let dropped = [...set].find((op) => !inside(op)); dropped; dropped = [...set].find((op) => !inside(op))) set = new Set([...set].filter((op) => op !== dropped));
  return [...set].filter(isSum).length > 1 && set.has(first) ? set : undefined;
}

/** The value of the full shape that a sum reads, or what it reads is made of, which elementwise ops beside the sums read too and whose making is heavy; undefined where there is none, or more than one. */
function storedBeside(first: Op, full: readonly number[], isSum: (op: Op) => boolean, c: Clusters): Value | undefined {
  const found = new Set<Value>();
  const seen = new Set<Value>();
  const visit = (v: Value): void => {
    if (seen.has(v) || !sameShape(v.type.shape, full)) return;
    seen.add(v);
    const op = c.definition(v);
    if (op && isMap(op) && !c.taken(op)) {
      if (!c.returned(v) && c.readers(v).some((reader) => isMap(reader) && !leadsToSums(reader, isSum, c)) && isHeavy(v, c)) found.add(v);
      else op.operands.forEach(visit);
    }
    c.readers(v).filter(isSum).forEach((sum) => visit(sum.operands[0]!));
  };
  visit(first.operands[0]!);
  return found.size === 1 ? [...found][0] : undefined;
}

/** Whether nothing but sums comes of an elementwise op. */
const leadsToSums = (op: Op, isSum: (op: Op) => boolean, c: Clusters): boolean =>
  isMap(op) && !c.returned(op.results[0]!) && c.readers(op.results[0]!).every((reader) => isSum(reader) || leadsToSums(reader, isSum, c));

/** Whether elementwise ops that make a value, a few steps back, take longer than storing it. */
const isHeavy = (v: Value, c: Clusters, depth = 6): boolean => {
  const op = c.definition(v);
  return op !== undefined && depth > 0 && isMap(op) && (heavy.has(op.name) || op.operands.some((x) => isHeavy(x, c, depth - 1)));
};
