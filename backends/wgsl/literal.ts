/** Numbers as WGSL writes them. */
import type { Writer } from './writer.ts';
import type { Register } from './types.ts';

/** A literal of a register type. Infinities and NaN are made from bits, as WGSL refuses constant expressions with such values. */
export function literal(w: Writer, type: Register, x: number | bigint): string {
  switch (type) {
    case 'bool': return Number(x) === 0 ? 'false' : 'true';
    case 'u32': return `${BigInt.asUintN(32, BigInt(x))}u`;
    case 'i32': {
      const i = Number(x);
      return i === -(2 ** 31) ? '(-2147483647i - 1i)' : `${i}i`;
    }
    case 'f32': return float(w, Math.fround(Number(x)));
  }
}

function float(w: Writer, x: number): string {
  if (Number.isNaN(x)) return w.call('float_of', '0x7fc00000u');
  if (!Number.isFinite(x)) return w.call('float_of', x > 0 ? '0x7f800000u' : '0xff800000u');
  if (Object.is(x, -0)) return w.call('float_of', '0x80000000u');
  const text = shortest(x);
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}

/** The shortest decimal that rounds to the float; near the largest float all digits, as WGSL refuses decimals above it. */
function shortest(x: number): string {
  if (Math.abs(x) > 3.4e38) return x.toString();
  for (let digits = 1; digits < 17; digits++) {
    const text = Number(x.toPrecision(digits)).toString();
    if (Math.fround(Number(text)) === x) return text;
  }
  return x.toString();
}
