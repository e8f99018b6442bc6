/** The f64 functions that need loops or integer arithmetic. Each returns the body of a function of one or two f64 parameters. */
import type { E, Fn, Local } from '../asm.ts';

/** C's fmod, exact: subtracts |y|·2^k for falling k. */
export function fmod(f: Fn, x: Local, y: Local): E[] {
  const { m } = f.asm;
  const r = f.local('f64');
  const b = f.local('f64');
  const t = f.local('f64');
  const done = f.label('done');
  const up = f.label('up');
  const down = f.label('down');
  const half = (e: E): E => m.f64.mul(e, m.f64.const(0.5));
  return [
    f.set(r, m.f64.abs(f.get(x))),
    f.set(b, m.f64.abs(f.get(y))),
    f.if(m.i32.eqz(m.i32.and(m.f64.lt(f.get(r), m.f64.const(Infinity)), m.f64.gt(f.get(b), m.f64.const(0)))), [m.return(m.f64.const(NaN))]),
    f.if(m.f64.eq(f.get(b), m.f64.const(Infinity)), [m.return(f.get(x))]),
    f.set(t, f.get(b)),
    m.loop(up, f.if(m.f64.le(f.get(t), half(f.get(r))), [f.set(t, m.f64.add(f.get(t), f.get(t))), m.br(up)])),
    m.block(done, [
      m.loop(down, m.block(null, [
        f.if(m.f64.ge(f.get(r), f.get(t)), [f.set(r, m.f64.sub(f.get(r), f.get(t)))]),
        m.br(done, m.f64.le(f.get(t), f.get(b))),
        f.set(t, half(f.get(t))),
        m.br(down),
      ])),
    ]),
    m.f64.copysign(f.get(r), f.get(x)),
  ];
}

/** x^y for integral |y| <= 64 by squaring. */
export function integerPower(f: Fn, x: Local, y: Local): E[] {
  const { m } = f.asm;
  const n = f.local('i32');
  const p = f.local('f64');
  const base = f.local('f64');
  const top = f.label('top');
  return [
    f.set(n, m.i32.trunc_s_sat.f64(m.f64.abs(f.get(y)))),
    f.set(p, m.f64.const(1)),
    f.set(base, f.get(x)),
    m.loop(top, f.if(f.get(n), [
      f.if(m.i32.and(f.get(n), m.i32.const(1)), [f.set(p, m.f64.mul(f.get(p), f.get(base)))]),
      f.set(base, m.f64.mul(f.get(base), f.get(base))),
      f.set(n, m.i32.shr_u(f.get(n), m.i32.const(1))),
      m.br(top),
    ])),
    m.select(m.f64.lt(f.get(y), m.f64.const(0)), m.f64.div(m.f64.const(1), f.get(p)), f.get(p)),
  ];
}

/** Bits 0..1215 of 2/pi after the binary point, as 32-bit words, the first the highest. */
const twoOverPi = [
  0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561, 0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c,
  0xb129a73e, 0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41, 0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b, 0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f,
  0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d, 0x7527bac7, 0xebe5f17b, 0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046, 0xfc7b6bab,
];

/**
 * x itself up to 1.6e6 in magnitude; beyond, a number within (-2 pi, 2 pi) with the same sine and cosine (absolute error 1e-15): Payne and Hanek's
 * reduction. The product of the 53-bit mantissa and 128 bits of 2/pi, from the first that can matter modulo 4, is kept modulo 2^128 as two i64.
 */
export function reduceHuge(f: Fn, x: Local): E[] {
  const { asm } = f;
  const { m } = asm;
  const [e, at, shift] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const [man, hi, lo, carry] = [f.local('i64'), f.local('i64'), f.local('i64'), f.local('i64')];
  const bits = (): E => m.i64.reinterpret(f.get(x));
  const k = (n: number | bigint): E => m.i64.const(BigInt(n));
  // The word i of 2/pi, zero before the point.
  const table = asm.data(new Uint8Array(new Uint32Array([0, 0, ...twoOverPi]).buffer));
  const word = (i: number): E => m.i64.load32_u(table + 4 * i, 4, f.get(at));
  // 64 bits that start `shift` bits into word i.
  const window = (i: number): E => m.i64.or(
    m.i64.shl(m.i64.or(m.i64.shl(word(i), k(32)), word(i + 1)), m.i64.extend_u(f.get(shift))),
    m.i64.shr_u(word(i + 2), m.i64.sub(k(32), m.i64.extend_u(f.get(shift)))),
  );
  const low32 = (v: E): E => m.i64.and(v, k(0xffffffffn));
  const [w0, w1] = [f.local('i64'), f.local('i64')];
  const [m0, m1] = [f.local('i64'), f.local('i64')];
  return [
    f.if(m.i32.eqz(m.f64.gt(m.f64.abs(f.get(x)), m.f64.const(1647099))), [m.return(f.get(x))]),
    f.if(m.f64.eq(m.f64.abs(f.get(x)), m.f64.const(Infinity)), [m.return(m.f64.const(NaN))]),
    // |x| = man · 2^e, e >= -32
    f.set(e, m.i32.sub(m.i32.wrap(m.i64.and(m.i64.shr_u(bits(), k(52)), k(0x7ff))), m.i32.const(1075))),
    f.set(man, m.i64.or(m.i64.and(bits(), k(0xfffffffffffffn)), k(1n << 52n))),
    // The product modulo 4 needs the bits of 2/pi from weight 2^(1 - e) down: bit position e - 2 after the point, 64 more with the zero words.
    f.set(shift, m.i32.and(m.i32.add(f.get(e), m.i32.const(62)), m.i32.const(31))),
    f.set(at, m.i32.shl(m.i32.shr_u(m.i32.add(f.get(e), m.i32.const(62)), m.i32.const(5)), m.i32.const(2))),
    f.set(w0, window(0)),
    f.set(w1, window(2)),
    f.set(m0, low32(f.get(man))),
    f.set(m1, m.i64.shr_u(f.get(man), k(32))),
    // hi:lo = man · (w0:w1) mod 2^128
    f.set(lo, m.i64.mul(f.get(man), f.get(w1))),
    f.set(carry, m.i64.add(m.i64.shr_u(m.i64.mul(f.get(m0), low32(f.get(w1))), k(32)), m.i64.mul(f.get(m1), low32(f.get(w1))))),
    f.set(hi, m.i64.add(m.i64.shr_u(f.get(carry), k(32)), m.i64.mul(f.get(m1), m.i64.shr_u(f.get(w1), k(32))))),
    f.set(carry, m.i64.add(low32(f.get(carry)), m.i64.mul(f.get(m0), m.i64.shr_u(f.get(w1), k(32))))),
    f.set(hi, m.i64.add(m.i64.add(f.get(hi), m.i64.shr_u(f.get(carry), k(32))), m.i64.mul(f.get(man), f.get(w0)))),
    // All 128 bits are a fraction of a full turn.
    m.f64.copysign(
      m.f64.mul(
        m.f64.add(m.f64.convert_u.i64(f.get(hi)), m.f64.mul(m.f64.convert_u.i64(f.get(lo)), m.f64.const(2 ** -64))),
        m.f64.const(Math.PI / 2 ** 63),
      ),
      f.get(x),
    ),
  ];
}
