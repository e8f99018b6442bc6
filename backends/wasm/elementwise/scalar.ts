/** Elementwise ops on one element, for every dtype. Values are held in their compute type (dtype.ts). */
import type { Op } from '../../../ir/graph.ts';
import { flag } from '../../../ir/op.ts';
import { dtypes, type DType } from '../../../ir/type.ts';
import type { E, Fn, Ty } from '../asm.ts';
import { computeType, constantOf, isUnsigned, normalize } from '../dtype.ts';
import { callDouble } from '../math/double.ts';
import { bitcast, cast } from './convert.ts';
import { divide, integerFunction, shift } from './integer.ts';

/** What a row of the table sees: the dtype and compute type of the (last) operand. */
interface Row { readonly f: Fn; readonly d: DType; readonly type: 'f64' | 'f32' | 'i64' | 'i32'; readonly op: Op }
type Emit = (r: Row, a: E, b: E, c: E) => E;

/** The value of one element of an elementwise op from the elements of its operands. Arguments are pure expressions, each used once. */
export function emitScalar(f: Fn, op: Op, args: readonly E[]): E {
  const d = op.operands.at(-1)!.type.dtype;
  const row = scalarOps[op.name as ElementwiseName];
  const [a = 0, b = 0, c = 0] = args;
  return normalize(f.asm, op.results[0]!.type.dtype, row({ f, d, type: computeType(d), op }, a, b, c));
}

const isFloatType = (t: Ty): t is 'f32' | 'f64' => t === 'f32' || t === 'f64';

/** A function of math/double.ts; f32 goes through f64. */
const real = (name: string): Emit => ({ f, type }, a) => viaDouble(f, type, name, [a]);
const real2 = (name: string): Emit => ({ f, type }, a, b) => viaDouble(f, type, name, [a, b]);
function viaDouble(f: Fn, type: Ty, name: string, args: readonly E[]): E {
  const { asm } = f;
  if (type === 'f64') return callDouble(asm, name, args);
  return asm.m.f32.demote(callDouble(asm, name, args.map((x) => asm.m.f64.promote(x))));
}

/** A float instruction of one operand. */
const unary = (name: 'sqrt' | 'floor' | 'ceil' | 'trunc' | 'nearest'): Emit => ({ f, type }, a) => (isFloatType(type) ? f.asm.m[type][name](a) : a);
const arithmetic = (name: 'add' | 'sub' | 'mul'): Emit => ({ f, type }, a, b) => f.asm.m[type][name](a, b);
const bitwise = (name: 'and' | 'or' | 'xor'): Emit => ({ f, type }, a, b) => f.asm.m[type === 'i64' ? 'i64' : 'i32'][name](a, b);

function compare({ f, d, type }: Row, name: 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge', a: E, b: E): E {
  const { m } = f.asm;
  if (isFloatType(type) || name === 'eq' || name === 'ne') return (m[type] as { eq(a: E, b: E): E; ne(a: E, b: E): E })[name as 'eq'](a, b);
  return m[type][`${name}_${isUnsigned(d) ? 'u' : 's'}`](a, b);
}
const comparison = (name: 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge'): Emit => (r, a, b) => compare(r, name, a, b);

/** min or max; floats propagate NaN. */
const extremum = (name: 'min' | 'max'): Emit => (r, a, b) => {
  const { f, type } = r;
  if (isFloatType(type)) return f.asm.m[type][name](a, b);
  return f.bind(type, a, (x) => f.bind(type, b, (y) => f.asm.m.select(compare(r, name === 'min' ? 'lt' : 'gt', x(), y()), x(), y())));
};

const zero = (r: Row): E => constantOf(r.f.asm, r.d, 0);
const one = (r: Row): E => constantOf(r.f.asm, r.d, 1);

export const scalarOps = {
  neg: (r, a) => (isFloatType(r.type) ? r.f.asm.m[r.type].neg(a) : r.f.asm.m[r.type].sub(zero(r), a)),
  abs(r, a) {
    if (isFloatType(r.type)) return r.f.asm.m[r.type].abs(a);
    if (isUnsigned(r.d)) return a;
    return r.f.bind(r.type, a, (x) => r.f.asm.m.select(compare(r, 'lt', x(), zero(r)), scalarOps.neg(r, x(), 0, 0), x()));
  },
  sign(r, a) {
    const { m } = r.f.asm;
    const minus = constantOf(r.f.asm, r.d, isUnsigned(r.d) ? 0 : -1);
    return r.f.bind(r.type, a, (x) => m.select(compare(r, 'gt', x(), zero(r)), one(r), isUnsigned(r.d) ? x() : m.select(compare(r, 'lt', x(), zero(r)), minus, x())));
  },
  sqrt: unary('sqrt'),
  rsqrt: (r, a) => (isFloatType(r.type) ? r.f.asm.m[r.type].div(one(r), r.f.asm.m[r.type].sqrt(a)) : a),
  recip: (r, a) => (isFloatType(r.type) ? r.f.asm.m[r.type].div(one(r), a) : a),
  exp: real('exp'), expm1: real('expm1'), log: real('log'), log1p: real('log1p'),
  sin: real('sin'), cos: real('cos'), tan: real('tan'), asin: real('asin'), acos: real('acos'), atan: real('atan'),
  sinh: real('sinh'), cosh: real('cosh'), tanh: real('tanh'), asinh: real('asinh'), acosh: real('acosh'), atanh: real('atanh'),
  erf: real('erf'), sigmoid: real('sigmoid'),
  floor: unary('floor'), ceil: unary('ceil'), round: unary('nearest'), trunc: unary('trunc'),
  not: ({ f }, a) => f.asm.m.i32.eqz(a),
  bitNot: ({ f, type }, a) => (type === 'i64' ? f.asm.m.i64.xor(a, f.asm.m.i64.const(-1n)) : f.asm.m.i32.xor(a, f.asm.m.i32.const(-1))),
  isNaN: (r, a) => r.f.bind(r.type, a, (x) => compare(r, 'ne', x(), x()), 'i32'),
  isInf(r, a) {
    const at = (x: number): E => constantOf(r.f.asm, r.d, x);
    const [positive, negative] = [flag(r.op.attrs, 'positive'), flag(r.op.attrs, 'negative')];
    return r.f.bind(r.type, a, (x) => r.f.asm.m.i32.or(
      positive ? compare(r, 'eq', x(), at(Infinity)) : r.f.asm.i32(0),
      negative ? compare(r, 'eq', x(), at(-Infinity)) : r.f.asm.i32(0),
    ), 'i32');
  },
  relu(r, a) {
    if (isUnsigned(r.d)) return a;
    return r.f.bind(r.type, a, (x) => r.f.asm.m.select(compare(r, 'lt', x(), zero(r)), zero(r), x()));
  },
  add: arithmetic('add'), sub: arithmetic('sub'), mul: arithmetic('mul'),
  div: (r, a, b) => (isFloatType(r.type) ? r.f.asm.m[r.type].div(a, b) : divide(r.f, r.type, isUnsigned(r.d), 'div', a, b)),
  mod: (r, a, b) => (isFloatType(r.type) ? viaDouble(r.f, r.type, 'mod', [a, b]) : divide(r.f, r.type, isUnsigned(r.d), 'mod', a, b)),
  fmod: (r, a, b) => (isFloatType(r.type) ? viaDouble(r.f, r.type, 'fmod', [a, b]) : divide(r.f, r.type, isUnsigned(r.d), 'rem', a, b)),
  pow: (r, a, b) => (isFloatType(r.type) ? viaDouble(r.f, r.type, 'pow', [a, b]) : integerFunction(r.f, r.type, isUnsigned(r.d), 'pow', a, b)),
  atan2: real2('atan2'),
  min: extremum('min'), max: extremum('max'),
  bitAnd: bitwise('and'), bitOr: bitwise('or'), bitXor: bitwise('xor'),
  shl: (r, a, b) => shift(r.f, r.d, 'shl', a, b),
  shr: (r, a, b) => shift(r.f, r.d, 'shr', a, b),
  and: bitwise('and'), or: bitwise('or'), xor: bitwise('xor'),
  eq: comparison('eq'), ne: comparison('ne'), lt: comparison('lt'), le: comparison('le'), gt: comparison('gt'), ge: comparison('ge'),
  select: ({ f }, c, a, b) => f.asm.m.select(c, a, b),
  clamp: (r, x, lo, hi) => scalarOps.min(r, scalarOps.max(r, x, lo, 0), hi, 0),
  cast: ({ f, d, op }, a) => cast(f, d, op.results[0]!.type.dtype, flag(op.attrs, 'saturate'), a),
  bitcast: ({ f, d, op }, a) => bitcast(f, d, op.results[0]!.type.dtype, a),
} as const satisfies Readonly<Record<string, Emit>> as Readonly<Record<ElementwiseName, Emit>>;

/** The elementwise ops of the catalogue. */
export type ElementwiseName =
  | 'neg' | 'abs' | 'sign' | 'sqrt' | 'rsqrt' | 'recip' | 'exp' | 'expm1' | 'log' | 'log1p' | 'sin' | 'cos' | 'tan' | 'asin' | 'acos' | 'atan' | 'sinh'
  | 'cosh' | 'tanh' | 'asinh' | 'acosh' | 'atanh' | 'erf' | 'sigmoid' | 'floor' | 'ceil' | 'round' | 'trunc' | 'not' | 'bitNot' | 'isNaN' | 'isInf' | 'relu'
  | 'add' | 'sub' | 'mul' | 'div' | 'pow' | 'min' | 'max' | 'mod' | 'fmod' | 'atan2' | 'bitAnd' | 'bitOr' | 'bitXor' | 'shl' | 'shr' | 'and' | 'or' | 'xor'
  | 'eq' | 'ne' | 'lt' | 'le' | 'gt' | 'ge' | 'select' | 'clamp' | 'cast' | 'bitcast';

/** Bytes of an element. */
export const elementBytes = (d: DType): number => dtypes[d].bytes;
