/**
 * Mathematical functions written as formulas: lines `name = expression` and a last line that is the result, compiled to scalar f64 code or to
 * vectors of four f32. Expressions have + - * /, comparisons, `c ? a : b` (both sides are evaluated), `&&`, `||`, and calls of the functions of
 * a target. Masks (results of comparisons) may be named too.
 */
import { InternalError } from '../../../ir/diagnostic.ts';

/** What a formula is compiled to; V is an expression that may be used once. */
export interface FormulaTarget<V> {
  constant(x: number): V;
  /** + - * / < <= > >= == != && || */
  binary(op: string, a: V, b: V): V;
  negate(a: V): V;
  select(mask: V, a: V, b: V): V;
  call(name: string, args: readonly V[]): V;
  /** Stores a value; the result reads it as often as wanted. `mask`: of a comparison. */
  bind(value: V, mask: boolean): () => V;
}

type Typed<V> = { readonly v: V; readonly mask: boolean };

/** Compiles a formula; `params` are its free names. */
export function compileFormula<V>(text: string, params: Readonly<Record<string, () => V>>, target: FormulaTarget<V>): V {
  const names = new Map<string, () => Typed<V>>(Object.entries(params).map(([k, get]) => [k, () => ({ v: get(), mask: false })]));
  const lines = text.trim().split('\n').map((l) => l.trim()).filter((l) => l !== '');
  for (const line of lines.slice(0, -1)) {
    const [, name, expression] = /^(\w+)\s*=\s*(.*)$/.exec(line) ?? [];
    if (name === undefined || expression === undefined) throw new InternalError(`formula: not an assignment: ${line}`);
    const { v, mask } = parse(expression, names, target);
    const get = target.bind(v, mask);
    names.set(name, () => ({ v: get(), mask }));
  }
  return parse(lines.at(-1) ?? '', names, target).v;
}

const levels: readonly (readonly string[])[] = [['||'], ['&&'], ['<', '<=', '>', '>=', '==', '!='], ['+', '-'], ['*', '/']];
const token = /\s*(\d+\.?\d*(?:[eE][-+]?\d+)?|[A-Za-z_]\w*|<=|>=|==|!=|&&|\|\||[-+*/<>?:(),])/y;

function parse<V>(text: string, names: ReadonlyMap<string, () => Typed<V>>, target: FormulaTarget<V>): Typed<V> {
  const tokens: string[] = [];
  token.lastIndex = 0;
  while (token.lastIndex < text.length) {
    const found = token.exec(text);
    if (!found) throw new InternalError(`formula: cannot read ${text}`);
    tokens.push(found[1]!);
  }
  let at = 0;
  const take = (want: string): boolean => tokens[at] === want && at++ >= 0;
  const need = (want: string): void => {
    if (!take(want)) throw new InternalError(`formula: ${want} expected in ${text}`);
  };
  const plain = (v: V): Typed<V> => ({ v, mask: false });

  const ternary = (): Typed<V> => {
    const c = level(0);
    if (!take('?')) return c;
    const a = ternary();
    need(':');
    return plain(target.select(c.v, a.v, ternary().v));
  };
  const level = (k: number): Typed<V> => {
    const ops = levels[k];
    if (!ops) return unary();
    let left = level(k + 1);
    for (let op = tokens[at]; op !== undefined && ops.includes(op); op = tokens[at]) {
      at++;
      left = { v: target.binary(op, left.v, level(k + 1).v), mask: k <= 2 };
    }
    return left;
  };
  const unary = (): Typed<V> => {
    if (!take('-')) return primary();
    const next = tokens[at] ?? '';
    if (!/^(\d|inf$)/.test(next)) return plain(target.negate(unary().v));
    at++;
    return plain(target.constant(next === 'inf' ? -Infinity : -Number(next)));
  };
  const primary = (): Typed<V> => {
    const t = tokens[at++] ?? '';
    if (t === '(') {
      const v = ternary();
      need(')');
      return v;
    }
    if (/^\d/.test(t)) return plain(target.constant(Number(t)));
    if (!take('(')) {
      const get = names.get(t);
      if (get) return get();
      if (t === 'inf') return plain(target.constant(Infinity));
      if (t === 'nan') return plain(target.constant(NaN));
      throw new InternalError(`formula: there is no ${t} in ${text}`);
    }
    const args: V[] = [];
    while (!take(')')) {
      args.push(ternary().v);
      if (tokens[at] !== ')') need(',');
    }
    return plain(target.call(t, args));
  };
  const result = ternary();
  if (at !== tokens.length) throw new InternalError(`formula: unexpected ${tokens[at] ?? ''} in ${text}`);
  return result;
}
