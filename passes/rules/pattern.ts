/**
 * Elementwise rules as data: `{ name: '-(-x) = x', left: 'neg(neg(x))', right: 'x' }`. In a pattern a call is an op, `x`, `y`, `z` and `p` stand for any
 * value, `c` and `d` for a constant, and a number (`true` and `false` included) for a constant whose elements all equal it. Commutative ops match either way.
 */
import { filled, type Builder } from '../../ir/builder.ts';
import { InternalError } from '../../ir/diagnostic.ts';
import type { Op, Value } from '../../ir/graph.ts';
import { decodeFloat } from '../../ir/number.ts';
import type { Facts } from '../../ir/rewrite.ts';
import { dtypes, isFloat, isInteger, type DType, type Tensor } from '../../ir/type.ts';
import type { Exactness, Rule } from './rule.ts';

export type Pattern =
  | { readonly kind: 'call'; readonly op: string; readonly args: readonly Pattern[] }
  | { readonly kind: 'any' | 'constant'; readonly name: string }
  | { readonly kind: 'number'; readonly value: number };

export interface PatternRule extends Rule {
  readonly left: Pattern;
  readonly right: Pattern;
  readonly only: Only;
}

/** The dtypes of the first operand that a rule holds for. */
export type Only = 'float' | 'integer' | 'bool' | 'number' | 'all';

/** Ops whose two operands may be swapped. */
export const commutative: ReadonlySet<string> = new Set(['add', 'mul', 'min', 'max', 'and', 'or', 'xor', 'bitAnd', 'bitOr', 'bitXor', 'eq', 'ne']);

/** A rule from its two sides. */
export function patternRule(only: Only, name: string, left: string, right: string, exactness: Exactness = 'exact'): PatternRule {
  const from = parsePattern(left);
  const to = parsePattern(right);
  if (from.kind !== 'call') throw new InternalError(`rule ${name}: the left side must be an op`);
  return {
    name, left: from, right: to, only, exactness, roots: [from.op], cases: [],
    apply(op, b, facts) {
      const dtype = op.operands[0]!.type.dtype;
      if (!holdsFor(only, dtype)) return undefined;
      const bound = new Map<string, Value>();
      if (!matchOp(from, op, bound, facts)) return undefined;
      const type = op.results[0]!.type;
      const value = to.kind === 'number' ? b.constant(filled(type.dtype, [], to.value)) : build(to, dtype, bound, b);
      return [b.broadcast(value, type.shape)];
    },
  };
}

/** Whether a rule with this restriction holds for a dtype. */
export function holdsFor(only: Only, dtype: DType): boolean {
  if (only === 'all') return true;
  if (only === 'number') return dtype !== 'bool';
  return only === 'float' ? isFloat(dtype) : only === 'integer' ? isInteger(dtype) : dtype === 'bool';
}

/** The number that all elements of a constant equal; undefined for several numbers, for i64 beyond 2^53 and for an empty tensor. */
export function uniform(t: Tensor): number | undefined {
  const first = t.data[0];
  if (first === undefined) return undefined;
  for (let i = 1; i < t.data.length; i++) if (t.data[i] !== first) return undefined;
  const x = isFloat(t.dtype) && dtypes[t.dtype].bytes < 4 ? decodeFloat(t.dtype, Number(first)) : Number(first);
  return typeof first === 'bigint' && !Number.isSafeInteger(x) ? undefined : x;
}

function matchOp(p: Pattern & { kind: 'call' }, op: Op, bound: Map<string, Value>, facts: Facts): boolean {
  if (op.name !== p.op || op.operands.length !== p.args.length) return false;
  const operands = op.operands;
  const inOrder = new Map(bound);
  if (p.args.every((a, i) => match(a, operands[i]!, inOrder, facts))) {
    inOrder.forEach((v, k) => bound.set(k, v));
    return true;
  }
  return commutative.has(p.op) && match(p.args[0]!, operands[1]!, bound, facts) && match(p.args[1]!, operands[0]!, bound, facts);
}

function match(p: Pattern, v: Value, bound: Map<string, Value>, facts: Facts): boolean {
  switch (p.kind) {
    case 'call': {
      const op = facts.definition(v);
      return op !== undefined && matchOp(p, op, bound, facts);
    }
    case 'number': {
      const t = facts.constant(v);
      return t !== undefined && uniform(t) === p.value;
    }
    default: {
      if (p.kind === 'constant' && facts.constant(v) === undefined) return false;
      const before = bound.get(p.name);
      if (before !== undefined) return before === v;
      bound.set(p.name, v);
      return true;
    }
  }
}

function build(p: Pattern, dtype: DType, bound: ReadonlyMap<string, Value>, b: Builder): Value {
  if (p.kind === 'number') return b.scalar(p.value, dtype);
  if (p.kind !== 'call') return bound.get(p.name)!;
  const args = p.args.map((a) => (a.kind === 'number' ? undefined : build(a, dtype, bound, b)));
  const like = args.find((a) => a !== undefined)?.type.dtype ?? dtype;
  return b.one(p.op, p.args.map((a, i) => args[i] ?? build(a, like, bound, b)));
}

/** Parses `add(x, neg(1))`. */
export function parsePattern(text: string): Pattern {
  const tokens = text.match(/[A-Za-z]\w*|-?\d+(?:\.\d+)?|-?inf|[(),]/g) ?? [];
  let at = 0;
  const parse = (): Pattern => {
    const t = tokens[at++];
    if (t === undefined) throw new InternalError(`pattern ${text} ends early`);
    if (t === 'true' || t === 'false') return { kind: 'number', value: t === 'true' ? 1 : 0 };
    if (t === 'inf' || t === '-inf') return { kind: 'number', value: t === 'inf' ? Infinity : -Infinity };
    if (/^-?\d/.test(t)) return { kind: 'number', value: Number(t) };
    if (tokens[at] !== '(') return { kind: t === 'c' || t === 'd' ? 'constant' : 'any', name: t };
    const args: Pattern[] = [];
    do {
      at++;
      args.push(parse());
    } while (tokens[at] === ',');
    if (tokens[at++] !== ')') throw new InternalError(`pattern ${text}: ) expected`);
    return { kind: 'call', op: t, args };
  };
  const pattern = parse();
  if (at !== tokens.length) throw new InternalError(`pattern ${text} goes on after its end`);
  return pattern;
}
