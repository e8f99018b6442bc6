/** Mathematical functions on f64, as shared wasm functions. Errors are a few units in the last place of a double unless a function says otherwise. */
import { InternalError } from '../../../ir/diagnostic.ts';
import type { Asm, E, Fn } from '../asm.ts';
import { compileFormula, type FormulaTarget } from './formula.ts';
import { fmod, integerPower, reduceHuge } from './double-loops.ts';

/** Calls f64 function `name` of one or two arguments. */
export function callDouble(asm: Asm, name: string, args: readonly E[]): E {
  return asm.call(doubleFunction(asm, name), args, 'f64');
}

// Polynomials are minimax fits in the stated variable; the errors named are relative ones of the polynomial alone.
const formulas: Readonly<Record<string, string>> = {
  // e^x = 2^k e^r with |r| <= ln(2)/2; (e^r - 1 - r) / r^2 to 2e-20. The scale is applied in two steps, so that subnormal results round once.
  exp: `
    c = min(max(x, -750), 715)
    k = nearest(c * 1.4426950408889634)
    r = c - k * 6.93147180369123816490e-01 - k * 1.90821492927058770002e-10
    h = trunc(k * 0.5)
    (1 + (r + r * r * expTail(r))) * pow2(h) * pow2(k - h)`,
  expTail: `
    poly(x, 0.5, 0.166666666666666667, 0.0416666666666666778, 0.00833333333333333633, 0.00138888888888782683, 0.000198412698412524705, 0.0000248015873385667498, 2.75573192678334291e-6, 2.75572610280338949e-7, 2.5052053925075892e-8, 2.09189622654177652e-9, 1.60918277057471166e-10)`,
  // With q = e^r - 1: e^x - 1 = 2^k q + (2^k - 1).
  expm1: `
    c = min(max(x, -50), 700)
    k = nearest(c * 1.4426950408889634)
    r = c - k * 6.93147180369123816490e-01 - k * 1.90821492927058770002e-10
    s = pow2(k)
    x > 700 ? exp(x) : x == 0 ? x : s * (r + r * r * expTail(r)) + (s - 1)`,
  // x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)]; log(1 + f) = f - (h - s (h + R)), s = f / (2 + f), h = f^2 / 2; R / s^2 to 2e-18.
  log: `
    tiny = x < 2.2250738585072014e-308
    y = tiny ? x * 18014398509481984 : x
    m = fraction(y)
    high = m > 1.4142135623730951
    k = exponent(y) + (high ? 1 : 0) - (tiny ? 54 : 0)
    f = (high ? m * 0.5 : m) - 1
    s = f / (2 + f)
    z = s * s
    R = z * poly(z, 0.666666666666666665, 0.400000000000009025, 0.285714285707886097, 0.22222222394999635, 0.181817952991726808, 0.153862577860591402, 0.13268299392679626, 0.130914854166161745)
    h = 0.5 * f * f
    v = k * 6.93147180369123816490e-01 - ((h - (s * (h + R) + k * 1.90821492927058770002e-10)) - f)
    x == 0 ? -inf : x < 0 ? nan : x == inf ? inf : x != x ? x : v`,
  // The rounding error of 1 + x, divided by it, corrects the logarithm.
  log1p: `
    u = 1 + x
    c = x - (u - 1)
    x == inf ? inf : u == 0 ? -inf : x == 0 ? x : log(u) + c / u`,
  sinPoly: `
    z = x * x
    x + x * z * poly(z, -0.166666666666666667, 0.00833333333333333126, -0.000198412698412645657, 2.75573192189552699e-6, -2.50521061005524204e-8, 1.60585109329644144e-10, -7.58549022203514261e-13)`,
  cosPoly: `
    z = x * x
    1 - (0.5 * z - z * z * poly(z, 0.0416666666666666667, -0.00138888888888888877, 0.0000248015873015843688, -2.75573192211892958e-7, 2.08767557177214168e-9, -1.14704493825891642e-11, 4.74520067674845775e-14))`,
  // x = k pi/2 + r, |r| <= pi/4; beyond 2^20 pi/2 the host of this formula reduces x first (reduceHuge).
  sin: `
    y = reduceHuge(x)
    k = nearest(y * 0.6366197723675814)
    r = ((y - k * 1.57079632673412561417) - k * 6.07710050630396597660e-11) - k * 2.02226624879595063154e-21
    j = k - 4 * floor(k * 0.25)
    odd = j == 1 || j == 3
    v = odd ? cosPoly(r) : sinPoly(r)
    x == 0 ? x : j >= 2 ? -v : v`,
  cos: `
    y = reduceHuge(x)
    k = nearest(y * 0.6366197723675814)
    r = ((y - k * 1.57079632673412561417) - k * 6.07710050630396597660e-11) - k * 2.02226624879595063154e-21
    j = k - 4 * floor(k * 0.25)
    odd = j == 1 || j == 3
    v = odd ? sinPoly(r) : cosPoly(r)
    j == 1 || j == 2 ? -v : v`,
  tan: `
    y = reduceHuge(x)
    k = nearest(y * 0.6366197723675814)
    r = ((y - k * 1.57079632673412561417) - k * 6.07710050630396597660e-11) - k * 2.02226624879595063154e-21
    j = k - 2 * floor(k * 0.5)
    s = sinPoly(r)
    c = cosPoly(r)
    x == 0 ? x : j == 1 ? -c / s : s / c`,
  // |x| <= tan(pi/8) directly, up to tan(3 pi/8) as pi/4 + atan((x - 1) / (x + 1)), beyond as pi/2 - atan(1 / x); polynomial to 1.2e-18.
  atan: `
    a = abs(x)
    far = a > 2.414213562373095
    mid = a > 0.4142135623730951
    t = far ? -1 / a : mid ? (a - 1) / (a + 1) : a
    z = t * t
    p = t + t * z * poly(z, -0.333333333333333332, 0.199999999999997964, -0.142857142856575428, 0.111111111049129379, -0.0909090874059285076, 0.0769229598094015946, -0.0666641748322409899, 0.0587884064256631767, -0.0522978268124243301, 0.0454844640677951909, -0.0344877482377080401, 0.0161921404500758342)
    copysign(far ? 1.5707963267948966 + (p + 6.123233995736766e-17) : mid ? 0.7853981633974483 + (p + 3.061616997868383e-17) : p, x)`,
  atan2: `
    a = abs(x)
    b = abs(y)
    q = a == 0 && b == 0 ? 0 : a == inf && b == inf ? 1 : a / b
    t = atan(q)
    left = copysign(1, y) < 0
    x != x || y != y ? nan : copysign(left ? 3.141592653589793 - (t - 1.2246467991473532e-16) : t, x)`,
  asin: 'atan2(x, sqrt((1 - x) * (1 + x)))',
  acos: '2 * atan2(sqrt(1 - x), sqrt(1 + x))',
  sinh: `
    a = abs(x)
    e = expm1(a)
    t = exp(0.5 * a)
    copysign(a > 700 ? 0.5 * t * t : 0.5 * (e + e / (e + 1)), x)`,
  cosh: `
    a = abs(x)
    e = exp(a)
    t = exp(0.5 * a)
    a > 700 ? 0.5 * t * t : 0.5 * e + 0.5 / e`,
  tanh: `
    a = abs(x)
    t = expm1(2 * min(a, 22))
    copysign(t / (t + 2), x)`,
  asinh: `
    a = abs(x)
    copysign(a > 268435456 ? log(a) + 0.6931471805599453 : log1p(a + a * a / (1 + sqrt(1 + a * a))), x)`,
  acosh: `
    t = x - 1
    x < 1 ? nan : x > 268435456 ? log(x) + 0.6931471805599453 : log1p(t + sqrt(2 * t + t * t))`,
  atanh: `
    a = abs(x)
    copysign(0.5 * log1p(2 * a / (1 - a)), x)`,
  sigmoid: `
    e = exp(-abs(x))
    (x < 0 ? e : 1) / (1 + e)`,
  // Up to 1: odd polynomial to 2e-21; beyond: 1 - exp(-x^2) p(t), t = (x - 3) / (x + 3), p to 6e-19 of erfc(x) exp(x^2).
  erf: `
    a = abs(x)
    z = a * a
    small = a * poly(z, 1.12837916709551257, -0.376126389031837524, 0.112837916709551204, -0.0268661706451298678, 0.00522397762542360638, -0.000854832702195576546, 0.000120553329038018095, -0.0000149256475941963802, 1.64620459747792457e-6, -1.63646494752668892e-7, 1.47924689648584443e-8, -1.21649646994292273e-9, 8.71045216378926088e-11, -4.2331099046743891e-12)
    c = min(a, 6)
    t = (c - 3) / (c + 3)
    far = 1 - exp(-c * c) * poly(t, 0.17900115118138995, -0.326233560043037233, 0.245603801712330897, -0.15011593650077596, 0.0716658371979753711, -0.024392499318779837, 0.00426913633298306404, 0.000707746443167381279, -0.000597061951160771855, 0.0000452552092559636266, 0.0000640565570618205601, -0.0000128594352360034702, -7.97760983544791504e-6, 2.1129578706464588e-6, 1.24602458049954583e-6, -2.70375882940480905e-7, -2.046026098841343e-7)
    copysign(a < 1 ? small : far, x)`,
  // Integral exponents of up to 64 by multiplication; else e^(y log |x|), whose relative error grows with |y log x| (about 1e-16 times it).
  pow: `
    a = abs(x)
    whole = y == trunc(y)
    odd = whole && floor(y * 0.5) * 2 != y && abs(y) < 9007199254740992
    g = exp(y * log(a))
    signed = x < 0 && odd ? -g : x < 0 && y != trunc(y) && a != inf ? nan : g
    exact = whole && abs(y) <= 64
    zero = a == 0 && odd ? copysign(y < 0 ? inf : 0, x) : signed
    y == 0 || x == 1 ? 1 : a == 1 && abs(y) == inf ? 1 : exact ? integerPower(x, y) : zero`,
  mod: `
    r = fmod(x, y)
    r == 0 ? copysign(0, y) : r * copysign(1, y) < 0 ? r + y : r`,
};

/** Functions that need loops, written as code. */
const loops = { fmod, integerPower, reduceHuge };
const twoArguments = new Set(['atan2', 'pow', 'mod', 'fmod', 'integerPower']);

function doubleFunction(asm: Asm, name: string): string {
  const params = twoArguments.has(name) ? (['f64', 'f64'] as const) : (['f64'] as const);
  return asm.fn(`double ${name}`, params, 'f64', (f, [x, y]) => {
    const loop = (loops as Readonly<Record<string, typeof fmod>>)[name];
    if (loop) return loop(f, x!, y ?? x!);
    const text = formulas[name];
    if (text === undefined) throw new InternalError(`there is no f64 function ${name}`);
    const steps: E[] = [];
    const result = compileFormula(text, { x: () => f.get(x!), ...(y ? { y: () => f.get(y) } : {}) }, doubleTarget(f, steps));
    return [...steps, result];
  });
}

function doubleTarget(f: Fn, steps: E[]): FormulaTarget<E> {
  const { asm } = f;
  const { m } = asm;
  const bits = (a: E): E => m.i64.reinterpret(a);
  const builtin: Readonly<Record<string, (...args: E[]) => E>> = {
    abs: (a) => m.f64.abs(a), sqrt: (a) => m.f64.sqrt(a), floor: (a) => m.f64.floor(a), trunc: (a) => m.f64.trunc(a),
    nearest: (a) => m.f64.nearest(a), min: (a, b) => m.f64.min(a, b), max: (a, b) => m.f64.max(a, b), copysign: (a, b) => m.f64.copysign(a, b),
    pow2: (a) => m.f64.reinterpret(m.i64.shl(m.i64.add(m.i64.trunc_s_sat.f64(a), m.i64.const(1023)), m.i64.const(52))),
    exponent: (a) => m.f64.convert_s.i64(m.i64.sub(m.i64.and(m.i64.shr_u(bits(a), m.i64.const(52)), m.i64.const(0x7ff)), m.i64.const(1023))),
    fraction: (a) => m.f64.reinterpret(m.i64.or(m.i64.and(bits(a), m.i64.const(0xfffffffffffffn)), m.i64.const(0x3ff0000000000000n))),
  };
  const binary: Readonly<Record<string, (a: E, b: E) => E>> = {
    '+': m.f64.add, '-': m.f64.sub, '*': m.f64.mul, '/': m.f64.div, '<': m.f64.lt, '<=': m.f64.le, '>': m.f64.gt, '>=': m.f64.ge, '==': m.f64.eq,
    '!=': m.f64.ne, '&&': m.i32.and, '||': m.i32.or,
  };
  return {
    constant: (x) => m.f64.const(x),
    binary: (op, a, b) => binary[op]!(a, b),
    negate: (a) => m.f64.neg(a),
    select: (mask, a, b) => m.select(mask, a, b),
    call(name, args) {
      if (name === 'poly') {
        const t = f.local('f64');
        const [x, ...c] = args;
        steps.push(f.set(t, x!));
        return c.reduceRight((p, k) => m.f64.add(m.f64.mul(p, f.get(t)), k));
      }
      const b = builtin[name];
      return b ? b(...args) : callDouble(asm, name, args);
    },
    bind(value, mask) {
      const t = f.local(mask ? 'i32' : 'f64');
      steps.push(f.set(t, value));
      return () => f.get(t);
    },
  };
}
