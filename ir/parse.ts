/** Parses the text form of graphs, as `text.ts` prints it. */
import { cursor, graphName, list, number, string, toNumber, type, type Cursor, type TensorSource } from './cursor.ts';
import type { Attr, Attrs, Graph, Op, State, Value } from './graph.ts';
import type { Token } from './lex.ts';
import { encodeFloat } from './number.ts';
import type { AttrSpec } from './op.ts';
import { ops as opTable } from './ops/index.ts';
import { dtypes, isFloat, sizeOf, type Tensor, type TensorType } from './type.ts';

export { ParseError, type TensorSource } from './cursor.ts';

/** The graph that a text describes. Types are taken as written: `verify` checks them. Missing attributes get their defaults. */
export function parseGraph(text: string, tensors: TensorSource = new Map()): Graph {
  const p = cursor(text, tensors);
  const graph = graphAt(p);
  if (p.peek().text !== '') p.fail('the end of the text');
  return graph;
}

/** The graph that starts here; what follows it is left. */
export function graphAt(p: Cursor): Graph {
  p.expect('graph');
  const name = graphName(p);
  const scope: Scope = new Map();
  const inputs = declarations(p, scope);
  const state = p.accept('state') ? stateDeclarations(p, scope) : [];
  return { name, inputs, state, ...body(p, scope) };
}

type Scope = Map<string, Value>;

function define(p: Cursor, scope: Scope, t: Token, of: TensorType): Value {
  if (scope.has(t.text)) p.error(`${t.text} is defined twice`, t);
  const value: Value = { type: of, name: /^%\d+$/.test(t.text) ? undefined : t.value };
  scope.set(t.text, value);
  return value;
}

function valueName(p: Cursor): Token {
  const t = p.next();
  return t.kind === 'value' ? t : p.fail('a value', t);
}

function use(p: Cursor, scope: Scope): Value {
  const t = valueName(p);
  return scope.get(t.text) ?? p.error(`${t.text} is not defined before its use`, t);
}

const declarations = (p: Cursor, scope: Scope): Value[] =>
  list(p, '(', ')', () => {
    const t = valueName(p);
    p.expect(':');
    return define(p, scope, t, type(p));
  });

const stateDeclarations = (p: Cursor, scope: Scope): State[] =>
  list(p, '(', ')', (): State => {
    const t = valueName(p);
    p.expect(':');
    const of = type(p);
    p.expect('=');
    const at = p.peek();
    const name = string(p);
    const value = define(p, scope, t, of);
    if (p.accept('zero')) return { value, name, init: 'zero' };
    const init = p.peek().text === '(' ? literal(p, of) : p.tensor(name, of);
    return { value, name, init: init ?? p.error(`there is no tensor ${JSON.stringify(name)} beside the text`, at) };
  });

/** `{ ops... return outputs }` */
function body(p: Cursor, scope: Scope): Pick<Graph, 'ops' | 'outputs' | 'updates'> {
  p.expect('{');
  const ops: Op[] = [];
  while (p.peek().text !== 'return') ops.push(op(p, scope));
  p.next();
  const outputs: { name: string; value: Value }[] = [];
  let updates: { state: Value; value: Value }[] = [];
  if (p.peek().text !== '}') {
    do {
      if (p.accept('state')) {
        updates = list(p, '(', ')', () => {
          const state = use(p, scope);
          p.expect('=');
          return { state, value: use(p, scope) };
        });
      } else {
        const name = p.peek().kind === 'string' ? string(p) : '';
        if (name !== '') p.expect('=');
        outputs.push({ name, value: use(p, scope) });
      }
    } while (p.accept(','));
  }
  p.expect('}');
  return { ops, outputs, updates };
}

function op(p: Cursor, scope: Scope): Op {
  const results: Token[] = [];
  if (p.peek().kind === 'value') {
    do results.push(valueName(p));
    while (p.accept(','));
    p.expect('=');
  }
  const at = p.next();
  const def = opTable.get(at.text);
  if (at.kind !== 'word' || !def) p.error(`there is no op ${at.text === '' ? 'here' : at.text}`, at);
  const operands: Value[] = [];
  if (p.peek().kind === 'value') {
    do operands.push(use(p, scope));
    while (p.accept(','));
  }
  const attrs = attributes(p, at, def.attrs);
  const regions: Graph[] = [];
  while (p.peek().text === '(' || p.peek().kind === 'graph') regions.push(region(p));
  p.expect(':');
  const types: TensorType[] = [];
  if (results.length > 0) {
    do types.push(type(p));
    while (p.accept(','));
  }
  if (types.length !== results.length) p.error(`${results.length} results but ${types.length} types`, at);
  const source: string[] = [];
  if (p.accept('// from')) {
    do source.push(string(p));
    while (p.accept(','));
  }
  return { name: at.text, operands, attrs, results: results.map((t, i) => define(p, scope, t, types[i]!)), regions, source };
}

function region(p: Cursor): Graph {
  const name = p.peek().kind === 'graph' ? graphName(p) : '';
  const scope: Scope = new Map();
  const inputs = declarations(p, scope);
  return { name, inputs, state: [], ...body(p, scope) };
}

function attributes(p: Cursor, at: Token, specs: Readonly<Record<string, AttrSpec>>): Attrs {
  const given = new Map<string, Attr>();
  if (p.peek().text === '{') {
    list(p, '{', '}', () => {
      const key = p.next();
      const spec = specs[key.text] ?? p.error(`${at.text} has no attribute ${key.text}`, key);
      p.expect('=');
      given.set(key.text, attribute(p, spec.kind));
    });
  }
  const full: Record<string, Attr> = {};
  for (const [key, spec] of Object.entries(specs)) {
    const value = given.get(key) ?? spec.default;
    if (value === 'required' && !given.has(key)) p.error(`${at.text} needs the attribute ${key}`, at);
    full[key] = value;
  }
  return full;
}

function attribute(p: Cursor, kind: AttrSpec['kind']): Attr {
  switch (kind) {
    case 'number': return number(p);
    case 'bigint': {
      const t = p.next();
      return t.kind === 'bigint' ? BigInt(t.value) : p.fail('an integer that ends in n', t);
    }
    case 'string': return string(p);
    case 'boolean': {
      const t = p.next();
      return t.text === 'true' || t.text === 'false' ? t.text === 'true' : p.fail('true or false', t);
    }
    case 'numbers': return list(p, '[', ']', () => number(p));
    case 'strings': return list(p, '[', ']', () => string(p));
    case 'tensor': {
      const of = type(p);
      const t = p.peek();
      if (t.kind !== 'graph') return literal(p, of);
      p.next();
      return p.tensor(t.value, of) ?? p.error(`there is no tensor ${t.text} beside the text`, t);
    }
  }
}

/** `(1, 2.5)`; `0x..` gives the bits of a small float. */
function literal(p: Cursor, of: TensorType): Tensor {
  const at = p.peek();
  const texts = list(p, '(', ')', () => {
    const t = p.next();
    return t.kind === 'number' ? t.text : p.fail('a number', t);
  });
  if (texts.length !== sizeOf(of.shape)) p.error(`${sizeOf(of.shape)} elements expected, ${texts.length} given`, at);
  const facts = dtypes[of.dtype];
  const data = new facts.array(texts.length);
  const encode = isFloat(of.dtype) && facts.bytes < 4 ? (s: string): number => (s.startsWith('0x') ? Number(s) : encodeFloat(of.dtype, toNumber(s))) : toNumber;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) texts.forEach((s, i) => (data[i] = BigInt(s)));
  else texts.forEach((s, i) => (data[i] = encode(s)));
  return { ...of, data };
}
