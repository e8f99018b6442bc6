/** Casts between all dtypes, and reinterpretation of bits. */
import { dtypes, isFloat, type DType } from '../../../ir/type.ts';
import type { E, Fn } from '../asm.ts';
import { computeType, constantOf, extremes, isUnsigned, normalize } from '../dtype.ts';
import { decodeNarrow, encodeNarrow, isNarrow } from '../narrow.ts';

/** The value as another dtype: floats to integers truncate and wrap; `saturate` rounds half to even and clamps (integers clamp too). */
export function cast(f: Fn, from: DType, to: DType, saturate: boolean, a: E): E {
  const { m } = f.asm;
  if (to === 'bool') return toBool(f, from, a);
  if (isFloat(to)) return toFloat(f, from, to, saturate, a);
  if (isFloat(from)) {
    const x = computeType(from) === 'f64' ? a : m.f64.promote(a);
    return saturate ? clampToInteger(f, to, x) : wrapToInteger(f, to, x);
  }
  const clamped = saturate ? clampInteger(f, from, to, a) : a;
  const source = saturate && computeType(to) === 'i64' ? 'i64' : computeType(from);
  if (source === computeType(to)) return normalize(f.asm, to, clamped);
  return source === 'i64' ? normalize(f.asm, to, m.i32.wrap(clamped)) : isUnsigned(from) ? m.i64.extend_u(clamped) : m.i64.extend_s(clamped);
}

/** The same bits as another dtype of the same width. */
export function bitcast(f: Fn, from: DType, to: DType, a: E): E {
  const { m } = f.asm;
  const bits = isNarrow(from) ? encodeNarrow(f.asm, from, m.f64.promote(a)) : from === 'f32' ? m.i32.reinterpret(a) : from === 'f64' ? m.i64.reinterpret(a) : a;
  if (isNarrow(to)) return decodeNarrow(f.asm, to, dtypes[to].bytes === 2 ? m.i32.and(bits, m.i32.const(0xffff)) : m.i32.and(bits, m.i32.const(0xff)));
  if (to === 'f32') return m.f32.reinterpret(bits);
  if (to === 'bool') return m.i32.ne(bits, m.i32.const(0));
  return to === 'f64' ? m.f64.reinterpret(bits) : normalize(f.asm, to, bits);
}

function toBool(f: Fn, from: DType, a: E): E {
  const type = computeType(from);
  return f.asm.m[type].ne(a, constantOf(f.asm, from, 0));
}

function toFloat(f: Fn, from: DType, to: DType, saturate: boolean, a: E): E {
  const { m } = f.asm;
  const source = computeType(from);
  if (isNarrow(to)) return decodeNarrow(f.asm, to, encodeNarrow(f.asm, to, toDouble(f, from, a), saturate));
  if (to === 'f64') return toDouble(f, from, a);
  if (source === 'f32') return a;
  if (source === 'f64') return m.f32.demote(a);
  const convert = isUnsigned(from) ? m.f32.convert_u : m.f32.convert_s;
  return convert[source](a);
}

function toDouble(f: Fn, from: DType, a: E): E {
  const { m } = f.asm;
  const source = computeType(from);
  if (source === 'f64') return a;
  if (source === 'f32') return m.f64.promote(a);
  const convert = isUnsigned(from) ? m.f64.convert_u : m.f64.convert_s;
  return convert[source](a);
}

function clampToInteger(f: Fn, to: DType, x: E): E {
  const { m } = f.asm;
  const rounded = m.f64.nearest(x);
  if (dtypes[to].bits === 64) return isUnsigned(to) ? m.i64.trunc_u_sat.f64(rounded) : m.i64.trunc_s_sat.f64(rounded);
  if (dtypes[to].bits === 32) return isUnsigned(to) ? m.i32.trunc_u_sat.f64(rounded) : m.i32.trunc_s_sat.f64(rounded);
  const { least, greatest } = extremes(to);
  const k = (n: number | bigint): E => m.f64.const(Number(n));
  return m.i32.trunc_s_sat.f64(m.f64.max(m.f64.min(rounded, k(greatest)), k(least)));
}

/** Two's complement of the low bits of the truncated value; NaN and infinities give 0. */
function wrapToInteger(f: Fn, to: DType, x: E): E {
  const { asm } = f;
  const fn = asm.fn('wrap f64', ['f64'], 'i64', (g, [p]) => {
    const { m } = asm;
    const bits = (): E => m.i64.reinterpret(g.get(p!));
    const k = (n: bigint): E => m.i64.const(n);
    const e = g.local('i64');
    const v = g.local('i64');
    return [
      g.if(m.f64.lt(m.f64.abs(g.get(p!)), m.f64.const(2 ** 63)), [m.return(m.i64.trunc_s_sat.f64(g.get(p!)))]),
      // An integer: mantissa · 2^e with e >= 11; NaN and infinity have the largest exponent.
      g.set(e, m.i64.sub(m.i64.and(m.i64.shr_u(bits(), k(52n)), k(0x7ffn)), k(1075n))),
      g.if(m.i64.ge_s(g.get(e), k(64n)), [m.return(k(0n))]),
      g.set(v, m.i64.shl(m.i64.or(m.i64.and(bits(), k(0xfffffffffffffn)), k(1n << 52n)), g.get(e))),
      m.select(m.i64.lt_s(bits(), k(0n)), m.i64.sub(k(0n), g.get(v)), g.get(v)),
    ];
  });
  const wide = asm.call(fn, [x], 'i64');
  return dtypes[to].bits === 64 ? wide : normalize(asm, to, asm.m.i32.wrap(wide));
}

/** Clamps an integer to the range of another integer dtype; the result is an i64 where the target is one, else in the compute type of `from`. */
function clampInteger(f: Fn, from: DType, to: DType, a: E): E {
  const { m } = f.asm;
  const range = extremes(to);
  const own = extremes(from);
  const wide = computeType(to) === 'i64' && computeType(from) === 'i32' ? (isUnsigned(from) ? m.i64.extend_u(a) : m.i64.extend_s(a)) : a;
  const type = computeType(to) === 'i64' || computeType(from) === 'i64' ? 'i64' : 'i32';
  const t = m[type];
  const k = (n: number | bigint): E => (type === 'i64' ? m.i64.const(BigInt.asIntN(64, BigInt(n))) : m.i32.const(Number(n) | 0));
  let v = wide;
  if (BigInt(range.greatest) < BigInt(own.greatest)) v = f.bind(type, v, (x) => m.select(isUnsigned(from) ? t.gt_u(x(), k(range.greatest)) : t.gt_s(x(), k(range.greatest)), k(range.greatest), x()));
  if (BigInt(range.least) > BigInt(own.least)) v = f.bind(type, v, (x) => m.select(t.lt_s(x(), k(range.least)), k(range.least), x()));
  return v;
}
