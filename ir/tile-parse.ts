/** Parses the text form of tile programs, as `tile-text.ts` prints it. */
import { cursor, list, number, string, type, type Cursor, type TensorSource } from './cursor.ts';
import { graphAt } from './parse.ts';
import type { TileProgramText } from './tile-text.ts';
import type { BufferKind, Comb, Copy, Cut, Division, RegionInParts, Spread, StepCycles, TileBuffer, TileDim, TileMemory, TilePlan, TileStep } from './tiles.ts';

/** The tile program that a text describes. Text that is none is a ParseError, which names the line; that the plan suits its graph is not checked. */
export function parseTileProgram(text: string, tensors: TensorSource = new Map()): TileProgramText {
  const p = cursor(text, tensors);
  const plan = planAt(p);
  const graph = graphAt(p);
  if (p.peek().text !== '') p.fail('the end of the text');
  return { graph, plan };
}

interface Tables { readonly cuts: Map<string, Cut>; readonly spreads: Map<string, Spread> }

function planAt(p: Cursor): TilePlan {
  p.expect('plan');
  const model = string(p);
  p.expect('of');
  const graph = string(p);
  p.expect('{');
  p.expect('target');
  const target = string(p);
  const machine = facts(p, ['tiles', 'bytesPerTile', 'grain', 'samples', 'vertexTypeBytes']);
  const onnx = p.accept('onnx') ? string(p) : undefined;
  const inParts = p.accept('parts') ? partsAt(p) : undefined;
  p.expect('memory');
  const memory: TileMemory = facts(p, ['always', 'code', 'peak', 'peakStep', 'gaps', 'total', 'limit']);
  const notes: string[] = [];
  while (p.accept('note')) notes.push(string(p));
  const tables: Tables = { cuts: new Map(), spreads: new Map() };
  while (p.accept('cut')) tables.cuts.set(word(p), cut(p));
  while (p.accept('spread')) tables.spreads.set(word(p), spread(p, tables));
  const buffers: TileBuffer[] = [];
  while (p.accept('buffer')) buffers.push(buffer(p, tables));
  const steps = body(p, tables);
  return { version: 1, model, graph, target, ...machine, ...(onnx !== undefined && { onnx }), ...(inParts && { inParts }), buffers, steps, memory, notes };
}

function partsAt(p: Cursor): NonNullable<TilePlan['inParts']> {
  p.expect('of');
  const of = string(p);
  const regions: RegionInParts[] = [];
  while (p.accept('region')) regions.push(region(p));
  return { of, regions };
}

function region(p: Cursor): RegionInParts {
  const from = valueAt(p);
  const where = facts(p, ['axis', 'parts', 'first', 'last']);
  p.expect('again');
  const again = oneOf(p, ['none', 'light', 'all'] as const, 'none, light or all');
  return { from, ...where, again, ...(p.accept('bands') && { bands: true }) };
}

function valueAt(p: Cursor): RegionInParts['from'] {
  const kind = oneOf(p, ['op', 'input', 'state'] as const, 'a value (op, input or state)');
  const n = number(p);
  if (kind !== 'op') return kind === 'input' ? { input: n } : { state: n };
  p.expect('result');
  return { op: n, result: number(p) };
}

const kinds: readonly BufferKind[] = ['state', 'constant', 'input', 'output', 'activation', 'gather', 'partial', 'receive'];

function buffer(p: Cursor, tables: Tables): TileBuffer {
  const id = number(p);
  const kind = oneOf(p, kinds, 'a kind of buffer');
  const value = string(p);
  p.expect(':');
  const { dtype, shape } = type(p);
  const of = named(p, tables.spreads, 'a spread');
  const sizes = facts(p, ['width', 'bytes', 'offset', 'birth', 'death']);
  const viewOf = p.accept('view') ? number(p) : undefined;
  return { id, value, source: source(p), kind, dtype, shape, spread: of, ...sizes, ...(viewOf !== undefined && { viewOf }) };
}

/** Steps up to the closing brace. */
function body(p: Cursor, tables: Tables): TileStep[] {
  const steps: TileStep[] = [];
  while (!p.accept('}')) steps.push(step(p, tables));
  return steps;
}

function step(p: Cursor, tables: Tables): TileStep {
  const kind = oneOf(p, ['exchange', 'compute', 'repeat'] as const, 'a step (exchange, compute, repeat) or }');
  const index = number(p);
  if (kind === 'repeat') {
    p.expect('times');
    const times = number(p);
    p.expect('{');
    return { kind, index, times, body: body(p, tables) };
  }
  if (kind === 'exchange') {
    const copies = list(p, '(', ')', (): Copy => {
      const from = number(p);
      p.expect('to');
      const to = number(p);
      return p.accept('merge') ? { from, to, merge: true } : { from, to };
    });
    const { bytes, largest, code, ...cycles } = facts(p, ['compute', 'exchange', 'sync', 'bytes', 'largest', 'code']);
    return { kind, index, copies, bytes, largest, cycles, code };
  }
  const part = oneOf(p, ['whole', 'contribute', 'merge'] as const, 'whole, contribute or merge');
  p.expect('of');
  const op = number(p);
  const name = string(p);
  p.expect('as');
  const root = string(p);
  p.expect('by');
  const vertex = string(p);
  const { code, macs, ...cycles }: StepCycles & { code: number; macs: number } = facts(p, ['compute', 'exchange', 'sync', 'code', 'macs']);
  const from = source(p);
  p.expect('divided');
  const divided = division(p, tables);
  p.expect('reads');
  const reads = access(p, tables);
  p.expect('writes');
  return { kind, index, op, part, name, source: from, root, vertex, division: divided, reads, writes: access(p, tables), cycles, code, macs };
}

const access = (p: Cursor, tables: Tables): { buffer: number; slice: Spread }[] => list(p, '(', ')', () => ({ buffer: number(p), slice: named(p, tables.spreads, 'a spread') }));

function place(p: Cursor): { base: number; dims: TileDim[] } {
  p.expect('at');
  const base = number(p);
  p.expect('over');
  const dims = list(p, '(', ')', (): TileDim => {
    const name = nameOf(p);
    const parts = number(p);
    p.expect('stride');
    const stride = number(p);
    return p.accept('time') ? { name, parts, stride, time: true } : { name, parts, stride };
  });
  return { base, dims };
}

function spread(p: Cursor, tables: Tables): Spread {
  const where = place(p);
  const axes = list(p, '[', ']', () => named(p, tables.cuts, 'a cut'));
  return { ...where, axes, ...(p.accept('flat') && { flat: true as const }) };
}

function division(p: Cursor, tables: Tables): Division {
  const where = place(p);
  const ranges = Object.fromEntries(list(p, '[', ']', () => [nameOf(p), named(p, tables.cuts, 'a cut')] as const));
  return { ...where, ranges, ...(p.accept('flat') && { flat: true as const }) };
}

function cut(p: Cursor): Cut {
  p.expect('by');
  const by = list(p, '[', ']', () => number(p));
  const combs: Comb[] = [];
  do {
    const n = p.peek().kind === 'number' ? number(p) : 1;
    const [base, ...rest] = list(p, '[', ']', () => number(p));
    if (base === undefined || rest.length % 2 !== 0) p.fail('[base, n, step, …]');
    const levels = Array.from({ length: rest.length / 2 }, (_, i) => ({ n: rest[2 * i]!, step: rest[2 * i + 1]! }));
    const apart = n > 1 ? (p.expect('step'), number(p)) : 0;
    for (let i = 0; i < n; i++) combs.push({ base: base + i * apart, levels });
  } while (p.accept(','));
  return { by, combs };
}

/** `{bytes=16, code=0}`, with exactly these keys, in this order. */
function facts<K extends string>(p: Cursor, keys: readonly K[]): Record<K, number> {
  const found: Partial<Record<K, number>> = {};
  p.expect('{');
  keys.forEach((key, i) => {
    if (i > 0) p.expect(',');
    p.expect(key);
    p.expect('=');
    found[key] = number(p);
  });
  p.expect('}');
  return found as Record<K, number>;
}

function source(p: Cursor): string[] {
  const names: string[] = [];
  if (p.accept('// from')) {
    do names.push(string(p));
    while (p.accept(','));
  }
  return names;
}

function word(p: Cursor): string {
  const t = p.next();
  return t.kind === 'word' ? t.text : p.fail('a name', t);
}

const nameOf = (p: Cursor): string => (p.peek().kind === 'string' ? string(p) : word(p));

function oneOf<K extends string>(p: Cursor, known: readonly K[], what: string): K {
  const t = p.next();
  return known.find((k) => k === t.text && t.kind === 'word') ?? p.fail(what, t);
}

function named<T>(p: Cursor, known: ReadonlyMap<string, T>, what: string): T {
  const t = p.next();
  return known.get(t.text) ?? p.fail(`${what} that is listed above`, t);
}
