/** Rules about reshape, transpose and broadcast: data movement that need not happen. */
import type { Value } from '../../ir/graph.ts';
import { nums, str } from '../../ir/op.ts';
import { broadcastShapes, sameShape, sizeOf } from '../../ir/type.ts';
import { isMap } from '../../ir/fused.ts';
import type { Facts } from '../../ir/rewrite.ts';
import { exactRule as rule, firstOperand as x, shapeOf, under, type Rule } from './rule.ts';

const reshapeRules: readonly Rule[] = [
  rule('reshape(x) to its own shape = x', 'reshape', {
    apply: (op) => (sameShape(x(op).type.shape, shapeOf(op)) ? [x(op)] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = reshape %x {shape=[2,3]} : f32[2,3] return %0 }'],
  }),
  rule('reshape(reshape(x)) = reshape(x)', 'reshape', {
    apply: (op, b, facts) => {
      const inner = under(op, 'reshape', facts);
      return inner && [b.reshape(x(inner), shapeOf(op))];
    },
    cases: [
      'graph @m(%x: f32[2,3,4]) { %0 = reshape %x {shape=[6,4]} : f32[6,4] %1 = reshape %0 {shape=[3,8]} : f32[3,8] return %1 }',
      'graph @m(%x: f32[2,3]) { %0 = reshape %x {shape=[6]} : f32[6] %1 = reshape %0 {shape=[2,3]} : f32[2,3] return %1 }',
    ],
  }),
  rule('reshape(broadcast(scalar)) = broadcast(scalar)', 'reshape', {
    apply: (op, b, facts) => {
      const inner = under(op, 'broadcast', facts);
      return inner && sizeOf(x(inner).type.shape) === 1 ? [b.broadcast(b.reshape(x(inner), []), shapeOf(op))] : undefined;
    },
    cases: ['graph @m(%x: f32[1]) { %0 = broadcast %x {shape=[2,6]} : f32[2,6] %1 = reshape %0 {shape=[3,4]} : f32[3,4] return %1 }'],
  }),
];

/** Reshapes move towards the outputs, so that a contraction or reduction meets the arithmetic that follows it. */
const reshapeBehindMap: Rule = {
  name: 'f(reshape(x)) = reshape(f(x)) where f has one tensor operand',
  roots: ['*'],
  exactness: 'exact',
  apply: (op, b, facts) => {
    if (!isMap(op)) return undefined;
    const at = op.operands.findIndex((v) => sizeOf(v.type.shape) !== 1);
    const inner = at < 0 ? undefined : facts.definition(op.operands[at]!);
    if (inner?.name !== 'reshape' || facts.readers(op.operands[at]!) > 1 || facts.constant(x(inner)) || x(inner).type.shape.length === 0) return undefined;
    if (!sameShape(shapeOf(op), shapeOf(inner)) || op.operands.some((v, i) => i !== at && sizeOf(v.type.shape) !== 1)) return undefined;
    const operands = op.operands.map((v, i) => (i === at ? x(inner) : b.reshape(v, [])));
    return [b.reshape(b.one(op.name, operands, op.attrs), shapeOf(op))];
  },
  cases: [
    'graph @m(%x: f32[2,6], %s: f32[1,1]) { %0 = reshape %x {shape=[2,3,2]} : f32[2,3,2] %1 = sub %s, %0 : f32[2,3,2] return %1 }',
    'graph @m(%x: f32[2,6]) { %0 = reshape %x {shape=[2,3,2]} : f32[2,3,2] %1 = cast %0 {to="i32"} : i32[2,3,2] return %1 }',
  ],
};

const transposeRules: readonly Rule[] = [
  rule('transpose(x) that keeps the order = x', 'transpose', {
    apply: (op) => (nums(op.attrs, 'perm').every((p, i) => p === i) ? [x(op)] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = transpose %x {perm=[0,1]} : f32[2,3] return %0 }'],
  }),
  rule('transpose(transpose(x)) = transpose(x)', 'transpose', {
    apply: (op, b, facts) => {
      const inner = under(op, 'transpose', facts);
      if (!inner) return undefined;
      const first = nums(inner.attrs, 'perm');
      return [b.transpose(x(inner), nums(op.attrs, 'perm').map((p) => first[p]!))];
    },
    cases: [
      'graph @m(%x: f32[2,3,4]) { %0 = transpose %x {perm=[1,2,0]} : f32[3,4,2] %1 = transpose %0 {perm=[0,2,1]} : f32[3,2,4] return %1 }',
      'graph @m(%x: f32[2,3]) { %0 = transpose %x {perm=[1,0]} : f32[3,2] %1 = transpose %0 {perm=[1,0]} : f32[2,3] return %1 }',
    ],
  }),
  rule('transpose(x) that moves ones alone = reshape(x)', 'transpose', {
    apply: (op, b) => {
      const shape = x(op).type.shape;
      const kept = nums(op.attrs, 'perm').filter((p) => shape[p] !== 1);
      return kept.every((p, i) => i === 0 || kept[i - 1]! < p) ? [b.reshape(x(op), shapeOf(op))] : undefined;
    },
    cases: ['graph @m(%x: f32[2,1,3,1]) { %0 = transpose %x {perm=[1,0,3,2]} : f32[1,2,1,3] return %0 }'],
  }),
];

const broadcastRules: readonly Rule[] = [
  rule('broadcast(x) to its own shape = x', 'broadcast', {
    apply: (op) => (sameShape(x(op).type.shape, shapeOf(op)) ? [x(op)] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = broadcast %x {shape=[2,3]} : f32[2,3] return %0 }'],
  }),
  rule('broadcast(x) that adds ones alone = reshape(x)', 'broadcast', {
    apply: (op, b) => (sizeOf(x(op).type.shape) === sizeOf(shapeOf(op)) ? [b.reshape(x(op), shapeOf(op))] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = broadcast %x {shape=[1,2,3]} : f32[1,2,3] return %0 }'],
  }),
  rule('broadcast(broadcast(x)) = broadcast(x)', 'broadcast', {
    apply: (op, b, facts) => {
      const inner = under(op, 'broadcast', facts);
      return inner && [b.broadcast(x(inner), shapeOf(op))];
    },
    cases: ['graph @m(%x: f32[3]) { %0 = broadcast %x {shape=[2,3]} : f32[2,3] %1 = broadcast %0 {shape=[4,2,3]} : f32[4,2,3] return %1 }'],
  }),
];

/** Elementwise ops broadcast by themselves. */
export const broadcastIntoMap: Rule = {
  name: 'f(broadcast(x), y) = f(x, y) where y has the shape already',
  roots: ['*'],
  exactness: 'exact',
  apply: (op, b, facts) => {
    if (op.operands.length < 2 || !isMap(op)) return undefined;
    for (const [i, v] of op.operands.entries()) {
      const def = facts.definition(v);
      if (def?.name !== 'broadcast') continue;
      const operands = op.operands.with(i, def.operands[0]!);
      const shape = broadcastShapes(operands.map((o) => o.type.shape));
      if (shape && sameShape(shape, shapeOf(op))) return b.op(op.name, operands, op.attrs);
    }
    return undefined;
  },
  cases: [
    'graph @m(%x: f32[3], %y: f32[2,3]) { %0 = broadcast %x {shape=[2,3]} : f32[2,3] %1 = sub %0, %y : f32[2,3] return %1 }',
    'graph @m(%x: f32[2,1], %y: f32[2,3]) { %0 = broadcast %x {shape=[2,3]} : f32[2,3] %1 = lt %y, %y : bool[2,3] %2 = select %1, %y, %0 : f32[2,3] return %2 }',
  ],
};

/** Whether a value depends on constants alone, as far as weights are usually prepared in a model. */
function isParameter(v: Value, facts: Facts, depth = 6): boolean {
  if (facts.constant(v)) return true;
  const op = facts.definition(v);
  return depth > 0 && op !== undefined && op.operands.length > 0 && op.operands.every((o) => isParameter(o, facts, depth - 1));
}

const contractRules: readonly Rule[] = [
  {
    name: 'contract(transpose(x), y) = contract(x, y) with other letters, where y is no weight',
    roots: ['contract'],
    exactness: 'exact',
    apply: (op, b, facts) => {
      const [ins, out] = str(op.attrs, 'spec').split('->') as [string, string];
      const specs = ins.split(',');
      // Data that meets a weight keeps its order: packed products take rows first and summed axes last.
      const defs = op.operands.map((v, i) => (isParameter(op.operands[1 - i]!, facts) ? undefined : facts.definition(v)));
      if (!defs.some((d) => d?.name === 'transpose')) return undefined;
      const operands = op.operands.map((v, i) => {
        const def = defs[i];
        if (def?.name !== 'transpose') return v;
        const letters = [...specs[i]!];
        const before = new Array<string>(letters.length);
        nums(def.attrs, 'perm').forEach((p, axis) => (before[p] = letters[axis]!));
        specs[i] = before.join('');
        return def.operands[0]!;
      });
      return [b.contract(`${specs.join(',')}->${out}`, operands[0]!, operands[1]!)];
    },
    cases: ['graph @m(%x: f32[2,3,4], %y: f32[2,5,4]) { %0 = transpose %y {perm=[0,2,1]} : f32[2,4,5] %1 = contract %x, %0 {spec="bmk,bkn->bmn"} : f32[2,3,5] return %1 }'],
  },
];

const reduceRules: readonly Rule[] = (['reduceSum', 'reduceProd', 'reduceMax', 'reduceMin'] as const).map((name) =>
  rule(`${name} over ones = reshape`, name, {
    apply: (op, b) => (nums(op.attrs, 'axes').every((a) => x(op).type.shape[a] === 1) ? [b.reshape(x(op), shapeOf(op))] : undefined),
    cases: [`graph @m(%x: f32[2,1,3,1]) { %0 = ${name} %x {axes=[1,3]} : f32[2,3] return %0 }`],
  }),
);

export const moveRules: readonly Rule[] = [...reshapeRules, ...transposeRules, ...broadcastRules, broadcastIntoMap, reshapeBehindMap, ...contractRules, ...reduceRules];
