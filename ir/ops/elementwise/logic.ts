/** Elementwise comparisons, logic on bool and on bits, and tests of floats. */
import type { Attrs } from '../../graph.ts';
import { flag, type OpDef } from '../../op.ts';
import { arity } from '../helpers.ts';
import { apply1 } from './apply.ts';
import { binary, elementwiseAxes, requireAccepted, type Accepts } from './define.ts';

function comparison(name: string, doc: string, on: Accepts, test: (x: number | bigint, y: number | bigint) => boolean): OpDef {
  return binary({ name, doc, on, test: true, f: (x, y) => (test(x, y) ? 1 : 0), big: test, grad: 'boolean' });
}
const eq: OpDef = comparison('eq', 'x = y; false where either is NaN', 'any', (x, y) => x === y);
const ne: OpDef = comparison('ne', 'x ≠ y; true where either is NaN', 'any', (x, y) => x !== y);
const lt: OpDef = comparison('lt', 'x < y', 'number', (x, y) => x < y);
const le: OpDef = comparison('le', 'x <= y', 'number', (x, y) => x <= y);
const gt: OpDef = comparison('gt', 'x > y', 'number', (x, y) => x > y);
const ge: OpDef = comparison('ge', 'x >= y', 'number', (x, y) => x >= y);

const and: OpDef = binary({ name: 'and', doc: 'x and y', on: 'bool', f: (x, y) => x & y, grad: 'boolean' });
const or: OpDef = binary({ name: 'or', doc: 'x or y', on: 'bool', f: (x, y) => x | y, grad: 'boolean' });
const xor: OpDef = binary({ name: 'xor', doc: 'one of x and y, not both', on: 'bool', f: (x, y) => x ^ y, grad: 'boolean' });

const bitAnd: OpDef = binary({ name: 'bitAnd', doc: 'bitwise x and y', on: 'int', f: (x, y) => x & y, big: (x, y) => x & y, grad: 'integer' });
const bitOr: OpDef = binary({ name: 'bitOr', doc: 'bitwise x or y', on: 'int', f: (x, y) => x | y, big: (x, y) => x | y, grad: 'integer' });
const bitXor: OpDef = binary({ name: 'bitXor', doc: 'bitwise x xor y', on: 'int', f: (x, y) => x ^ y, big: (x, y) => x ^ y, grad: 'integer' });
const shl: OpDef = binary({
  name: 'shl', doc: 'x · 2^y, wrapped; 0 where y is negative or at least the width', on: 'int',
  f: (x, y) => (y < 0 || y > 31 ? 0 : x << y), big: (x, y) => (y < 0n || y > 63n ? 0n : x << y), grad: 'integer',
});
const shr: OpDef = binary({
  name: 'shr', doc: 'floor(x / 2^y): signed types keep the sign; 0 (or -1) where y is negative or at least the width', on: 'int',
  f: (x, y) => Math.floor(x / 2 ** (y < 0 ? 32 : y)), big: (x, y) => x >> (y < 0n || y > 63n ? 64n : y), grad: 'integer',
});

/** A question about each element of a float tensor. */
function floatTest(name: string, doc: string, attrs: OpDef['attrs'], test: (x: number, attrs: Attrs) => boolean): OpDef {
  return {
    name, doc, family: 'map', operands: ['x'], attrs,
    infer(operands) {
      const [x] = arity(operands, 1);
      requireAccepted('float', x);
      return [{ dtype: 'bool', shape: x.shape }];
    },
    axes: elementwiseAxes(false),
    reference: ([x], a, [y]) => [apply1((v) => (test(v, a) ? 1 : 0), x!, y!)],
    grad: { none: 'boolean' },
  };
}
const isNaNOp: OpDef = floatTest('isNaN', 'true where x is NaN', {}, (x) => x !== x);
const isInf: OpDef = floatTest(
  'isInf', 'true where x is an infinity of an asked-for sign',
  { positive: { kind: 'boolean', default: true }, negative: { kind: 'boolean', default: true } },
  (x, a) => (x === Infinity && flag(a, 'positive')) || (x === -Infinity && flag(a, 'negative')),
);

export const logicOps: readonly OpDef[] = [eq, ne, lt, le, gt, ge, and, or, xor, bitAnd, bitOr, bitXor, shl, shr, isNaNOp, isInf];
