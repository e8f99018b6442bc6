/** Elementwise rules whose both sides are data. Every one is checked by machine on generated operands (test/rules.test.ts). */
import { patternRule as rule, type PatternRule } from './pattern.ts';

const steps = ['floor', 'ceil', 'round', 'trunc'];

export const algebraRules: readonly PatternRule[] = [
  rule('number', '-(-x) = x', 'neg(neg(x))', 'x'),
  rule('number', 'x + 0 = x', 'add(x, 0)', 'x'),
  rule('number', 'x - 0 = x', 'sub(x, 0)', 'x'),
  rule('float', '0 - x = -x', 'sub(0, x)', 'neg(x)'),
  rule('number', 'x * 1 = x', 'mul(x, 1)', 'x'),
  rule('number', 'x / 1 = x', 'div(x, 1)', 'x'),
  rule('float', 'x * -1 = -x', 'mul(x, -1)', 'neg(x)'),
  rule('float', 'x / -1 = -x', 'div(x, -1)', 'neg(x)'),
  rule('float', '1 / x = recip(x)', 'div(1, x)', 'recip(x)'),
  rule('integer', 'x * 0 = 0', 'mul(x, 0)', '0'),
  rule('integer', 'x - x = 0', 'sub(x, x)', '0'),

  rule('number', 'x + (-y) = x - y', 'add(x, neg(y))', 'sub(x, y)'),
  rule('number', 'x - (-y) = x + y', 'sub(x, neg(y))', 'add(x, y)'),
  rule('number', '-(x - y) = y - x', 'neg(sub(x, y))', 'sub(y, x)'),
  rule('float', '(-x) * (-y) = x * y', 'mul(neg(x), neg(y))', 'mul(x, y)'),
  rule('float', '(-x) / (-y) = x / y', 'div(neg(x), neg(y))', 'div(x, y)'),

  rule('number', 'x ^ 1 = x', 'pow(x, 1)', 'x'),
  rule('number', 'x ^ 2 = x * x', 'pow(x, 2)', 'mul(x, x)'),
  rule('float', 'x ^ 3 = x * x * x', 'pow(x, 3)', 'mul(mul(x, x), x)', 'rounding'),
  rule('float', 'x ^ -1 = recip(x)', 'pow(x, -1)', 'recip(x)'),

  rule('number', '||x|| = |x|', 'abs(abs(x))', 'abs(x)'),
  rule('float', '|-x| = |x|', 'abs(neg(x))', 'abs(x)'),
  rule('float', '|x| * |x| = x * x', 'mul(abs(x), abs(x))', 'mul(x, x)'),
  rule('float', 'relu(relu(x)) = relu(x)', 'relu(relu(x))', 'relu(x)'),
  rule('float', 'relu(|x|) = |x|', 'relu(abs(x))', 'abs(x)'),
  rule('float', 'relu(sigmoid(x)) = sigmoid(x)', 'relu(sigmoid(x))', 'sigmoid(x)'),
  rule('float', 'relu(exp(x)) = exp(x)', 'relu(exp(x))', 'exp(x)'),
  rule('float', 'max(x, 0) = relu(x)', 'max(x, 0)', 'relu(x)'),

  rule('number', 'max(x, x) = x', 'max(x, x)', 'x'),
  rule('number', 'min(x, x) = x', 'min(x, x)', 'x'),
  rule('float', 'max(x, -inf) = x', 'max(x, -inf)', 'x'),
  rule('float', 'min(x, inf) = x', 'min(x, inf)', 'x'),
  rule('number', 'min(max(x, c), d) = clamp(x, c, d)', 'min(max(x, c), d)', 'clamp(x, c, d)'),
  rule('float', 'min(relu(x), d) = clamp(x, 0, d)', 'min(relu(x), d)', 'clamp(x, 0, d)'),
  rule('float', 'clamp(relu(x), 0, d) = clamp(x, 0, d)', 'clamp(relu(x), 0, d)', 'clamp(x, 0, d)'),
  rule('float', 'clamp(x, c, inf) = max(x, c)', 'clamp(x, c, inf)', 'max(x, c)'),
  rule('float', 'clamp(x, -inf, d) = min(x, d)', 'clamp(x, -inf, d)', 'min(x, d)'),
  rule('number', 'clamp(clamp(x, c, d), c, d) = clamp(x, c, d)', 'clamp(clamp(x, c, d), c, d)', 'clamp(x, c, d)'),

  ...steps.flatMap((f) => steps.map((g) => rule('float', `${f}(${g}(x)) = ${g}(x)`, `${f}(${g}(x))`, `${g}(x)`))),
  rule('float', '1 / (exp(-x) + 1) = sigmoid(x)', 'recip(add(exp(neg(x)), 1))', 'sigmoid(x)', 'rounding'),

  rule('bool', 'not not x = x', 'not(not(x))', 'x'),
  rule('bool', 'x and true = x', 'and(x, true)', 'x'),
  rule('bool', 'x and false = false', 'and(x, false)', 'false'),
  rule('bool', 'x or false = x', 'or(x, false)', 'x'),
  rule('bool', 'x or true = true', 'or(x, true)', 'true'),
  rule('bool', 'x and x = x', 'and(x, x)', 'x'),
  rule('bool', 'x or x = x', 'or(x, x)', 'x'),
  rule('bool', 'x xor false = x', 'xor(x, false)', 'x'),
  rule('bool', 'x xor true = not x', 'xor(x, true)', 'not(x)'),
  rule('bool', 'not (x = y) = (x ≠ y)', 'not(eq(x, y))', 'ne(x, y)'),
  rule('bool', 'not (x ≠ y) = (x = y)', 'not(ne(x, y))', 'eq(x, y)'),

  rule('bool', 'select(true, x, y) = x', 'select(true, x, y)', 'x'),
  rule('bool', 'select(false, x, y) = y', 'select(false, x, y)', 'y'),
  rule('bool', 'select(p, x, x) = x', 'select(p, x, x)', 'x'),
  rule('bool', 'select(not p, x, y) = select(p, y, x)', 'select(not(p), x, y)', 'select(p, y, x)'),

  rule('integer', '~~x = x', 'bitNot(bitNot(x))', 'x'),
  rule('integer', 'x | 0 = x', 'bitOr(x, 0)', 'x'),
  rule('integer', 'x xor 0 = x', 'bitXor(x, 0)', 'x'),
  rule('integer', 'x & x = x', 'bitAnd(x, x)', 'x'),
  rule('integer', 'x | x = x', 'bitOr(x, x)', 'x'),
  rule('integer', 'x << 0 = x', 'shl(x, 0)', 'x'),
  rule('integer', 'x >> 0 = x', 'shr(x, 0)', 'x'),
];
