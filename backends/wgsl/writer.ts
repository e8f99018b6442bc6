/** Writes the body of a WGSL function: lines, blocks, names that are told apart, and the library functions that it calls. */
import type { Register } from './types.ts';

export class Writer {
  /** Names of library functions that the shader calls. */
  readonly used = new Set<string>();
  /** Tables of constants and variables of the workgroup, declared before the function. */
  readonly declarations: string[] = [];
  #lines: string[] = [];
  readonly #taken = new Set<string>();
  #depth = 1;
  /** Whether f16 is computed as such. */
  readonly halves: boolean;

  constructor(halves = false) {
    this.halves = halves;
  }

  line(text: string): void {
    this.#lines.push(`${'  '.repeat(this.#depth)}${text}`);
  }

  /** `head {`, what `body` writes, `}`. */
  block(head: string, body: () => void): void {
    this.line(`${head} {`);
    this.#depth++;
    body();
    this.#depth--;
    this.line('}');
  }

  /** A name that nothing else has, like `hint`. */
  name(hint: string): string {
    for (let i = 0; ; i++) {
      const name = i === 0 ? hint : `${hint}${i}`;
      if (this.#taken.has(name)) continue;
      this.#taken.add(name);
      return name;
    }
  }

  /** Binds an expression to a name; names and literals stay as they are. */
  let(hint: string, expression: string): string {
    if (/^-?[\w.]+$/.test(expression)) return expression;
    const name = this.name(hint);
    this.line(`let ${name} = ${expression};`);
    return name;
  }

  variable(hint: string, type: Register | `vec4<${'f32' | 'i32' | 'u32'}>`, start: string): string {
    const name = this.name(hint);
    this.line(`var ${name}: ${type} = ${start};`);
    return name;
  }

  /** A loop over 0..count-1; `body` gets the counter. */
  loop(hint: string, count: number | string, body: (i: string) => void): void {
    if (count === 1) {
      body('0');
      return;
    }
    const i = this.name(hint);
    this.block(`for (var ${i} = 0; ${i} < ${count}; ${i}++)`, () => body(i));
  }

  /** A call of a library function (library.ts). */
  call(name: string, ...args: readonly string[]): string {
    this.used.add(name);
    return `${name}(${args.join(', ')})`;
  }

  /** What `write` writes, as the body of a function of its own. */
  capture(write: () => void): string {
    const [lines, depth] = [this.#lines, this.#depth];
    this.#lines = [];
    this.#depth = 1;
    write();
    const text = this.text();
    this.#lines = lines;
    this.#depth = depth;
    return text;
  }

  text(): string {
    return this.#lines.join('\n');
  }
}

const literal = /^-?\d+$/;
/** Whether all parentheses that a text opens are closed in it. */
const balanced = (text: string): boolean => [...text].reduce((depth, c) => depth + (c === '(' || c === '[' ? 1 : c === ')' || c === ']' ? -1 : 0), 0) === 0;

/** Sums and products of i32 expressions, with numbers folded. */
export function plus(a: string, b: string | number): string {
  const y = String(b);
  if (a === '0') return y;
  if (y === '0') return a;
  if (literal.test(a) && literal.test(y)) return String(Number(a) + Number(y));
  const [, head, sign, last] = (literal.test(y) && /^(.*[\w)]) ([+-]) (\d+)$/.exec(a)) || [];
  if (head !== undefined && balanced(head)) return plus(head, (sign === '-' ? -1 : 1) * Number(last) + Number(y));
  return y.startsWith('-') && literal.test(y) ? `${a} - ${y.slice(1)}` : `${a} + ${y}`;
}
export function times(a: string, n: number): string {
  if (a === '0' || n === 0) return '0';
  if (n === 1) return a;
  if (literal.test(a)) return String(Number(a) * n);
  return /^[\w.]+$/.test(a) ? `${a} * ${n}` : `(${a}) * ${n}`;
}

/** Σ index · stride + offset. */
export const address = (index: readonly string[], strides: readonly number[], offset = 0): string =>
  plus(index.reduce((sum, i, axis) => plus(sum, times(i, strides[axis]!)), '0'), offset);
