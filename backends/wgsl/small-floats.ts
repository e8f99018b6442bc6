/** Floats of 16 and 8 bits: stored as their bits, computed as f32 and rounded after every op. */
import type { DType } from '../../ir/type.ts';

/** Facts of a format as ir/number.ts defines them: codes are without the sign bit. */
interface Format { readonly bits: number; readonly mantissa: number; readonly least: number; readonly max: number; readonly nan: number; readonly overflow: number; readonly signed: boolean; readonly clamp: boolean | undefined }

const formats: Readonly<Partial<Record<DType, Format>>> = {
  f16: { bits: 16, mantissa: 10, least: -14, max: 0x7bff, nan: 0x7e00, overflow: 0x7c00, signed: true, clamp: false },
  bf16: { bits: 16, mantissa: 7, least: -126, max: 0x7f7f, nan: 0x7fc0, overflow: 0x7f80, signed: true, clamp: false },
  f8e4m3fn: { bits: 8, mantissa: 3, least: -6, max: 0x7e, nan: 0x7f, overflow: 0x7f, signed: true, clamp: undefined },
  f8e4m3fnuz: { bits: 8, mantissa: 3, least: -7, max: 0x7f, nan: 0x80, overflow: 0x80, signed: false, clamp: undefined },
  f8e5m2: { bits: 8, mantissa: 2, least: -14, max: 0x7b, nan: 0x7e, overflow: 0x7c, signed: true, clamp: undefined },
  f8e5m2fnuz: { bits: 8, mantissa: 2, least: -15, max: 0x7f, nan: 0x80, overflow: 0x80, signed: false, clamp: undefined },
  f4e2m1: { bits: 4, mantissa: 1, least: 0, max: 0x7, nan: 0x8, overflow: 0x7, signed: true, clamp: true },
};

/** The names of a format's functions: bits to f32, f32 to bits (half to even), f32 to bits clamped to the largest finite value. */
export const decodeName = (d: DType): string => `${d}_value`;
export const encodeName = (d: DType, saturate = false): string => `${d}_bits${saturate ? '_saturated' : ''}`;

function functionsOf(d: DType, f: Format): [string, string][] {
  const sign = 1 << (f.bits - 1);
  const one = 1 << f.mantissa;
  const special = f.overflow !== f.nan ? `select(float_of(0x7fc00000u), float_of(0x7f800000u), code == ${f.overflow}u)` : 'float_of(0x7fc00000u)';
  const decode = `fn ${decodeName(d)}(bits: u32) -> f32 {
  let code = bits & ${sign - 1}u;
  let e = code >> ${f.mantissa}u;
  let m = code & ${one - 1}u;
  var x = ldexp(f32(select(m + ${one}u, m, e == 0u)), ${f.least - f.mantissa} + max(i32(e) - 1, 0));
  if (code > ${f.max}u) { x = ${special}; }
  ${f.signed ? '' : `if (bits == ${sign}u) { x = float_of(0x7fc00000u); }\n  `}return select(x, -x, (bits & ${sign}u) != 0u);
}`;
  const encode = (saturate: boolean): string => {
    const clamps = f.clamp ?? saturate;
    const overflow = clamps ? `return ${f.max}u | sign;` : `return ${f.overflow}u${f.signed ? ' | sign' : ''};`;
    return `fn ${encodeName(d, saturate)}(x: f32) -> u32 {
  let b = bitcast<u32>(x);
  let a = b & 0x7fffffffu;
  if (a > 0x7f800000u) { return ${f.nan}u; }
  let sign = (b >> 31u) << ${f.bits - 1}u;
  let exponent = max(i32(a >> 23u) - 127, -126);
  let m = (a & 0x7fffffu) | select(0u, 0x800000u, a >= 0x800000u);
  let scale = max(exponent, ${f.least});
  let drop = u32(scale - exponent + ${23 - f.mantissa});
  var q = 0u;
  if (drop < 26u) {
    q = m >> drop;
    let rest = m & ((1u << drop) - 1u);
    let half = 1u << (drop - 1u);
    q = q + select(0u, 1u, rest > half || (rest == half && (q & 1u) == 1u));
  }
  let code = q + (u32(scale - ${f.least}) << ${f.mantissa}u);
  if (code > ${f.max}u) { ${overflow} }
  ${f.signed ? '' : 'if (code == 0u) { return 0u; }\n  '}return code | sign;
}`;
  };
  return [[decodeName(d), decode], [encodeName(d), encode(false)], [encodeName(d, true), encode(true)]];
}

/** Powers of two: code c is 2^(c - 127), 255 is NaN. */
const powers: [string, string][] = (['f8e8m0_bits', 'f8e8m0_bits_saturated'] as const).map((name): [string, string] => {
  const saturated = name.endsWith('saturated');
  return [name, `fn ${name}(x: f32) -> u32 {
  let b = bitcast<u32>(x);
  if (b > 0x7f800000u && b != 0x80000000u) { return 255u; }
  let m = b & 0x7fffffu;
  let e = ((b >> 23u) & 255u) + select(0u, 1u, ${saturated ? 'm > 0u' : 'm >= 0x400000u'});
  if (b == 0u || b == 0x80000000u) { return ${saturated ? 0 : 255}u; }
  if (e >= 255u) { return ${saturated ? 254 : 255}u; }
  return e;
}`];
});
const powerValue = 'fn f8e8m0_value(bits: u32) -> f32 {\n  if (bits == 255u) { return float_of(0x7fc00000u); }\n  return select(bitcast<f32>(bits << 23u), bitcast<f32>(0x400000u), bits == 0u);\n}';
const halfValue = 'fn bf16_value(bits: u32) -> f32 { return bitcast<f32>(bits << 16u); }';

export const smallFloatFunctions: Readonly<Record<string, string>> = {
  ...Object.fromEntries(Object.entries(formats).flatMap(([d, f]) => functionsOf(d as DType, f))),
  ...Object.fromEntries(powers),
  f8e8m0_value: powerValue,
  bf16_value: halfValue,
};
