/** Integer arithmetic that wasm's instructions trap on or lack. */
import { dtypes, type DType } from '../../../ir/type.ts';
import type { E, Fn } from '../asm.ts';
import { computeType, isUnsigned } from '../dtype.ts';

type Int = 'i32' | 'i64';

/** Division by 0 gives 0; the lowest number divided by -1 wraps. `rem` has the sign of the dividend, `mod` that of the divisor. */
export function divide(f: Fn, type: Int, unsigned: boolean, kind: 'div' | 'rem' | 'mod', a: E, b: E): E {
  return integerFunction(f, type, unsigned, kind, a, b);
}

/** Calls a shared integer function of two operands: div, rem, mod, or pow (negative exponents: 1 / x^|y| truncated). */
export function integerFunction(f: Fn, type: Int, unsigned: boolean, kind: 'div' | 'rem' | 'mod' | 'pow', a: E, b: E): E {
  const { asm } = f;
  const fn = asm.fn(`int ${kind} ${type} ${String(unsigned)}`, [type, type], type, (g, [x, y]) => {
    const { m } = asm;
    const t = m[type];
    const k = (n: number): E => (type === 'i64' ? m.i64.const(BigInt(n)) : m.i32.const(n));
    const is = (e: E, n: number): E => t.eq(e, k(n));
    if (kind === 'pow') {
      const [p, n] = [g.local(type), g.local(type)];
      const top = g.label('top');
      const negative = m.select(is(g.get(x!), 1), k(1), m.select(is(g.get(x!), -1), m.select(t.eqz(t.and(g.get(y!), k(1))), k(1), k(-1)), k(0)));
      return [
        ...(unsigned ? [] : [g.if(t.lt_s(g.get(y!), k(0)), [m.return(negative)])]),
        g.set(p, k(1)),
        g.set(n, g.get(y!)),
        m.loop(top, g.if(t.ne(g.get(n), k(0)), [
          g.if(t.ne(t.and(g.get(n), k(1)), k(0)), [g.set(p, t.mul(g.get(p), g.get(x!)))]),
          g.set(x!, t.mul(g.get(x!), g.get(x!))),
          g.set(n, t.shr_u(g.get(n), k(1))),
          m.br(top),
        ])),
        g.get(p),
      ];
    }
    const guard = [g.if(t.eqz(g.get(y!)), [m.return(k(0))])];
    if (unsigned) return [...guard, kind === 'div' ? t.div_u(g.get(x!), g.get(y!)) : t.rem_u(g.get(x!), g.get(y!))];
    guard.push(g.if(is(g.get(y!), -1), [m.return(kind === 'div' ? t.sub(k(0), g.get(x!)) : k(0))]));
    if (kind === 'div') return [...guard, t.div_s(g.get(x!), g.get(y!))];
    if (kind === 'rem') return [...guard, t.rem_s(g.get(x!), g.get(y!))];
    const r = g.local(type);
    const differs = m.i32.and(t.ne(g.get(r), k(0)), t.lt_s(t.xor(g.get(r), g.get(y!)), k(0)));
    return [...guard, g.set(r, t.rem_s(g.get(x!), g.get(y!))), m.select(differs, t.add(g.get(r), g.get(y!)), g.get(r))];
  });
  return asm.call(fn, [a, b], type);
}

/** Shifts by the width or more give 0 (all sign bits for `shr` of a signed type). */
export function shift(f: Fn, d: DType, kind: 'shl' | 'shr', a: E, b: E): E {
  const { m } = f.asm;
  const type = computeType(d) === 'i64' ? 'i64' : 'i32';
  const t = m[type];
  const { bits } = dtypes[d];
  const k = (n: number): E => (type === 'i64' ? m.i64.const(BigInt(n)) : m.i32.const(n));
  const signed = kind === 'shr' && !isUnsigned(d);
  return f.bind(type, b, (n) => {
    if (signed) return t.shr_s(a, m.select(t.lt_u(n(), k(bits)), n(), k(bits - 1)));
    return m.select(t.lt_u(n(), k(bits)), kind === 'shl' ? t.shl(a, n()) : t.shr_u(a, n()), k(0));
  });
}
