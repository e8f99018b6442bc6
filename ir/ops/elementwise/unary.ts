/** Elementwise ops of one operand whose result has the operand's type. */
import type { OpDef } from '../../op.ts';
import { unary } from './define.ts';
import { erf, roundHalfEven, sigmoid } from './special.ts';

const stepwise = 'piecewise constant';

const neg: OpDef = unary({ name: 'neg', doc: '-x', on: 'number', f: (x) => -x, big: (x) => -x, grad: (b, g) => b.neg(g) });
const abs: OpDef = unary({
  name: 'abs', doc: '|x|', on: 'number', f: Math.abs, big: (x) => (x < 0n ? -x : x),
  grad: (b, g, x) => b.mul(g, b.unary('sign', x)),
});
const sign: OpDef = unary({ name: 'sign', doc: '-1, 0 or 1; NaN stays NaN', on: 'number', f: Math.sign, big: (x) => (x < 0n ? -1n : x > 0n ? 1n : 0n), grad: stepwise });
const relu: OpDef = unary({
  name: 'relu', doc: 'max(x, 0); NaN stays NaN', on: 'number', f: (x) => Math.max(x, 0), big: (x) => (x < 0n ? 0n : x),
  // By the result, so that what comes before a relu need not be kept for it.
  grad: (b, g, _x, y) => b.select(b.binary('gt', y, 0), g, 0),
});

const sqrt: OpDef = unary({ name: 'sqrt', doc: '√x', on: 'float', f: Math.sqrt, grad: (b, g, _x, y) => b.div(b.mul(g, 0.5), y) });
const rsqrt: OpDef = unary({ name: 'rsqrt', doc: '1/√x', on: 'float', f: (x) => 1 / Math.sqrt(x), grad: (b, g, x, y) => b.mul(b.mul(g, -0.5), b.div(y, x)) });
const recip: OpDef = unary({ name: 'recip', doc: '1/x', on: 'float', f: (x) => 1 / x, grad: (b, g, _x, y) => b.neg(b.mul(g, b.mul(y, y))) });

const exp: OpDef = unary({ name: 'exp', doc: 'e^x', on: 'float', f: Math.exp, grad: (b, g, _x, y) => b.mul(g, y) });
const expm1: OpDef = unary({ name: 'expm1', doc: 'e^x - 1', on: 'float', f: Math.expm1, grad: (b, g, _x, y) => b.mul(g, b.add(y, 1)) });
const log: OpDef = unary({ name: 'log', doc: 'ln x', on: 'float', f: Math.log, grad: (b, g, x) => b.div(g, x) });
const log1p: OpDef = unary({ name: 'log1p', doc: 'ln(1 + x)', on: 'float', f: Math.log1p, grad: (b, g, x) => b.div(g, b.add(x, 1)) });

const sin: OpDef = unary({ name: 'sin', doc: 'sin x', on: 'float', f: Math.sin, grad: (b, g, x) => b.mul(g, b.unary('cos', x)) });
const cos: OpDef = unary({ name: 'cos', doc: 'cos x', on: 'float', f: Math.cos, grad: (b, g, x) => b.neg(b.mul(g, b.unary('sin', x))) });
const tan: OpDef = unary({ name: 'tan', doc: 'tan x', on: 'float', f: Math.tan, grad: (b, g, _x, y) => b.mul(g, b.add(b.mul(y, y), 1)) });
const asin: OpDef = unary({
  name: 'asin', doc: 'arcsin x', on: 'float', f: Math.asin,
  grad: (b, g, x) => b.mul(g, b.unary('rsqrt', b.mul(b.sub(1, x), b.add(1, x)))),
});
const acos: OpDef = unary({
  name: 'acos', doc: 'arccos x', on: 'float', f: Math.acos,
  grad: (b, g, x) => b.neg(b.mul(g, b.unary('rsqrt', b.mul(b.sub(1, x), b.add(1, x))))),
});
const atan: OpDef = unary({ name: 'atan', doc: 'arctan x', on: 'float', f: Math.atan, grad: (b, g, x) => b.div(g, b.add(b.mul(x, x), 1)) });

const sinh: OpDef = unary({ name: 'sinh', doc: 'sinh x', on: 'float', f: Math.sinh, grad: (b, g, x) => b.mul(g, b.unary('cosh', x)) });
const cosh: OpDef = unary({ name: 'cosh', doc: 'cosh x', on: 'float', f: Math.cosh, grad: (b, g, x) => b.mul(g, b.unary('sinh', x)) });
const tanh: OpDef = unary({ name: 'tanh', doc: 'tanh x', on: 'float', f: Math.tanh, grad: (b, g, _x, y) => b.mul(g, b.mul(b.sub(1, y), b.add(1, y))) });
const asinh: OpDef = unary({ name: 'asinh', doc: 'arsinh x', on: 'float', f: Math.asinh, grad: (b, g, x) => b.mul(g, b.unary('rsqrt', b.add(b.mul(x, x), 1))) });
const acosh: OpDef = unary({
  name: 'acosh', doc: 'arcosh x', on: 'float', f: Math.acosh,
  grad: (b, g, x) => b.mul(g, b.mul(b.unary('rsqrt', b.sub(x, 1)), b.unary('rsqrt', b.add(x, 1)))),
});
const atanh: OpDef = unary({ name: 'atanh', doc: 'artanh x', on: 'float', f: Math.atanh, grad: (b, g, x) => b.div(g, b.mul(b.sub(1, x), b.add(1, x))) });

const erfOp: OpDef = unary({
  name: 'erf', doc: '2/√π · ∫₀ˣ e^(-t²) dt', on: 'float', f: erf,
  grad: (b, g, x) => b.mul(g, b.mul(b.unary('exp', b.neg(b.mul(x, x))), 2 / Math.sqrt(Math.PI))),
});
const sigmoidOp: OpDef = unary({ name: 'sigmoid', doc: '1 / (1 + e^-x)', on: 'float', f: sigmoid, grad: (b, g, _x, y) => b.mul(g, b.mul(y, b.sub(1, y))) });

const floor: OpDef = unary({ name: 'floor', doc: 'largest integer <= x', on: 'float', f: Math.floor, grad: stepwise });
const ceil: OpDef = unary({ name: 'ceil', doc: 'smallest integer >= x', on: 'float', f: Math.ceil, grad: stepwise });
const round: OpDef = unary({ name: 'round', doc: 'nearest integer, ties to even', on: 'float', f: roundHalfEven, grad: stepwise });
const trunc: OpDef = unary({ name: 'trunc', doc: 'x without its fraction', on: 'float', f: Math.trunc, grad: stepwise });

const not: OpDef = unary({ name: 'not', doc: 'true where x is false', on: 'bool', f: (x) => 1 - x, grad: 'boolean' });
const bitNot: OpDef = unary({ name: 'bitNot', doc: 'every bit of x flipped', on: 'int', f: (x) => ~x, big: (x) => ~x, grad: 'integer' });

export const unaryOps: readonly OpDef[] = [
  neg, abs, sign, relu, sqrt, rsqrt, recip, exp, expm1, log, log1p, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh,
  erfOp, sigmoidOp, floor, ceil, round, trunc, not, bitNot,
];
