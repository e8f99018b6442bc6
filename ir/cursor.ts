/** Reads the text form of graphs and tile programs token by token. */
import { UserError } from './diagnostic.ts';
import { lex, type Token } from './lex.ts';
import { dtypes, type DType, type Tensor, type TensorType } from './type.ts';

/** Text that is not a graph: the message names the line, what was found and what was expected. */
export class ParseError extends UserError {
  readonly line: number;
  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.line = line;
  }
}

/** Where the tensors that a text refers to by name come from: a table, or a function that makes one of the type declared. */
export type TensorSource = ReadonlyMap<string, Tensor> | ((name: string, type: TensorType) => Tensor | undefined);

/** A place in a text. What is not as expected throws ParseError. */
export interface Cursor {
  peek(): Token;
  next(): Token;
  accept(text: string): boolean;
  expect(text: string): Token;
  fail(expected: string, at?: Token): never;
  error(message: string, at: Token): never;
  tensor(name: string, type: TensorType): Tensor | undefined;
}

/** The start of a text. */
export function cursor(text: string, tensors: TensorSource): Cursor {
  const tokens = lex(text, (line, found) => { throw new ParseError(line, `unexpected ${JSON.stringify(found)}`); });
  let at = 0;
  const peek = (): Token => tokens[at]!;
  const error = (message: string, t: Token): never => { throw new ParseError(t.line, message); };
  const fail = (expected: string, t = peek()): never => error(`expected ${expected}, found ${t.text === '' ? 'the end of the text' : t.text}`, t);
  const next = (): Token => (peek().kind === 'end' ? peek() : tokens[at++]!);
  const accept = (s: string): boolean => peek().text === s && peek().kind !== 'string' && (at++, true);
  const expect = (s: string): Token => (peek().text === s && peek().kind !== 'string' ? next() : fail(`'${s}'`));
  const tensor = (name: string, type: TensorType): Tensor | undefined => (typeof tensors === 'function' ? tensors(name, type) : tensors.get(name));
  return { peek, next, accept, expect, fail, error, tensor };
}

/** Items between two marks, separated by commas. */
export function list<T>(p: Cursor, open: string, close: string, item: () => T): T[] {
  p.expect(open);
  const items: T[] = [];
  if (p.accept(close)) return items;
  do items.push(item());
  while (p.accept(','));
  p.expect(close);
  return items;
}

/** `@main` */
export function graphName(p: Cursor): string {
  const t = p.next();
  if (t.kind !== 'graph') p.fail('a name that starts with @', t);
  return t.value;
}

/** `"text"` */
export function string(p: Cursor): string {
  const t = p.next();
  if (t.kind !== 'string') p.fail('a string', t);
  return t.value;
}

/** `f32[8,64]` */
export function type(p: Cursor): TensorType {
  const t = p.next();
  if (t.kind !== 'word' || !(t.text in dtypes)) p.fail('a type', t);
  const shape = list(p, '[', ']', () => number(p));
  return { dtype: t.text as DType, shape };
}

/** A number. */
export function number(p: Cursor): number {
  const t = p.next();
  if (t.kind !== 'number') p.fail('a number', t);
  return toNumber(t.text);
}

/** `inf` and `nan` are numbers too. */
export const toNumber = (s: string): number => (s === 'inf' ? Infinity : s === '-inf' ? -Infinity : s === 'nan' ? NaN : Number(s));
