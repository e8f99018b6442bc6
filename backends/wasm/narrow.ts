/** Conversions of the 16-, 8- and 4-bit floats to and from the types they are computed in. */
import type { DType } from '../../ir/type.ts';
import type { Asm, E, Fn, Local } from './asm.ts';

/** A format of 1 sign bit, `exp` exponent bits, `man` mantissa bits. `overflow`: the code of what is too large (inf, or NaN where there is none). */
interface Format { readonly exp: number; readonly man: number; readonly bias: number; readonly max: number; readonly overflow: number; readonly nan: number; readonly unsignedZero: boolean }

const formats = {
  f16: { exp: 5, man: 10, bias: 15, max: 0x7bff, overflow: 0x7c00, nan: 0x7e00, unsignedZero: false },
  bf16: { exp: 8, man: 7, bias: 127, max: 0x7f7f, overflow: 0x7f80, nan: 0x7fc0, unsignedZero: false },
  f8e4m3fn: { exp: 4, man: 3, bias: 7, max: 0x7e, overflow: 0x7f, nan: 0x7f, unsignedZero: false },
  f8e4m3fnuz: { exp: 4, man: 3, bias: 8, max: 0x7f, overflow: 0x80, nan: 0x80, unsignedZero: true },
  f8e5m2: { exp: 5, man: 2, bias: 15, max: 0x7b, overflow: 0x7c, nan: 0x7e, unsignedZero: false },
  f8e5m2fnuz: { exp: 5, man: 2, bias: 16, max: 0x7f, overflow: 0x80, nan: 0x80, unsignedZero: true },
  f4e2m1: { exp: 2, man: 1, bias: 1, max: 7, overflow: 7, nan: 8, unsignedZero: false },
} as const satisfies Partial<Record<DType, Format>>;

export type NarrowFloat = keyof typeof formats | 'f8e8m0';
export const isNarrow = (d: DType): d is NarrowFloat => d in formats || d === 'f8e8m0';

/** The f32 value of a narrow float's bits (an i32). */
export function decodeNarrow(asm: Asm, d: NarrowFloat, bits: E): E {
  const { m } = asm;
  if (d === 'bf16') return m.f32.reinterpret(m.i32.shl(bits, m.i32.const(16)));
  const fn = asm.fn(`decode ${d}`, ['i32'], 'f32', (f, [b]) => {
    const code = (): E => f.get(b!);
    const c = (x: number): E => m.i32.const(x);
    if (d === 'f8e8m0') {
      // 2^(code - 127): code 0 is a subnormal f32, 255 is NaN.
      const power = m.f32.reinterpret(m.select(code(), m.i32.shl(code(), c(23)), c(0x400000)));
      return [m.select(m.i32.eq(code(), c(255)), m.f32.const(NaN), power)];
    }
    const F: Format = formats[d];
    const field = f.local('i32');
    const man = f.local('i32');
    const size = 1 + F.exp + F.man;
    const normal = m.f32.reinterpret(m.i32.or(m.i32.shl(m.i32.add(f.get(field), c(127 - F.bias)), c(23)), m.i32.shl(f.get(man), c(23 - F.man))));
    const subnormal = m.f32.mul(m.f32.convert_s.i32(f.get(man)), m.f32.const(2 ** (1 - F.bias - F.man)));
    const finite = m.f32.copysign(m.select(f.get(field), normal, subnormal), m.f32.reinterpret(m.i32.shl(code(), c(32 - size))));
    const magnitude = m.i32.and(code(), c(2 ** (size - 1) - 1));
    const isNaN = F.unsignedZero ? m.i32.eq(code(), c(F.nan)) : m.i32.gt_u(magnitude, c(F.max));
    const infinite = F.overflow > F.max && F.overflow !== F.nan;
    const special = infinite
      ? m.select(m.i32.eq(m.i32.and(code(), c(2 ** (size - 1) - 1)), c(F.overflow)), m.f32.copysign(m.f32.const(Infinity), m.f32.reinterpret(m.i32.shl(code(), c(32 - size)))), m.f32.const(NaN))
      : m.f32.const(NaN);
    return [
      f.set(field, m.i32.and(m.i32.shr_u(code(), c(F.man)), c(2 ** F.exp - 1))),
      f.set(man, m.i32.and(code(), c(2 ** F.man - 1))),
      m.select(isNaN, special, finite),
    ];
  });
  return asm.call(fn, [bits], 'f32');
}

/** The bits of the narrow float nearest to an f64 (ties to even). Too large: infinity, NaN where the type has none, or, of 8 bits, the largest value if `saturateEight`. */
export function encodeNarrow(asm: Asm, d: NarrowFloat, value: E, saturateEight = false): E {
  const { m } = asm;
  const saturate = saturateEight && d !== 'f16' && d !== 'bf16';
  const fn = asm.fn(`encode ${d} ${String(saturate)}`, ['f64'], 'i32', (f, [x]) => {
    const c = (k: number): E => m.i32.const(k);
    const exponent = f.local('i32');
    const code = f.local('i32');
    const field = m.i32.and(m.i32.wrap(m.i64.shr_u(m.i64.reinterpret(f.get(x!)), m.i64.const(52))), c(0x7ff));
    const isNaN = m.f64.ne(f.get(x!), f.get(x!));
    const power = (e: E): E => m.f64.reinterpret(m.i64.shl(m.i64.extend_s(m.i32.add(e, c(1023))), m.i64.const(52)));
    if (d === 'f8e8m0') return e8m0(f, x!, saturate);
    const F: Format = formats[d];
    const least = 1 - F.bias;
    const negative = m.i32.wrap(m.i64.shr_u(m.i64.reinterpret(f.get(x!)), m.i64.const(63)));
    const sign = (magnitude: E): E => m.i32.or(magnitude, m.i32.shl(negative, c(F.exp + F.man)));
    const overflow = saturate || F.overflow === F.max ? F.max : F.overflow;
    // Below 2^(least + 1) the quantum is that of the subnormals; the code of exponent e and q quanta is (e - least) << man, plus q.
    const quanta = m.i32.trunc_s_sat.f64(m.f64.nearest(m.f64.mul(m.f64.abs(f.get(x!)), power(m.i32.sub(c(F.man), f.get(exponent))))));
    const signed = F.unsignedZero
      ? m.select(m.i32.or(m.i32.eqz(f.get(code)), m.i32.eq(f.get(code), c(F.nan))), f.get(code), sign(f.get(code)))
      : sign(f.get(code));
    return [
      f.set(exponent, m.i32.sub(field, c(1023))),
      f.if(m.i32.lt_s(f.get(exponent), c(least)), [f.set(exponent, c(least))]),
      m.if(
        m.i32.gt_s(f.get(exponent), c(least + 2 ** F.exp)),
        f.set(code, c(overflow)),
        m.block(null, [
          f.set(code, m.i32.add(m.i32.shl(m.i32.sub(f.get(exponent), c(least)), c(F.man)), quanta)),
          f.if(m.i32.gt_s(f.get(code), c(F.max)), [f.set(code, c(overflow))]),
        ]),
      ),
      m.select(isNaN, c(F.nan), signed),
    ];
  });
  return asm.call(fn, [value], 'i32');
}

/**
 * f8e8m0 holds powers of two alone: rounds to the nearest, ties up; beyond 2^127 or below 2^-127 it is NaN. With `saturate` it rounds up, and clamps to
 * the ends of the range.
 */
function e8m0(f: Fn, x: Local, saturate: boolean): E[] {
  const { m } = f.asm;
  const c = (k: number): E => m.i32.const(k);
  const e = f.local('i32');
  const rounded = m.i64.add(m.i64.reinterpret(f.get(x)), m.i64.const(saturate ? (1n << 52n) - 1n : 1n << 51n));
  const high = m.select(m.i32.gt_s(f.get(e), c(254)), c(saturate ? 254 : 255), f.get(e));
  return [
    f.set(e, m.i32.sub(m.i32.wrap(m.i64.shr_u(rounded, m.i64.const(52))), c(1023 - 127))),
    m.select(m.f64.ge(f.get(x), m.f64.const(0)), m.select(m.i32.lt_s(f.get(e), c(0)), c(saturate ? 0 : 255), high), c(255)),
  ];
}
