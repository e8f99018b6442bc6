/** Elementwise arithmetic on two operands. Integers wrap; integer division and remainders by zero give 0. */
import type { Builder } from '../../builder.ts';
import type { Value } from '../../graph.ts';
import type { OpDef } from '../../op.ts';
import { binary } from './define.ts';
import { bigPow, floorMod, intPow, pow } from './special.ts';

const add: OpDef = binary({ name: 'add', doc: 'x + y', on: 'number', f: (x, y) => x + y, big: (x, y) => x + y, grad: (_b, g) => [g, g] });
const sub: OpDef = binary({ name: 'sub', doc: 'x - y', on: 'number', f: (x, y) => x - y, big: (x, y) => x - y, grad: (b, g) => [g, b.neg(g)] });
const mul: OpDef = binary({
  name: 'mul', doc: 'x · y', on: 'number', product: true,
  f: (x, y) => x * y, int: Math.imul, big: (x, y) => x * y,
  grad: (b, g, x, y) => [b.mul(g, y), b.mul(g, x)],
});
const div: OpDef = binary({
  name: 'div', doc: 'x / y; integers truncate, and give 0 where y is 0', on: 'number',
  f: (x, y) => x / y, int: (x, y) => (y === 0 ? 0 : Math.trunc(x / y)), big: (x, y) => (y === 0n ? 0n : x / y),
  grad: (b, g, _x, y, q) => [b.div(g, y), b.neg(b.mul(g, b.div(q, y)))],
});
const powOp: OpDef = binary({
  name: 'pow', doc: 'x^y; integers wrap, and truncate 1/x^|y| where y is negative', on: 'number',
  f: pow, int: intPow, big: bigPow,
  // At y = 0 and at x = 0 the plain formulas are 0 · ∞.
  grad: (b, g, x, y, z) => [
    b.mul(g, b.select(b.binary('eq', y, 0), 0, b.mul(y, b.pow(x, b.sub(y, 1))))),
    b.mul(g, b.select(b.binary('eq', x, 0), 0, b.mul(z, b.unary('log', x)))),
  ],
});

/** The share of a cotangent that goes to x where x wins over y: all of it, or half at ties. */
const share = (b: Builder, g: Value, wins: 'lt' | 'gt', x: Value, y: Value): Value =>
  b.select(b.binary(wins, x, y), g, b.select(b.binary('eq', x, y), b.mul(g, 0.5), 0));
const min: OpDef = binary({
  name: 'min', doc: 'the smaller; NaN where either is NaN', on: 'number', f: Math.min, big: (x, y) => (x < y ? x : y),
  grad: (b, g, x, y) => [share(b, g, 'lt', x, y), share(b, g, 'lt', y, x)],
});
const max: OpDef = binary({
  name: 'max', doc: 'the larger; NaN where either is NaN', on: 'number', f: Math.max, big: (x, y) => (x > y ? x : y),
  grad: (b, g, x, y) => [share(b, g, 'gt', x, y), share(b, g, 'gt', y, x)],
});

const mod: OpDef = binary({
  name: 'mod', doc: 'x - y · floor(x / y): remainder with the sign of the divisor; integers give 0 where y is 0', on: 'number',
  f: floorMod, int: (x, y) => (y === 0 ? 0 : floorMod(x, y)), big: (x, y) => (y === 0n ? 0n : ((x % y) + y) % y),
  grad: (b, g, x, y) => [g, b.neg(b.mul(g, b.unary('floor', b.div(x, y))))],
});
const fmod: OpDef = binary({
  name: 'fmod', doc: 'x - y · trunc(x / y): remainder with the sign of the dividend; integers give 0 where y is 0', on: 'number',
  f: (x, y) => x % y, int: (x, y) => (y === 0 ? 0 : x % y), big: (x, y) => (y === 0n ? 0n : x % y),
  grad: (b, g, x, y) => [g, b.neg(b.mul(g, b.unary('trunc', b.div(x, y))))],
});
const atan2: OpDef = binary({
  name: 'atan2', doc: 'the angle of the point (y, x)', on: 'float', f: Math.atan2,
  grad: (b, g, x, y) => {
    const scaled = b.div(g, b.add(b.mul(x, x), b.mul(y, y)));
    return [b.mul(scaled, y), b.neg(b.mul(scaled, x))];
  },
});

export const arithmeticOps: readonly OpDef[] = [add, sub, mul, div, powOp, min, max, mod, fmod, atan2];
