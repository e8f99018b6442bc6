/** Rules about casts, division by powers of two and resampling: those whose condition is more than a pattern. */
import type { Value } from '../../ir/graph.ts';
import { isFloat, sameType, dtypes, type DType } from '../../ir/type.ts';
import { num, nums, str } from '../../ir/op.ts';
import { commutative, uniform } from './pattern.ts';
import type { Rule } from './rule.ts';

/** Whether every value of `from` is a value of `to`. */
export function widens(from: DType, to: DType): boolean {
  if (from === to) return true;
  const [a, b] = [dtypes[from], dtypes[to]];
  const mantissa: Partial<Record<DType, number>> = { f64: 53, f32: 24, f16: 11, bf16: 8 };
  if (isFloat(from)) return isFloat(to) && ((to === 'f64' && from in mantissa) || (to === 'f32' && (from === 'f16' || from === 'bf16')));
  if (isFloat(to)) return (mantissa[to] ?? 0) >= a.bits && to !== 'f16';
  if (to === 'bool') return false;
  if (from === 'bool') return true;
  return a.kind === b.kind ? a.bits <= b.bits : a.kind === 'uint' && b.kind === 'int' && a.bits < b.bits;
}

const castRules: readonly Rule[] = [
  {
    name: 'cast(x) to its own type = x',
    roots: ['cast'],
    exactness: 'exact',
    apply: (op) => (op.operands[0]!.type.dtype === str(op.attrs, 'to') ? [op.operands[0]!] : undefined),
    cases: ['graph @m(%x: f32[3]) { %0 = cast %x {to="f32"} : f32[3] return %0 }'],
  },
  {
    name: 'cast(cast(x)) = cast(x) where the first loses nothing',
    roots: ['cast'],
    exactness: 'exact',
    apply: (op, b, facts) => {
      const inner = facts.definition(op.operands[0]!);
      if (inner?.name !== 'cast') return undefined;
      const from = inner.operands[0]!;
      return widens(from.type.dtype, inner.results[0]!.type.dtype) ? [b.cast(from, str(op.attrs, 'to') as DType, op.attrs['saturate'] as boolean)] : undefined;
    },
    cases: [
      'graph @m(%x: f32[3]) { %0 = cast %x {to="f64"} : f64[3] %1 = cast %0 {to="f32"} : f32[3] return %1 }',
      'graph @m(%x: u8[3]) { %0 = cast %x {to="i32"} : i32[3] %1 = cast %0 {to="f32"} : f32[3] return %1 }',
      'graph @m(%x: bool[3]) { %0 = cast %x {to="i64"} : i64[3] %1 = cast %0 {to="bool"} : bool[3] return %1 }',
    ],
  },
];

const arithmeticRules: readonly Rule[] = [
  {
    name: 'c + x = x + c',
    roots: [...commutative],
    exactness: 'exact',
    apply: (op, b, facts) => {
      const [x, y] = op.operands as [Value, Value];
      return facts.constant(x) && !facts.constant(y) ? b.op(op.name, [y, x], op.attrs) : undefined;
    },
    cases: ['graph @m(%x: f32[3]) { %c = constant {value=f32[](2)} : f32[] %0 = add %c, %x : f32[3] return %0 }'],
  },
  {
    name: 'x / 2ⁿ = x * 2⁻ⁿ',
    roots: ['div'],
    exactness: 'exact',
    apply: (op, b, facts) => {
      const [x, y] = op.operands as [Value, Value];
      const c = facts.constant(y);
      if (!c || (c.dtype !== 'f32' && c.dtype !== 'f64')) return undefined;
      const value = uniform(c);
      // Within these exponents neither 2ⁿ nor 2⁻ⁿ is subnormal, so both sides round alike.
      if (value === undefined || !Number.isInteger(Math.log2(Math.abs(value))) || Math.abs(Math.log2(Math.abs(value))) > 126) return undefined;
      return [b.mul(x, b.scalar(1 / value, c.dtype, c.shape))];
    },
    cases: ['graph @m(%x: f32[3]) { %c = constant {value=f32[1](-8)} : f32[1] %0 = div %x, %c : f32[3] return %0 }'],
  },
  {
    name: 'max(min(x, d), c) = clamp(x, c, d) for c ≤ d',
    roots: ['max', 'relu'],
    exactness: 'exact',
    apply: (op, b, facts) => {
      const min = facts.definition(op.operands[0]!);
      const high = min?.name === 'min' ? facts.constant(min.operands[1]!) : undefined;
      const [lo, hi] = [op.name === 'relu' ? 0 : uniformOf(facts.constant(op.operands[1]!)), uniformOf(high)];
      if (!min || lo === undefined || hi === undefined || !(lo <= hi)) return undefined;
      const low = op.name === 'relu' ? b.scalar(0, op.operands[0]!.type.dtype) : op.operands[1]!;
      return [b.one('clamp', [min.operands[0]!, low, min.operands[1]!])];
    },
    cases: [
      'graph @m(%x: f32[3]) { %c = constant {value=f32[](-2)} : f32[] %d = constant {value=f32[](1)} : f32[] %0 = min %x, %d : f32[3] %1 = max %0, %c : f32[3] return %1 }',
      'graph @m(%x: f32[3]) { %d = constant {value=f32[](1)} : f32[] %0 = min %x, %d : f32[3] %1 = relu %0 : f32[3] return %1 }',
    ],
  },
];
const uniformOf = (t: Parameters<typeof uniform>[0] | undefined): number | undefined => t && uniform(t);

const resampleRule: Rule = {
  name: 'resample that reads every element at its own place = x',
  roots: ['resample'],
  exactness: 'exact',
  apply: (op) => {
    const x = op.operands[0]!;
    const identity = num(op.attrs, 'taps') === 1 && sameType(x.type, op.results[0]!.type) && nums(op.attrs, 'indices').every((p, i) => p === i) && nums(op.attrs, 'weights').every((w) => w === 1);
    return identity ? [x] : undefined;
  },
  cases: ['graph @m(%x: f32[2,3]) { %0 = resample %x {axis=1, size=3, taps=1, indices=[0,1,2], weights=[1,1,1]} : f32[2,3] return %0 }'],
};

export const conversionRules: readonly Rule[] = [...castRules, ...arithmeticRules, resampleRule];
