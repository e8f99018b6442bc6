/** Elementwise ops as WGSL expressions. */
import { Unsupported } from '../../ir/diagnostic.ts';
import type { Op } from '../../ir/graph.ts';
import { intRange } from '../../ir/number.ts';
import { flag } from '../../ir/op.ts';
import { dtypes, isFloat, isInteger, type DType } from '../../ir/type.ts';
import { literal } from './literal.ts';
import { decodeName, encodeName } from './small-floats.ts';
import { integerBits, isSmallFloat, registerOf } from './types.ts';
import type { Writer } from './writer.ts';

/** The result of an elementwise op on operands in registers. Results are rounded, or wrapped, to their dtype. */
export function mapExpression(w: Writer, op: Op, args: readonly string[]): string {
  const from = op.operands[0]!.type.dtype;
  const to = op.results[0]!.type.dtype;
  if (op.name === 'cast') return cast(w, args[0]!, from, to, flag(op.attrs, 'saturate'));
  if (op.name === 'bitcast') return fromBits(w, toBits(w, args[0]!, from), to);
  if (op.name === 'isInf') return isInfinite(op, args[0]!);
  const table = registerOf(from) === 'f32' ? floats : registerOf(from) === 'bool' ? bools : integers;
  const common = anyType[op.name];
  // A select's condition is a bool; what it chooses among decides.
  const row = common ?? table[op.name];
  if (!row) throw new Unsupported(`${op.name} on WebGPU`, `no WGSL for ${op.name} of ${from}`);
  if (from === 'f16' && w.halves && op.name in halves) return `f32(f16(${args[0]!}) ${halves[op.name]!} f16(${args[1]!}))`;
  const text = row(w, args, from);
  return moves.has(op.name) ? text : narrowed(w, text, to);
}

/** What f16 computes as exactly as f32 that is rounded after it. */
const halves: Readonly<Record<string, string>> = { add: '+', sub: '-', mul: '*' };

type Row = (w: Writer, args: readonly string[], dtype: DType) => string;

/** Results that an operand already holds in its dtype. */
const moves: ReadonlySet<string> = new Set(['select', 'min', 'max', 'clamp', 'relu', 'eq', 'ne', 'lt', 'le', 'gt', 'ge', 'isNaN', 'not', 'and', 'or', 'xor']);

const binary = (operator: string): Row => (_, [a, b]) => `(${a} ${operator} ${b})`;
const call = (name: string): Row => (w, args) => w.call(name, ...args);
const native = (name: string): Row => (_, args) => `${name}(${args.join(', ')})`;

const anyType: Readonly<Record<string, Row>> = {
  select: (_, [c, a, b]) => `select(${b}, ${a}, ${c})`,
  eq: binary('=='), ne: (_, [a, b]) => `!(${a} == ${b})`,
  lt: binary('<'), le: binary('<='), gt: binary('>'), ge: binary('>='),
};

const floats: Readonly<Record<string, Row>> = {
  neg: (_, [x]) => `(-${x})`, abs: native('abs'), sign: (w, [x]) => `select(sign(${x}), ${x}, ${w.call('is_nan', x!)})`,
  relu: (_, [x]) => `select(${x}, 0.0, ${x} < 0.0)`,
  sqrt: native('sqrt'), rsqrt: native('inverseSqrt'), recip: (_, [x]) => `(1.0 / ${x})`,
  exp: call('exp_f'), expm1: call('expm1_f'), log: call('log_f'), log1p: call('log1p_f'),
  sin: call('sin_f'), cos: call('cos_f'), tan: (w, [x]) => `(${w.call('sin_f', x!)} / ${w.call('cos_f', x!)})`,
  asin: call('asin_f'), acos: call('acos_f'), atan: call('atan_f'), sinh: call('sinh_f'), cosh: call('cosh_f'), tanh: call('tanh_f'),
  asinh: call('asinh_f'), acosh: call('acosh_f'), atanh: call('atanh_f'), erf: call('erf_f'), sigmoid: call('sigmoid_f'),
  floor: native('floor'), ceil: native('ceil'), round: native('round'), trunc: native('trunc'),
  isNaN: call('is_nan'),
  add: binary('+'), sub: binary('-'), mul: binary('*'), div: binary('/'), pow: call('pow_f'),
  min: call('min_nan'), max: call('max_nan'), clamp: (w, [x, lo, hi]) => w.call('min_nan', w.call('max_nan', x!, lo!), hi!),
  mod: call('mod_f'), fmod: call('fmod_f'), atan2: call('atan2_f'),
};

const bools: Readonly<Record<string, Row>> = {
  not: (_, [x]) => `!${x}`, and: binary('&&'), or: binary('||'), xor: (_, [a, b]) => `(${a} != ${b})`,
};

/** Whether the register is signed. */
const signed = (d: DType): boolean => registerOf(d) === 'i32';
const zeroOf = (d: DType): string => (signed(d) ? '0i' : '0u');

const integers: Readonly<Record<string, Row>> = {
  neg: (_, [x], d) => (signed(d) ? `(-${x})` : `(0u - ${x})`),
  abs: native('abs'),
  sign: (_, [x], d) => (signed(d) ? `sign(${x})` : `min(${x}, 1u)`),
  relu: (_, [x], d) => `max(${x}, ${zeroOf(d)})`,
  bitNot: (_, [x]) => `~${x}`,
  add: binary('+'), sub: binary('-'), mul: binary('*'),
  div: (_, [a, b], d) => `select(${a} / ${b}, ${zeroOf(d)}, ${b} == ${zeroOf(d)})`,
  fmod: (_, [a, b], d) => `select(${a} % ${b}, ${zeroOf(d)}, ${b} == ${zeroOf(d)})`,
  mod: (w, [a, b], d) => (signed(d) ? w.call('mod_i', a!, b!) : `select(${a} % ${b}, 0u, ${b} == 0u)`),
  pow: (w, args, d) => w.call(signed(d) ? 'pow_i' : 'pow_u', ...args),
  min: native('min'), max: native('max'), clamp: (_, [x, lo, hi]) => `min(max(${x}, ${lo}), ${hi})`,
  bitAnd: binary('&'), bitOr: binary('|'), bitXor: binary('^'),
  shl: (_, [x, n], d) => `select(${x} << (u32(${n}) & 31u), ${zeroOf(d)}, u32(${n}) > 31u)`,
  shr: (_, [x, n], d) => (signed(d) ? `(${x} >> min(u32(${n}), 31u))` : `select(${x} >> (${n} & 31u), 0u, ${n} > 31u)`),
};

/** Rounds a float, and wraps an integer, to its dtype. */
export function narrowed(w: Writer, x: string, d: DType): string {
  if (d === 'f16' && w.halves) return `f32(f16(${x}))`;
  if (isSmallFloat(d)) return w.call(decodeName(d), w.call(encodeName(d), x));
  if (isInteger(d) && integerBits(d) < 32) return `extractBits(${x}, 0u, ${integerBits(d)}u)`;
  return x;
}

function isInfinite(op: Op, x: string): string {
  const [positive, negative] = [flag(op.attrs, 'positive'), flag(op.attrs, 'negative')];
  const bits = `bitcast<u32>(${x})`;
  if (positive && negative) return `((${bits} & 0x7fffffffu) == 0x7f800000u)`;
  return positive ? `(${bits} == 0x7f800000u)` : negative ? `(${bits} == 0xff800000u)` : 'false';
}

function cast(w: Writer, x: string, from: DType, to: DType, saturate: boolean): string {
  const [a, b] = [registerOf(from), registerOf(to)];
  if (b === 'bool') return a === 'bool' ? x : `!(${x} == ${literal(w, a, 0)})`;
  if (a === 'bool') return b === 'f32' && isSmallFloat(to) && to === 'f8e8m0' ? narrowed(w, `f32(${x})`, to) : `${b}(${x})`;
  if (b === 'f32') {
    const value = a === 'f32' ? x : `f32(${x})`;
    if (to === 'f16' && w.halves) return from === to ? value : narrowed(w, value, to);
    return isSmallFloat(to) && from !== to ? w.call(decodeName(to), w.call(encodeName(to, saturate), value)) : value;
  }
  if (a === 'f32') return saturate ? saturated(w, x, to) : narrowed(w, b === 'i32' ? w.call('wrap_float', x) : `u32(${w.call('wrap_float', x)})`, to);
  if (saturate) return clamped(w, x, from, to);
  return narrowed(w, a === b ? x : `${b}(${x})`, to);
}

function saturated(w: Writer, x: string, to: DType): string {
  const { lo, hi } = rangeIn32(to);
  const top = `${literal(w, 'f32', hi)}`;
  return registerOf(to) === 'i32' ? w.call('saturate_i', x, literal(w, 'f32', lo), top, literal(w, 'i32', hi)) : w.call('saturate_u', x, top, literal(w, 'u32', hi));
}

/** Between integers: clamped in the source's register, where both ranges meet. */
function clamped(w: Writer, x: string, from: DType, to: DType): string {
  const [a, b] = [rangeIn32(from), rangeIn32(to)];
  const lo = a.lo > b.lo ? a.lo : b.lo;
  const hi = a.hi < b.hi ? a.hi : b.hi;
  const register = registerOf(from);
  const text = `clamp(${x}, ${literal(w, register, lo)}, ${literal(w, register, hi)})`;
  return register === registerOf(to) ? text : `${registerOf(to)}(${text})`;
}

const rangeIn32 = (d: DType): { lo: bigint; hi: bigint } => intRange(d === 'i64' ? 'i32' : d === 'u64' ? 'u32' : d);

function toBits(w: Writer, x: string, d: DType): string {
  if (registerOf(d) === 'bool') return `u32(${x})`;
  if (isSmallFloat(d)) return w.call(encodeName(d), x);
  if (dtypes[d].bits === 64) throw new Unsupported('bitcast of 64-bit integers on WebGPU', `no WGSL for a bitcast of ${d}: WGSL has no 64-bit integers`);
  const bits = isFloat(d) || registerOf(d) === 'i32' ? `bitcast<u32>(${x})` : x;
  return dtypes[d].bits < 32 ? `(${bits} & ${2 ** dtypes[d].bits - 1}u)` : bits;
}

function fromBits(w: Writer, bits: string, d: DType): string {
  if (registerOf(d) === 'bool') return `(${bits} != 0u)`;
  if (isSmallFloat(d)) return w.call(decodeName(d), bits);
  if (dtypes[d].bits === 64) throw new Unsupported('bitcast of 64-bit integers on WebGPU', `no WGSL for a bitcast to ${d}: WGSL has no 64-bit integers`);
  if (d === 'f32') return `bitcast<f32>(${bits})`;
  return narrowed(w, registerOf(d) === 'i32' ? `bitcast<i32>(${bits})` : bits, d);
}
