/** Brings the arithmetic after a contraction next to it, past reshapes and transposes, so that one kernel does both. */
import type { Op, Value } from '../../ir/graph.ts';
import { isContractRoot, isMap, isRowReduction } from '../../ir/fused.ts';
import { nums } from '../../ir/op.ts';
import type { Facts } from '../../ir/rewrite.ts';
import { sameShape, sizeOf } from '../../ir/type.ts';
import type { Rule } from './rule.ts';
import { axisGroups, throughMove } from './through.ts';

/** How far back a contraction is looked for. */
const depth = 10;
/** Values that a residual block has at most. */
const residualReach = 256;

const isMove = (op: Op | undefined): boolean => op?.name === 'reshape' || op?.name === 'transpose';

/** Whether a value comes from a contraction by moves and elementwise ops alone. */
function fromContraction(v: Value, facts: Facts, limit = depth): boolean {
  const op = facts.definition(v);
  if (!op || limit === 0) return false;
  if (isContractRoot(op)) return true;
  if (isMove(op)) return fromContraction(op.operands[0]!, facts, limit - 1);
  return isMap(op) && op.operands.some((o) => sizeOf(o.type.shape) === sizeOf(v.type.shape) && fromContraction(o, facts, limit - 1));
}

/** Whether a value is a contraction's result or made of it by elementwise ops alone: an epilogue already. */
function besideContraction(v: Value, facts: Facts, limit = depth): boolean {
  const op = facts.definition(v);
  if (!op || limit === 0) return false;
  return isContractRoot(op) || (isMap(op) && op.operands.some((o) => sameShape(o.type.shape, v.type.shape) && besideContraction(o, facts, limit - 1)));
}

/** Whether a value is computed from another, as far as a residual block reaches. */
function dependsOn(v: Value, source: Value, facts: Facts): boolean {
  const seen = new Set<Value>();
  const stack = [v];
  for (let next = stack.pop(); next && seen.size < residualReach; next = stack.pop()) {
    if (next === source) return true;
    if (seen.has(next)) continue;
    seen.add(next);
    stack.push(...(facts.definition(next)?.operands ?? []));
  }
  return false;
}

/** Whether any of some values comes from a reduction of what is made of `source`, by moves, elementwise ops and reductions alone: the halves of a norm. */
function fromReductionOf(values: readonly Value[], source: Value, facts: Facts): boolean {
  const seen = new Set<Value>();
  const stack = values.map((value) => ({ value, reduced: false }));
  for (let next = stack.pop(); next && seen.size < 8 * depth; next = stack.pop()) {
    if (next.value === source && next.reduced) return true;
    const op = facts.definition(next.value);
    if (!op || seen.has(next.value) || !(isMove(op) || isMap(op) || isRowReduction(op))) continue;
    seen.add(next.value);
    const reduced = next.reduced || isRowReduction(op);
    stack.push(...op.operands.map((value) => ({ value, reduced })));
  }
  return false;
}

const epilogueRule: Rule = {
  name: 'f(move(x), y) = move(f(x, move⁻¹(y))) where x comes from a contraction',
  roots: ['*'],
  exactness: 'exact',
  apply: (op, b, facts) => {
    if (!isMap(op)) return undefined;
    const shape = op.results[0]!.type.shape;
    const size = sizeOf(shape);
    const whole = op.operands.filter((v) => sizeOf(v.type.shape) === size && sameShape(v.type.shape, shape));
    const move = whole.map((v) => facts.definition(v)).find((d) => d && isMove(d) && fromContraction(d.operands[0]!, facts));
    if (!move || size <= 1) return undefined;
    // An operand that stands beside its contraction keeps the op, or the two sides would push the move to each other for ever: unless the other side
    // is computed from it, as in a residual block, so that its contraction cannot take the op.
    if (whole.some((v) => besideContraction(v, facts) && !dependsOn(move.operands[0]!, v, facts))) return undefined;
    // A norm or softmax stays on the side of its reductions.
    if (move.name === 'transpose' && fromReductionOf(op.operands, move.results[0]!, facts)) return undefined;
    const operands: Value[] = [];
    for (const v of op.operands) {
      const inner = v === move.results[0] ? move.operands[0]! : throughMove(v, move, b, facts.constant(v) ? 4 * sizeOf(v.type.shape) : 0);
      if (!inner) return undefined;
      operands.push(inner);
    }
    const value = b.one(op.name, operands, op.attrs);
    return [move.name === 'reshape' ? b.reshape(value, shape) : b.transpose(value, move.attrs['perm'] as readonly number[])];
  },
  cases: [
    `graph @m(%x: f32[6,4], %w: f32[4,8], %r: f32[1,6,8], %c: f32[8]) { %0 = contract %x, %w {spec="mk,kn->mn"} : f32[6,8] %1 = reshape %0 {shape=[1,6,8]} : f32[1,6,8]
       %2 = add %1, %c : f32[1,6,8] %3 = sub %r, %2 : f32[1,6,8] return %3 }`,
    `graph @m(%x: f32[2,3,4], %w: f32[4,5], %r: f32[2,5,3], %c: f32[5,1]) { %0 = contract %x, %w {spec="bmk,kn->bmn"} : f32[2,3,5] %1 = transpose %0 {perm=[0,2,1]} : f32[2,5,3]
       %2 = mul %1, %c : f32[2,5,3] %3 = add %2, %r : f32[2,5,3] return %3 }`,
    `graph @m(%x: f32[3,4], %w: f32[4,6]) { %k = constant {value=f32[2](1, 2)} : f32[2] %0 = contract %x, %w {spec="mk,kn->mn"} : f32[3,6]
       %1 = reshape %0 {shape=[3,3,2]} : f32[3,3,2] %2 = mul %1, %k : f32[3,3,2] %3 = mul %2, %1 : f32[3,3,2] return %3 }`,
    `graph @m(%x: f32[3,4], %w: f32[4,6]) { %0 = contract %x, %w {spec="mk,kn->mn"} : f32[3,6] %1 = reshape %0 {shape=[18]} : f32[18] %2 = sigmoid %1 : f32[18] %3 = mul %2, %1 : f32[18] return %3 }`,
  ],
};

const reduceRule: Rule = {
  name: 'reduce(reshape(x)) = reshape(reduce(x)) where x comes from a contraction',
  roots: ['reduceSum', 'reduceMax', 'reduceMin', 'reduceProd', 'moments'],
  exactness: 'rounding',
  apply: (op, b, facts) => {
    const move = facts.definition(op.operands[0]!);
    if (move?.name !== 'reshape' || !fromContraction(move.operands[0]!, facts)) return undefined;
    const axes = axesBefore(nums(op.attrs, 'axes'), move);
    return axes && b.op(op.name, [move.operands[0]!], { axes }).map((v, i) => b.reshape(v, op.results[i]!.type.shape));
  },
  cases: [
    `graph @m(%x: f32[6,4], %w: f32[4,8]) { %0 = contract %x, %w {spec="mk,kn->mn"} : f32[6,8] %1 = reshape %0 {shape=[1,2,3,8]} : f32[1,2,3,8]
       %2 = reduceMax %1 {axes=[0,3]} : f32[2,3] return %2 }`,
  ],
};

/** The axes of a reshape's operand that hold the elements of some axes of its result; undefined where an axis would be cut. */
function axesBefore(axes: readonly number[], move: Op): number[] | undefined {
  const [from, to] = [move.operands[0]!.type.shape, move.results[0]!.type.shape];
  if (sizeOf(to) === 0) return undefined;
  const found: number[] = [];
  for (const [after, before] of axisGroups(from, to)) {
    const long = after.filter((k) => to[k] !== 1);
    const reduced = long.filter((k) => axes.includes(k));
    if (reduced.length > 0 && reduced.length < long.length) return undefined;
    if (reduced.length > 0) found.push(...before);
  }
  return found;
}

export const epilogueRules: readonly Rule[] = [epilogueRule, reduceRule];
