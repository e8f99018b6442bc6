/** Which ranges of GPU buffers a kernel binds for its tensors, and how it reads and writes their elements. */
import { sizeOf } from '../../ir/type.ts';
import type { Site } from './machine.ts';
import { alignment, type Piece } from './memory.ts';
import { bytesOfWord, type Word } from './types.ts';
import type { Located } from './kernel.ts';

/** A range of addresses, bound whole or in pages. `word`: what its bytes are bound as; `atomic` are u32 that invocations share where they write halves of words. */
export interface Range {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  readonly word: Word | 'atomic';
  readonly pages: readonly Page[];
}

/** One storage buffer of a shader. `first`: its first element, counted from the start of its range in words of the range. */
export interface Page extends Piece { readonly name: string; readonly writable: boolean; readonly first: number }

/** The elements of its buffer that a tensor lies in, from its first to behind its last: of a view less than its buffer has. */
export function elementsOf(x: Located): readonly [from: number, to: number] {
  if (x.window) return [x.window.from, x.window.to];
  let [lo, hi] = [x.offset, x.offset + 1];
  x.type.shape.forEach((d, axis) => {
    const reach = (d - 1) * x.strides[axis]!;
    if (reach > 0) hi += reach;
    else lo += reach;
  });
  return [lo, hi];
}

/** Bytes that these elements lie in, as bindings start and end. */
function extent(x: Located): readonly [from: number, to: number] {
  const width = bytesOfWord(x.word);
  const [lo, hi] = elementsOf(x);
  return [Math.floor((x.address + lo * width) / alignment) * alignment, Math.ceil((x.address + hi * width) / alignment) * alignment];
}

interface Member { readonly name: string; readonly from: number; readonly to: number; readonly words: readonly Word[]; readonly writes: readonly Word[] }

const joined = (a: Member, b: Member): Member => ({ name: a.name, from: Math.min(a.from, b.from), to: Math.max(a.to, b.to), words: [...a.words, ...b.words], writes: [...a.writes, ...b.writes] });

/**
 * The ranges of a kernel's tensors: one each, one for those that overlap; where that would be more bindings than a shader has, ranges of one GPU buffer are joined that lie nearest. What holds tensors
 * of several kinds of words is bound as bits. Their pages may still be too many.
 */
export function rangesOf(operands: readonly Located[], results: readonly Located[], { machine, memory }: Site): Range[] {
  let members: Member[] = [...operands.map((x, i) => ({ x, name: `x${i}`, writes: [] as Word[] })), ...results.map((x, i) => ({ x, name: `y${i}`, writes: [x.word] }))]
    .filter(({ x }) => sizeOf(x.type.shape) > 0)
    .map(({ x, name, writes }) => {
      const [from, to] = extent(x);
      return { name, from, to, words: [x.word], writes };
    });
  for (let again = true; again;) {
    again = false;
    for (const [i, a] of members.entries()) {
      const at = members.findIndex((b, k) => k > i && a.from < b.to && b.from < a.to);
      if (at < 0) continue;
      members = members.flatMap((m, k) => (k === i ? [joined(a, members[at]!)] : k === at ? [] : [m]));
      again = true;
      break;
    }
  }
  const pagesOf = (m: Pick<Member, 'from' | 'to'>): number => memory.cut(m.from, m.to, machine.bindingBytes).length;
  const count = (): number => members.reduce((n, m) => n + pagesOf(m), 0);
  while (count() > machine.bindings) {
    const order = [...members].sort((p, q) => p.from - q.from);
    let best: { readonly a: Member; readonly b: Member; readonly gap: number } | undefined;
    order.slice(1).forEach((b, i) => {
      const a = order[i]!;
      const gap = b.from - a.to;
      if (memory.segmentAt(a.from) === memory.segmentAt(b.from) && pagesOf({ from: a.from, to: b.to }) < pagesOf(a) + pagesOf(b) && (!best || gap < best.gap)) best = { a, b, gap };
    });
    if (!best) break;
    const { a, b } = best;
    members = members.flatMap((m) => (m === a ? [joined(a, b)] : m === b ? [] : [m]));
  }
  const written = new Set(members.flatMap((m) => (m.writes.length > 0 ? memory.cut(m.from, m.to, machine.bindingBytes).map((p) => p.segment) : [])));
  return members.map((m): Range => {
    const [word] = m.words;
    const single = m.words.every((x) => x === word);
    const kind = single ? word! : m.writes.includes('f16') ? 'atomic' : 'u32';
    const pieces = memory.cut(m.from, m.to, machine.bindingBytes);
    let first = 0;
    const pages = pieces.map((p, i): Page => {
      const page = { ...p, name: pieces.length === 1 ? m.name : `${m.name}_page${i}`, writable: written.has(p.segment), first };
      first += p.bytes / bytesOfWord(kind);
      return page;
    });
    // Atomic reads need write access.
    return { name: m.name, from: m.from, to: m.to, word: kind, pages: kind === 'atomic' ? pages.map((p) => ({ ...p, writable: true })) : pages };
  });
}

/** Bindings that ranges take, and whether one of them lies in several. */
export function bindingsOf(ranges: readonly Range[]): { readonly count: number; readonly paged: boolean } {
  return { count: ranges.reduce((n, r) => n + r.pages.length, 0), paged: ranges.some((r) => r.pages.length > 1) };
}

/** Whether elements of a range are reached through functions of its own: its pages, and atomic words. */
const hasFunctions = (r: Range): boolean => r.pages.length > 1 || r.word === 'atomic';

/** The declarations of a range: its storage buffers, counted from `first`, and the functions that find the page of an element. */
export function rangeText(range: Range, first: number): string[] {
  const atomic = range.word === 'atomic';
  const type = atomic ? 'u32' : range.word;
  const buffers = range.pages.map((p, i) => `@group(0) @binding(${first + i}) var<storage, ${p.writable ? 'read_write' : 'read'}> ${p.name}: array<${atomic ? 'atomic<u32>' : type}>;`);
  if (!hasFunctions(range)) return buffers;
  const onPages = (text: (place: string) => string): string =>
    range.pages.map((p, i) => {
      const line = text(`${p.name}[${p.first === 0 ? 'i' : `i - ${p.first}`}]`);
      return i === range.pages.length - 1 ? `  ${line}` : `  if (i < ${range.pages[i + 1]!.first}) { ${line} }`;
    }).join('\n');
  const read = `fn ${range.name}_at(i: i32) -> ${type} {\n${onPages((place) => `return ${atomic ? `atomicLoad(&${place})` : place};`)}\n}`;
  if (!range.pages.every((p) => p.writable)) return [...buffers, read];
  const write = `fn ${range.name}_put(i: i32, value: ${type}) {\n${onPages((place) => `${atomic ? `atomicStore(&${place}, value)` : `${place} = value`}; return;`)}\n}`;
  if (!atomic) return [...buffers, read, write];
  // The other half of a word is another invocation's.
  const half = `fn ${range.name}_put_half(half: i32, value: f32) {
  let i = half >> 1u;
  let shift = (u32(half) & 1u) * 16u;
  let bits = (pack2x16float(vec2<f32>(value, 0.0)) & 0xffffu) << shift;
${onPages((place) => `atomicAnd(&${place}, ~(0xffffu << shift)); atomicOr(&${place}, bits); return;`)}
}`;
  return [...buffers, read, write, half];
}

const converted = (text: string, from: Word, to: Word): string => (from === to ? text : `bitcast<${to}>(${text})`);

/** An expression for an element of some kind of word; `at`: in such words from the start of the range. f16 arrives as f32. */
export function wordAt(range: Range, word: Word, at: string): string {
  const read = (i: string): string => (hasFunctions(range) ? `${range.name}_at(${i})` : `${range.name}[${i}]`);
  if (word !== 'f16') return converted(read(at), range.word === word ? word : 'u32', word);
  return range.word === 'f16' ? `f32(${read(at)})` : `unpack2x16float(${read(`(${at}) >> 1u`)})[(${at}) & 1]`;
}

/** A statement that writes an element; f16 is given as f32. */
export function putWord(range: Range, word: Word, at: string, value: string): string {
  if (word === 'f16' && range.word === 'atomic') return `${range.name}_put_half(${at}, ${value});`;
  const text = word === 'f16' ? `f16(${value})` : converted(value, word, range.word === word ? word : 'u32');
  return hasFunctions(range) ? `${range.name}_put(${at}, ${text});` : `${range.name}[${at}] = ${text};`;
}
