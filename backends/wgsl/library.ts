/**
 * Functions that shaders call, added where they are used. WGSL leaves the accuracy of many built-ins wide open (sin to 2^-11, atan to 4096 units in the last place) and lets implementations
 * assume that there are no infinities or NaN; what needs more is spelled out here. Polynomials are those of the Cephes library (S. Moshier, netlib.org/cephes), single precision.
 */
import { invariant } from '../../ir/diagnostic.ts';
import { smallFloatFunctions } from './small-floats.ts';

const functions: Readonly<Record<string, string>> = {
  float_of: 'fn float_of(bits: u32) -> f32 { return bitcast<f32>(bits); }',
  is_nan: 'fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }',
  // Unsigned numbers in the order of what they stand for; NaN, all one, is above all numbers, and both zeroes are one.
  sort_key_f32: `fn sort_key_f32(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if (is_nan(x)) { return 0xffffffffu; }
  if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}`,
  sort_key_i32: 'fn sort_key_i32(x: i32) -> u32 { return bitcast<u32>(x) ^ 0x80000000u; }',
  sort_key_u32: 'fn sort_key_u32(x: u32) -> u32 { return x; }',
  max_nan: 'fn max_nan(a: f32, b: f32) -> f32 { return select(b, a, a > b || is_nan(a)); }',
  min_nan: 'fn min_nan(a: f32, b: f32) -> f32 { return select(b, a, a < b || is_nan(a)); }',
  // Drivers may take NaN for any number.
  exp_f: 'fn exp_f(x: f32) -> f32 { return select(exp(x), x, is_nan(x)); }',
  log_any: `fn log_any(x: f32) -> f32 {
  if (is_nan(x) || bitcast<u32>(x) == 0x7f800000u) { return x; }
  if (x == 0.0) { return float_of(0xff800000u); }
  if (x < 0.0) { return float_of(0x7fc00000u); }
  return log(x);
}`,
  log1p_f: `fn log1p_f(x: f32) -> f32 {
  if (!(abs(x) <= 0.3)) { return log_any(1.0 + x); }
  let s = x / (2.0 + x);
  let q = s * s;
  return 2.0 * s * (1.0 + q * (0.33333333 + q * (0.2 + q * (0.14285714 + q * 0.11111111))));
}`,
  log_f: 'fn log_f(x: f32) -> f32 {\n  if (abs(x - 1.0) < 0.3) { return log1p_f(x - 1.0); }\n  return log_any(x);\n}',
  expm1_f: `fn expm1_f(x: f32) -> f32 {
  if (!(abs(x) <= 0.35)) { return exp_f(x) - 1.0; }
  return x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666667 + x * (0.0083333333 + x * 0.0013888889)))));
}`,
  sigmoid_f: 'fn sigmoid_f(x: f32) -> f32 {\n  let e = exp_f(-abs(x));\n  return select(e, 1.0, x >= 0.0) / (1.0 + e);\n}',
  tanh_f: `fn tanh_f(x: f32) -> f32 {
  let a = abs(x);
  let q = x * x;
  if (a < 0.25) { return x * (1.0 + q * (-0.33333333 + q * (0.13333333 + q * (-0.053968254 + q * 0.021869489)))); }
  let e = exp_f(-2.0 * a);
  let t = (1.0 - e) / (1.0 + e);
  return select(t, -t, x < 0.0);
}`,
  sinh_f: `fn sinh_f(x: f32) -> f32 {
  let q = x * x;
  if (abs(x) < 1.0) { return x * (1.0 + q * (0.16666667 + q * (0.0083333333 + q * (0.00019841270 + q * 0.0000027557319)))); }
  let h = exp_f(0.5 * x);
  let g = exp_f(-0.5 * x);
  return 0.5 * h * h - 0.5 * g * g;
}`,
  cosh_f: 'fn cosh_f(x: f32) -> f32 {\n  let h = exp_f(0.5 * abs(x));\n  return 0.5 * h * h + 0.5 / (h * h);\n}',
  asinh_f: `fn asinh_f(x: f32) -> f32 {
  let a = abs(x);
  var y = log_any(a) + 0.69314718;
  if (a < 1e9) { y = log1p_f(a + a * a / (1.0 + sqrt(1.0 + a * a))); }
  return select(y, -y, x < 0.0);
}`,
  acosh_f: `fn acosh_f(x: f32) -> f32 {
  let t = x - 1.0;
  if (!(t <= 1e9)) { return log_any(x) + 0.69314718; }
  return select(log1p_f(t + sqrt(2.0 * t + t * t)), float_of(0x7fc00000u), t < 0.0);
}`,
  atanh_f: 'fn atanh_f(x: f32) -> f32 {\n  if (abs(x) > 1.0) { return float_of(0x7fc00000u); }\n  return 0.5 * log1p_f(2.0 * x / (1.0 - x));\n}',
  erf_f: `fn erf_f(x: f32) -> f32 {
  let a = abs(x);
  let q = x * x;
  if (a < 1.0) {
    return x * ((((((7.853861353153693e-5 * q - 8.010193625184903e-4) * q + 5.188327685732524e-3) * q - 2.685381193529856e-2) * q + 1.128358514861418e-1) * q - 3.761262582423300e-1) * q + 1.128379165726710);
  }
  if (is_nan(x)) { return x; }
  // Abramowitz and Stegun 7.1.26; its error of 1.5e-7 is below a unit in the last place here.
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let y = 1.0 - t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * exp(-q);
  return select(y, -y, x < 0.0);
}`,
  // Reduction by multiples of π/4 in three parts (Cody and Waite); x and the octant.
  octant: `fn octant(a: f32) -> vec2<f32> {
  var j = floor(a * 1.27323954);
  j = j + select(0.0, 1.0, (i32(j % 8.0) & 1) == 1);
  let y = ((a - j * 0.78515625) - j * 2.4187564849853515625e-4) - j * 3.77489497744594108e-8;
  return vec2<f32>(y, j % 8.0);
}`,
  sin_near: 'fn sin_near(x: f32) -> f32 {\n  let q = x * x;\n  return ((-1.9515295891e-4 * q + 8.3321608736e-3) * q - 1.6666654611e-1) * q * x + x;\n}',
  cos_near: 'fn cos_near(x: f32) -> f32 {\n  let q = x * x;\n  return ((2.443315711809948e-5 * q - 1.388731625493765e-3) * q + 4.166664568298827e-2) * q * q - 0.5 * q + 1.0;\n}',
  sin_f: `fn sin_f(x: f32) -> f32 {
  let r = octant(abs(x));
  let o = i32(r.y);
  var y = select(sin_near(r.x), cos_near(r.x), (o & 3) == 2);
  y = select(y, -y, (o & 4) == 4);
  return select(y, -y, x < 0.0);
}`,
  cos_f: `fn cos_f(x: f32) -> f32 {
  let r = octant(abs(x));
  let o = i32(r.y);
  let y = select(cos_near(r.x), sin_near(r.x), (o & 3) == 2);
  return select(y, -y, o == 2 || o == 4);
}`,
  atan_f: `fn atan_f(x: f32) -> f32 {
  let a = abs(x);
  var base = 0.0;
  var t = a;
  if (a > 2.414213562373095) {
    base = 1.5707963267948966;
    t = -1.0 / a;
  } else if (a > 0.4142135623730950) {
    base = 0.7853981633974483;
    t = (a - 1.0) / (a + 1.0);
  }
  let q = t * t;
  let y = base + ((((8.05374449538e-2 * q - 1.38776856032e-1) * q + 1.99777106478e-1) * q - 3.33329491539e-1) * q * t + t);
  return select(y, -y, x < 0.0);
}`,
  asin_f: `fn asin_f(x: f32) -> f32 {
  let a = abs(x);
  if (a > 1.0) { return float_of(0x7fc00000u); }
  if (a == 1.0) { return 1.5707963267948966 * x; }
  return atan_f(x / sqrt((1.0 - x) * (1.0 + x)));
}`,
  acos_f: `fn acos_f(x: f32) -> f32 {
  if (abs(x) > 1.0) { return float_of(0x7fc00000u); }
  if (x <= -1.0) { return 3.141592653589793; }
  return 2.0 * atan_f(sqrt((1.0 - x) / (1.0 + x)));
}`,
  atan2_f: `fn atan2_f(y: f32, x: f32) -> f32 {
  if (is_nan(x) || is_nan(y)) { return float_of(0x7fc00000u); }
  let negative = (bitcast<u32>(x) >> 31u) == 1u;
  let below = (bitcast<u32>(y) >> 31u) == 1u;
  var a = 0.0;
  let infinite = abs(x) > 3.4e38 && abs(y) > 3.4e38;
  if (infinite) { a = 0.7853981633974483; }
  else if (y == 0.0) { a = 0.0; }
  else if (x == 0.0) { a = 1.5707963267948966; }
  else { a = atan_f(abs(y) / abs(x)); }
  a = select(a, 3.141592653589793 - a, negative);
  return select(a, -a, below);
}`,
  fmod_f: 'fn fmod_f(x: f32, y: f32) -> f32 {\n  if (abs(y) > 3.4e38 && abs(x) < 3.4e38) { return x; }\n  return x % y;\n}',
  mod_f: 'fn mod_f(x: f32, y: f32) -> f32 {\n  let r = fmod_f(x, y);\n  return select(r, r + y, r != 0.0 && (r < 0.0) != (y < 0.0));\n}',
  mod_i: 'fn mod_i(x: i32, y: i32) -> i32 {\n  if (y == 0) { return 0; }\n  let r = x % y;\n  return select(r, r + y, r != 0 && (r < 0) != (y < 0));\n}',
  pow_f: `fn pow_f(x: f32, y: f32) -> f32 {
  if (y == 0.0 || x == 1.0) { return 1.0; }
  if (is_nan(x) || is_nan(y)) { return float_of(0x7fc00000u); }
  let whole = floor(y) == y;
  let a = abs(x);
  if (whole && abs(y) <= 64.0) {
    var n = u32(abs(y));
    var base = x;
    var r = 1.0;
    while (n > 0u) {
      if ((n & 1u) == 1u) { r = r * base; }
      base = base * base;
      n = n >> 1u;
    }
    return select(r, 1.0 / r, y < 0.0);
  }
  if (a == 1.0 && abs(y) > 3.4e38) { return 1.0; }
  if (x < 0.0 && !whole) { return float_of(0x7fc00000u); }
  var r = 0.0;
  if (a == 0.0) { r = select(0.0, float_of(0x7f800000u), y < 0.0); }
  else { r = exp2(y * log2(a)); }
  let odd = whole && abs(y) < 16777216.0 && (i32(y) & 1) == 1;
  return select(r, -r, odd && (bitcast<u32>(x) >> 31u) == 1u);
}`,
  pow_i: `fn pow_i(x: i32, y: i32) -> i32 {
  if (y < 0) { return select(select(0, 1 - 2 * (abs(y) & 1), x == -1), 1, x == 1); }
  var n = u32(y);
  var base = x;
  var r = 1;
  while (n > 0u) {
    if ((n & 1u) == 1u) { r = r * base; }
    base = base * base;
    n = n >> 1u;
  }
  return r;
}`,
  pow_u: `fn pow_u(x: u32, y: u32) -> u32 {
  var n = y;
  var base = x;
  var r = 1u;
  while (n > 0u) {
    if ((n & 1u) == 1u) { r = r * base; }
    base = base * base;
    n = n >> 1u;
  }
  return r;
}`,
  // The low 32 bits of the truncated float; 0 for NaN and infinities.
  wrap_float: `fn wrap_float(x: f32) -> i32 {
  let b = bitcast<u32>(x);
  let e = i32((b >> 23u) & 255u) - 127;
  if (e < 0 || e >= 55) { return 0; }
  let m = (b & 0x7fffffu) | 0x800000u;
  let v = select(m >> u32(max(23 - e, 0)), m << u32(clamp(e - 23, 0, 31)), e >= 23);
  return select(i32(v), -i32(v), (b >> 31u) == 1u);
}`,
  saturate_i: `fn saturate_i(x: f32, lo: f32, hi: f32, top: i32) -> i32 {
  if (is_nan(x)) { return 0; }
  let r = round(x);
  if (r >= hi) { return top; }
  return i32(max(r, lo));
}`,
  saturate_u: `fn saturate_u(x: f32, hi: f32, top: u32) -> u32 {
  if (is_nan(x)) { return 0u; }
  let r = round(x);
  if (r >= hi) { return top; }
  return u32(max(r, 0.0));
}`,
  // An index from the start or the end, clamped into its axis.
  index_of: 'fn index_of(i: i32, size: i32) -> i32 { return clamp(select(i, i + size, i < 0), 0, size - 1); }',
  // Philox 4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
  mul_high: `fn mul_high(a: u32, b: u32) -> u32 {
  let ah = a >> 16u;
  let al = a & 0xffffu;
  let bh = b >> 16u;
  let bl = b & 0xffffu;
  let middle = ah * bl + ((al * bl) >> 16u);
  let low = al * bh + (middle & 0xffffu);
  return ah * bh + (middle >> 16u) + (low >> 16u);
}`,
  philox: `fn philox(block: u32, stream: u32, low: u32, high: u32) -> vec4<u32> {
  var c = vec4<u32>(block, 0u, stream, 0u);
  var k = vec2<u32>(low, high);
  for (var round = 0; round < 10; round++) {
    c = vec4<u32>(mul_high(0xcd9e8d57u, c.z) ^ c.y ^ k.x, 0xcd9e8d57u * c.z, mul_high(0xd2511f53u, c.x) ^ c.w ^ k.y, 0xd2511f53u * c.x);
    k = k + vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}`,
  ...smallFloatFunctions,
};

/** The texts of some functions and of those that they call, callees first. */
export function libraryText(names: Iterable<string>): string {
  const done = new Set<string>();
  const texts: string[] = [];
  const add = (name: string): void => {
    if (done.has(name)) return;
    done.add(name);
    const text = functions[name];
    invariant(text !== undefined, `no library function ${name}`);
    for (const [, called] of text.slice(text.indexOf('{')).matchAll(/\b([a-z]\w*)\(/g)) if (called !== name && called! in functions) add(called!);
    texts.push(text);
  };
  for (const name of [...names].sort()) add(name);
  return texts.join('\n');
}
