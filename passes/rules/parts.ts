/** Rules about slice, concat, pad and gather: parts that are taken and put together for nothing. */
import type { Op, Value } from '../../ir/graph.ts';
import { num, nums, str } from '../../ir/op.ts';
import { sameShape, sizeOf } from '../../ir/type.ts';
import { exactRule as rule, firstOperand as x, shapeOf, under, type Rule } from './rule.ts';

const sliceRules: readonly Rule[] = [
  rule('slice of the whole = x', 'slice', {
    apply: (op) => (sameShape(x(op).type.shape, shapeOf(op)) && forward(op) ? [x(op)] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = slice %x {starts=[0,0], sizes=[2,3], steps=[1,1]} : f32[2,3] return %0 }'],
  }),
  rule('slice(slice(x)) = slice(x)', 'slice', {
    apply: (op, b, facts) => {
      const inner = under(op, 'slice', facts);
      if (!inner) return undefined;
      const [start, step] = [nums(inner.attrs, 'starts'), nums(inner.attrs, 'steps')];
      const starts = nums(op.attrs, 'starts').map((s, i) => start[i]! + s * step[i]!);
      return [b.slice(x(inner), starts, nums(op.attrs, 'sizes'), nums(op.attrs, 'steps').map((s, i) => s * step[i]!))];
    },
    cases: [
      'graph @m(%x: f32[9]) { %0 = slice %x {starts=[8], sizes=[4], steps=[-2]} : f32[4] %1 = slice %0 {starts=[3], sizes=[3], steps=[-1]} : f32[3] return %1 }',
      'graph @m(%x: f32[3,9]) { %0 = slice %x {starts=[1,1], sizes=[2,7], steps=[1,1]} : f32[2,7] %1 = slice %0 {starts=[0,2], sizes=[1,2], steps=[1,2]} : f32[1,2] return %1 }',
    ],
  }),
  rule('slice of concat within one part = slice of that part', 'slice', {
    apply: (op, b, facts) => {
      const inner = under(op, 'concat', facts);
      if (!inner || sizeOf(shapeOf(op)) === 0) return undefined;
      const axis = num(inner.attrs, 'axis');
      const first = nums(op.attrs, 'starts')[axis]!;
      const last = first + (nums(op.attrs, 'sizes')[axis]! - 1) * nums(op.attrs, 'steps')[axis]!;
      let offset = 0;
      for (const part of inner.operands) {
        const end = offset + part.type.shape[axis]!;
        if (Math.min(first, last) >= offset && Math.max(first, last) < end) {
          return [b.slice(part, nums(op.attrs, 'starts').with(axis, first - offset), nums(op.attrs, 'sizes'), nums(op.attrs, 'steps'))];
        }
        offset = end;
      }
      return undefined;
    },
    cases: ['graph @m(%x: f32[2,3], %y: f32[2,4]) { %0 = concat %x, %y {axis=1} : f32[2,7] %1 = slice %0 {starts=[0,6], sizes=[2,2], steps=[1,-2]} : f32[2,2] return %1 }'],
  }),
];
const forward = (op: Op): boolean => nums(op.attrs, 'steps').every((s, i) => s === 1 || shapeOf(op)[i] === 1);

const concatRules: readonly Rule[] = [
  rule('concat(x) = x', 'concat', {
    apply: (op) => (op.operands.length === 1 ? [x(op)] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = concat %x {axis=1} : f32[2,3] return %0 }'],
  }),
  rule('concat(x, empty) = x', 'concat', {
    apply: (op, b) => {
      const parts = op.operands.filter((v) => sizeOf(v.type.shape) > 0);
      return parts.length > 0 && parts.length < op.operands.length ? [b.concat(parts, num(op.attrs, 'axis'))] : undefined;
    },
    cases: ['graph @m(%x: f32[2,3], %y: f32[2,0]) { %0 = concat %x, %y {axis=1} : f32[2,3] return %0 }'],
  }),
  rule('concat(concat(x, y), z) = concat(x, y, z)', 'concat', {
    apply: (op, b, facts) => {
      const axis = num(op.attrs, 'axis');
      const inner = (v: Value): Op | undefined => {
        const def = facts.definition(v);
        return def?.name === 'concat' && num(def.attrs, 'axis') === axis && facts.readers(v) <= 1 ? def : undefined;
      };
      return op.operands.some(inner) ? [b.concat(op.operands.flatMap((v) => inner(v)?.operands ?? [v]), axis)] : undefined;
    },
    cases: ['graph @m(%x: f32[2,3], %y: f32[2,1]) { %0 = concat %x, %y {axis=1} : f32[2,4] %1 = concat %x, %0, %y {axis=1} : f32[2,8] return %1 }'],
  }),
  rule('concat of neighbouring slices of x = slice of x', 'concat', {
    apply: (op, b, facts) => {
      const axis = num(op.attrs, 'axis');
      const parts = op.operands.map((v) => facts.definition(v));
      const first = parts[0];
      if (op.operands.length < 2 || first?.name !== 'slice') return undefined;
      let next = nums(first.attrs, 'starts')[axis]!;
      for (const part of parts) {
        if (part?.name !== 'slice' || x(part) !== x(first) || !nums(part.attrs, 'steps').every((s) => s === 1)) return undefined;
        const starts = nums(part.attrs, 'starts');
        if (!sameShape(starts.with(axis, 0), nums(first.attrs, 'starts').with(axis, 0)) || starts[axis] !== next) return undefined;
        next += shapeOf(part)[axis]!;
      }
      return [b.slice(x(first), nums(first.attrs, 'starts'), shapeOf(op))];
    },
    cases: [
      `graph @m(%x: f32[2,6]) { %0 = slice %x {starts=[0,1], sizes=[2,2], steps=[1,1]} : f32[2,2] %1 = slice %x {starts=[0,3], sizes=[2,3], steps=[1,1]} : f32[2,3]
         %2 = concat %0, %1 {axis=1} : f32[2,5] return %2 }`,
    ],
  }),
];

const padRules: readonly Rule[] = [
  rule('pad by zero = x', 'pad', {
    apply: (op) => ([...nums(op.attrs, 'lo'), ...nums(op.attrs, 'hi')].every((p) => p === 0) ? [x(op)] : undefined),
    cases: ['graph @m(%x: f32[2,3]) { %0 = pad %x {lo=[0,0], hi=[0,0], mode="reflect"} : f32[2,3] return %0 }'],
  }),
  rule('pad that only crops = slice', 'pad', {
    apply: (op, b) => {
      const lo = nums(op.attrs, 'lo');
      return [...lo, ...nums(op.attrs, 'hi')].every((p) => p <= 0) ? [b.slice(x(op), lo.map((p) => 0 - p), shapeOf(op))] : undefined;
    },
    cases: ['graph @m(%x: f32[4,3]) { %0 = pad %x {lo=[-1,0], hi=[-1,-2], mode="constant"} : f32[2,1] return %0 }'],
  }),
  ...(['conv', 'sumPool', 'maxPool'] as const).map((name): Rule => ({
    name: `${name}(pad(x)) = ${name}(x) with more padding`,
    roots: [name],
    exactness: 'exact',
    apply: (op, b, facts) => {
      const pad = under(op, 'pad', facts);
      if (!pad || str(pad.attrs, 'mode') !== 'constant' || num(pad.attrs, 'value') !== (name === 'maxPool' ? -Infinity : 0)) return undefined;
      const [lo, hi] = [nums(pad.attrs, 'lo'), nums(pad.attrs, 'hi')];
      if ([...lo, ...hi].some((p) => p < 0) || [0, 1].some((axis) => lo[axis] !== 0 || hi[axis] !== 0)) return undefined;
      const more = [...lo.slice(2), ...hi.slice(2)];
      const pads = nums(op.attrs, 'pads').map((p, i) => p + more[i]!);
      return b.op(name, [x(pad), ...op.operands.slice(1)], { ...op.attrs, pads });
    },
    cases: [
      name === 'conv'
        ? 'graph @m(%x: f32[1,2,4,5], %w: f32[3,2,2,2]) { %0 = pad %x {lo=[0,0,1,0], hi=[0,0,0,2]} : f32[1,2,5,7] %1 = conv %0, %w {strides=[1,2], pads=[0,1,1,0], dilations=[1,1], groups=1} : f32[1,3,5,4] return %1 }'
        : name === 'sumPool'
          ? 'graph @m(%x: f32[1,2,4,4]) { %0 = pad %x {lo=[0,0,1,0], hi=[0,0,0,2]} : f32[1,2,5,6] %1 = sumPool %0 {kernel=[2,2], strides=[1,2], pads=[0,1,1,0], dilations=[1,1]} : f32[1,2,5,3] return %1 }'
          : 'graph @m(%x: f32[1,2,4,4]) { %0 = pad %x {lo=[0,0,1,0], hi=[0,0,0,1], value=-inf} : f32[1,2,5,5] %1, %2 = maxPool %0 {kernel=[3,3], strides=[2,2], pads=[0,1,0,0], dilations=[1,1]} : f32[1,2,2,2], i32[1,2,2,2] return %1 }',
    ],
  })),
];

/** A gather with a constant index is a slice: a view. */
const gatherRule = rule('gather at evenly spaced constant indices = slice', 'gather', {
  apply: (op, b, facts) => {
    const indices = facts.constant(op.operands[1]!);
    const axis = num(op.attrs, 'axis');
    const shape = x(op).type.shape;
    const size = shape[axis]!;
    if (!indices || indices.data.length === 0 || size === 0) return undefined;
    const at = Array.from<number | bigint, number>(indices.data as ArrayLike<number | bigint>, (i) => Math.min(Math.max(Number(i) < 0 ? Number(i) + size : Number(i), 0), size - 1));
    const step = at.length > 1 ? at[1]! - at[0]! : 1;
    if (step === 0 || at.some((p, i) => i > 0 && p - at[i - 1]! !== step)) return undefined;
    const starts = shape.map((_, i) => (i === axis ? at[0]! : 0));
    const part = b.slice(x(op), starts, shape.with(axis, at.length), shape.map((_, i) => (i === axis ? step : 1)));
    return [b.reshape(part, shapeOf(op))];
  },
  cases: [
    'graph @m(%x: f32[2,5,3]) { %i = constant {value=i64[](-2)} : i64[] %0 = gather %x, %i {axis=1} : f32[2,3] return %0 }',
    'graph @m(%x: f32[2,5,3]) { %i = constant {value=i64[2](3, 1)} : i64[2] %0 = gather %x, %i {axis=1} : f32[2,2,3] return %0 }',
  ],
});

export const partRules: readonly Rule[] = [...sliceRules, ...concatRules, ...padRules, gatherRule];
