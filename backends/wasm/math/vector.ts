/** Mathematical functions on four f32 lanes, as shared wasm functions (v128) -> v128. Errors are about two units in the last place. */
import { types, type Asm, type E, type Fn, type Vec } from '../asm.ts';
import { compileFormula, type FormulaTarget } from './formula.ts';

/** Whether there is a vector formula of this name. */
export const hasVectorFormula = (name: string): boolean => name in formulas;

/** Calls vector function `name` (SIMD modules alone). */
export function callVector(asm: Asm, name: string, x: E): E {
  const fn = asm.fn(`vector ${name}`, ['v128'], 'v128', (f, [p]) => vectorBody(f, name, () => f.get(p!)));
  return asm.call(fn, [x], 'v128');
}

/** The same function in the place of its call: for loops where nothing else competes for registers. Its constants are set where `f` starts. */
export function inlineVector(f: Fn, name: string, x: Vec): Vec {
  const p = f.local('v128');
  const body = vectorBody(f, name, () => f.get(p));
  return [f.asm.m.block(null, [f.set(p, x[0]!), ...body], types.v128)];
}

// Polynomials are minimax fits; the errors named are relative ones of the polynomial alone.
const formulas: Readonly<Record<string, string>> = {
  // e^x = 2^k e^r, |r| <= ln(2)/2; (e^r - 1 - r) / r^2 to 7e-8 of r^2. The scale is applied in two steps, so that subnormal results round once.
  exp: `
    c = min(max(x, -110), 90)
    k = nearest(c * 1.44269504)
    r = madd(k, 2.12194440e-4, madd(k, -0.693359375, c))
    p = madd(r * r, expTail(r), r) + 1
    h = halfInteger(k)
    x != x ? x : p * pow2Integer(h) * pow2Rest(k, h)`,
  // As exp for x <= 0, where one step suffices down to e^-87; below, the result is 0.
  expNegative: `
    c = max(x, -88)
    k = nearest(c * 1.44269504)
    r = madd(k, 2.12194440e-4, madd(k, -0.693359375, c))
    p = madd(r * r, expTail(r), r) + 1
    x < -87 ? 0 : p * pow2(k)`,
  expTail: 'poly(x, 0.5000000028, 0.1666657336, 0.04166636966, 0.008363776316, 0.001394165821)',
  expm1: `
    v = expm1Bounded(min(max(x, -20), 88))
    x > 88 ? exp(x) : x == 0 || x != x ? x : v`,
  // With q = e^r - 1: e^x - 1 = 2^k q + (2^k - 1), for -20 <= x <= 88.
  expm1Bounded: `
    k = nearest(x * 1.44269504)
    r = madd(k, 2.12194440e-4, madd(k, -0.693359375, x))
    s = pow2(k)
    madd(s, madd(r * r, expTail(r), r), s - 1)`,
  log: `
    tiny = x < 1.17549435e-38
    y = tiny ? x * 33554432 : x
    m = fraction(y)
    high = m > 1.41421354
    k = exponent(y) + (high ? 1 : 0) - (tiny ? 25 : 0)
    f = (high ? m * 0.5 : m) - 1
    z = f * f
    p = madd(f * z, logTail(f), madd(z, -0.5, k * -2.12194440e-4))
    v = madd(k, 0.693359375, f + p)
    x == 0 ? -inf : x < 0 ? nan : x < inf ? v : x`,
  logTail: 'poly(x, 0.3333332656, -0.2500028109, 0.2000187523, -0.1664347181, 0.1419037578, -0.129437818, 0.1279788231, -0.08302890327)',
  log1p: `
    u = 1 + x
    c = x - (u - 1)
    x < inf ? (u == 0 ? -inf : x == 0 ? x : log(u) + c / u) : x`,
  // 1 / (1 + e^-x) with one division; beyond |x| = 88 it stays at its value there, which is 1 or below 1e-38. NaN passes both bounds. The sum with
  // 1.5 · 2^23 rounds to an integer, and holds it in its low bits.
  sigmoid: `
    c = max(min(x, 88), -88)
    j = madd(c, -1.44269504, 12582912)
    k = j - 12582912
    s = madd(k, -2.12194440e-4, madd(k, 0.693359375, c))
    p = poly(s, 1, -1, 0.5000000028, -0.1666657336, 0.04166636966, -0.008363776316, 0.001394165821)
    1 / (1 + timesPow2(p, j))`,
  tanh: `
    t = expm1Bounded(2 * pmin(abs(x), 10))
    x != x ? x : copysign(t / (t + 2), x)`,
  // Odd rational function to 1.9e-8; beyond 3.925 the result is 1.
  erf: `
    a = pmin(abs(x), 3.925)
    z = a * a
    p = a * poly(z, 1.128379146, 0.1905556339, 0.0527647279, 0.003771035758, 0.0002848315255, 2.046620162e-6)
    q = poly(z, 1, 0.5022082686, 0.114167392, 0.01498015764, 0.001163530841, 3.80532591e-5)
    x != x ? x : copysign(pmin(p / q, 1), x)`,
  // x = k pi/2 + r, |r| <= pi/4, for |x| up to 8192 (sin and cos fall back to f64 beyond).
  sinNear: `
    k = nearest(x * 0.636619772)
    r = madd(k, -3.1391647865e-7, madd(k, -4.8351287841796875e-4, madd(k, -1.5703125, x)))
    z = r * r
    s = madd(r * z, poly(z, -0.1666666454, 0.008332725077, -0.0001958295003), r)
    c = madd(z * z, poly(z, 0.04166666453, -0.001388827967, 2.454297072e-5), madd(z, -0.5, 1))
    x == 0 ? x : quarterTurns(k, s, c)`,
  cosNear: `
    k = nearest(x * 0.636619772)
    r = madd(k, -3.1391647865e-7, madd(k, -4.8351287841796875e-4, madd(k, -1.5703125, x)))
    z = r * r
    s = madd(r * z, poly(z, -0.1666666454, 0.008332725077, -0.0001958295003), r)
    c = madd(z * z, poly(z, 0.04166666453, -0.001388827967, 2.454297072e-5), madd(z, -0.5, 1))
    quarterTurns(k + 1, s, c)`,
};

/** Formulas that are part of others, without a function of their own. */
const inlined: ReadonlySet<string> = new Set(['expTail', 'logTail', 'expNegative', 'expm1Bounded', 'log']);

function vectorBody(f: Fn, name: string, x: () => E): E[] {
  const steps: E[] = [];
  const result = compileFormula(formulas[name]!, { x }, vectorTarget(f, steps));
  return [...steps, result];
}

function vectorTarget(f: Fn, steps: E[]): FormulaTarget<E> {
  const { asm } = f;
  const { m } = asm;
  const { f32x4, i32x4, v128 } = m;
  const i = (x: number): E => i32x4.splat(m.i32.const(x));
  const c = (x: number): E => f.vconst(x)[0]!;
  const bind = (value: E): (() => E) => {
    const t = f.local('v128');
    steps.push(f.set(t, value));
    return () => f.get(t);
  };
  const madd = (a: E, b: E, k: E): E => asm.vmadd([a], [b], [k])[0]!;
  const integer = (k: E): E => i32x4.trunc_sat_f32x4_s(k);
  const power = (k: E): E => i32x4.shl(i32x4.add(k, i(127)), m.i32.const(23));
  const builtin: Readonly<Record<string, (...args: E[]) => E>> = {
    abs: (a) => f32x4.abs(a), sqrt: (a) => f32x4.sqrt(a), nearest: (a) => f32x4.nearest(a),
    // Where the first argument is NaN, so is the result.
    min: (a, b) => f32x4.pmin(a, b), max: (a, b) => f32x4.pmax(a, b), pmin: (a, b) => f32x4.pmin(a, b),
    copysign: (a, b) => v128.bitselect(a, b, i(0x7fffffff)),
    madd: (a, b, k) => madd(a, b, k),
    // k + 1.5 · 2^23 holds the integer k in its low bits, which the shift brings to the exponent.
    pow2: (k) => i32x4.add(i32x4.shl(f32x4.add(k, c(12582912)), m.i32.const(23)), i(0x3f800000)),
    // Adds the integer in the low bits of j to the exponent of a normal p.
    timesPow2: (p, j) => i32x4.add(p, i32x4.shl(j, m.i32.const(23))),
    halfInteger: (k) => i32x4.shr_s(integer(k), m.i32.const(1)),
    pow2Integer: (h) => power(h),
    pow2Rest: (k, h) => power(i32x4.sub(integer(k), h)),
    exponent: (x) => f32x4.convert_i32x4_s(i32x4.sub(v128.and(i32x4.shr_u(x, m.i32.const(23)), i(255)), i(127))),
    fraction: (x) => v128.or(v128.and(x, i(0x7fffff)), i(0x3f800000)),
    // sin(k pi/2 + r) from the sine and cosine of r.
    quarterTurns: (k, sine, cosine) => {
      const n = bind(integer(k));
      const odd = i32x4.shr_s(i32x4.shl(n(), m.i32.const(31)), m.i32.const(31));
      const sign = i32x4.shl(i32x4.shr_u(n(), m.i32.const(1)), m.i32.const(31));
      return v128.xor(v128.bitselect(cosine, sine, odd), sign);
    },
  };
  const binary: Readonly<Record<string, (a: E, b: E) => E>> = {
    '+': f32x4.add, '-': f32x4.sub, '*': f32x4.mul, '/': f32x4.div, '<': f32x4.lt, '<=': f32x4.le, '>': f32x4.gt, '>=': f32x4.ge, '==': f32x4.eq,
    '!=': f32x4.ne, '&&': v128.and, '||': v128.or,
  };
  return {
    constant: c,
    binary: (op, a, b) => binary[op]!(a, b),
    negate: (a) => f32x4.neg(a),
    select: (mask, a, b) => v128.bitselect(a, b, mask),
    call(name, args) {
      if (name === 'poly') {
        const [x, ...k] = args;
        const t = bind(x!);
        return k.reduceRight((p, q) => madd(p, t(), q));
      }
      const b = builtin[name];
      if (b) return b(...args);
      const x = bind(args[0]!);
      return inlined.has(name) ? compileFormula(formulas[name]!, { x }, vectorTarget(f, steps)) : callVector(asm, name, x());
    },
    bind,
  };
}
