/** Splits the text form of graphs into tokens. */

export interface Token {
  readonly kind: 'word' | 'number' | 'bigint' | 'string' | 'value' | 'graph' | 'mark' | 'end';
  /** As it stands in the text; empty at the end. */
  readonly text: string;
  /** What it denotes: a string without its quotes, the name of a value without % and #suffix. */
  readonly value: string;
  /** From 1. */
  readonly line: number;
}

const quoted = String.raw`"(?:[^"\\]|\\.)*"`;
const token = new RegExp(
  [
    String.raw`(?<skip>[ \t\r]+|//(?! from ")[^\n]*)`,
    String.raw`(?<newline>\n)`,
    String.raw`(?<from>// from(?= "))`,
    `(?<string>${quoted})`,
    String.raw`(?<bigint>-?\d+n)`,
    String.raw`(?<number>0x[0-9a-f]+|-?(?:inf\b|nan\b|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.]))`,
    String.raw`(?<value>%(?:${quoted}|[\w./-]+)(?:#\d+)?)`,
    `(?<graph>@(?:${quoted}|[\\w./-]+))`,
    String.raw`(?<word>[A-Za-z_]\w*)`,
    String.raw`(?<mark>[()[\]{},:=])`,
  ].join('|'),
  'gy',
);

/** The tokens of a text, ending with one of kind `end`. `bad` is called, and must throw, where no token fits. Comments vanish but for `// from`. */
export function lex(text: string, bad: (line: number, found: string) => never): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  token.lastIndex = 0;
  for (let at = 0; at < text.length; at = token.lastIndex) {
    const groups = token.exec(text)?.groups;
    if (!groups) return bad(line, text.slice(at, at + 12).split('\n')[0]!);
    const [kind, s] = Object.entries(groups).find(([, v]) => v !== undefined)!;
    if (kind === 'newline') line++;
    else if (kind !== 'skip') tokens.push({ kind: kind === 'from' ? 'mark' : (kind as Token['kind']), text: s, value: denoted(kind, s), line });
  }
  tokens.push({ kind: 'end', text: '', value: '', line });
  return tokens;
}

function denoted(kind: string, s: string): string {
  const unquote = (q: string): string => (q.startsWith('"') ? (JSON.parse(q) as string) : q);
  if (kind === 'string') return unquote(s);
  if (kind === 'bigint') return s.slice(0, -1);
  if (kind === 'value') return unquote(s.slice(1).replace(/#\d+$/, ''));
  return kind === 'graph' ? unquote(s.slice(1)) : s;
}
