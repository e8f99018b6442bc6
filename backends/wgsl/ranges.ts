/** Which values 64-bit integers can have: WGSL holds them in 32 bits, where that is proved to lose nothing. */
import { Unsupported } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { intRange } from '../../ir/number.ts';
import { flag, num, nums, str, tensorAttr } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import { dtypes, isInteger, sizeOf, type DType, type Tensor } from '../../ir/type.ts';

/** Smallest and largest value, as doubles: bounds beyond 2^53 are rounded outwards by much less than they exceed what is asked of them. */
interface Range { readonly lo: number; readonly hi: number }

/** Bits that 64-bit integers of inputs, and of state before a step (counters), are assumed to have, in the order in which they are tried. */
const assumptions = [32, 31, 24, 16, 8];

/**
 * Proves that every 64-bit integer of these graphs fits 32 bits, if those that come in as inputs have at most some bits, and gives the bounds for inputs. The runtime checks inputs against
 * these, and f32 inputs that are named in `floats`: what is cast from them has to fit, too. Unsupported, with the op and its nodes, where no bound is enough. `rounds`: how often a loop runs at most whose number of rounds is known at run time only; Infinity where nothing bounds it.
 */
export function inputBounds(graphs: readonly Graph[]): InputBounds {
  const named = graphs.flatMap((g) => g.inputs.filter((v) => v.type.dtype === 'f32' && v.name !== undefined).map((v) => v.name!));
  // One input with positions or classes as floats is what models have.
  const candidates = [[], ...named.map((n) => [n])];
  let refusal: unknown;
  for (const floats of candidates) {
    for (const bits of assumptions) {
      try {
        const proof = new Proof(bits, new Set(floats));
        // Entries may share a graph.
        for (const g of new Set(graphs)) proof.graph(g, undefined);
        return { lo: -(2 ** (bits - 1)), hi: 2 ** (bits - 1) - 1, floats, rounds: proof.rounds };
      } catch (e) {
        if (!(e instanceof Unsupported)) throw e;
        refusal ??= e;
      }
    }
  }
  throw refusal;
}

/** What inputs have to keep to. */
export interface InputBounds { readonly lo: number; readonly hi: number; readonly floats: readonly string[]; readonly rounds: ReadonlyMap<Op, number> }

/** Rounds of a loop that are followed one by one. */
const mostRounds = 1024;
/** Ops of floats whose ranges are followed: those that choose or move. */
const followed: ReadonlySet<string> = new Set(['constant', 'cast', 'select', 'min', 'max', 'clamp', 'relu', 'concat', 'pad', 'fused', 'if', 'loop', 'reduceMax', 'reduceMin', 'maxPool', 'topK']);

const isBig = (d: DType): boolean => d === 'i64' || d === 'u64';

function typeRange(d: DType): Range {
  if (d === 'bool') return { lo: 0, hi: 1 };
  if (!isInteger(d)) return { lo: -Infinity, hi: Infinity };
  const { lo, hi } = intRange(d);
  return { lo: Number(lo), hi: Number(hi) };
}

const of = (...xs: readonly number[]): Range => ({ lo: Math.min(...xs), hi: Math.max(...xs) });
const union = (...rs: readonly Range[]): Range => of(...rs.flatMap((r) => [r.lo, r.hi]));

class Proof {
  readonly #bits: number;
  readonly #floats: ReadonlySet<string>;
  readonly rounds = new Map<Op, number>();
  readonly #ranges = new Map<Value, Range>();
  /** Constants that only say how long a loop runs at most: one that is too long is refused as such. */
  readonly #limits = new Set<Value>();
  constructor(bits: number, floats: ReadonlySet<string>) {
    this.#bits = bits;
    this.#floats = floats;
  }

  /** Ranges of the outputs. `given`: of a region's inputs. */
  graph(graph: Graph, given: readonly Range[] | undefined): Range[] {
    graph.inputs.forEach((v, i) => this.#set(v, given?.[i] ?? (this.#floats.has(v.name ?? '') ? this.#input('i64') : this.#input(v.type.dtype))));
    const updated = new Set(graph.updates.map((u) => u.state));
    for (const s of graph.state) this.#set(s.value, updated.has(s.value) || s.init === 'zero' ? this.#input(s.value.type.dtype) : contents(s.init));
    for (const op of graph.ops) if (op.name === 'loop' && num(op.attrs, 'trips') < 0) this.#limits.add(op.operands[0]!);
    for (const op of graph.ops) this.#op(op);
    return graph.outputs.map((o) => this.#of(o.value));
  }

  #input(d: DType): Range {
    if (!isBig(d)) return typeRange(d);
    return d === 'i64' ? { lo: -(2 ** (this.#bits - 1)), hi: 2 ** (this.#bits - 1) - 1 } : { lo: 0, hi: 2 ** (this.#bits - 1) - 1 };
  }

  #set(v: Value, range: Range): void {
    this.#ranges.set(v, range);
  }

  #of(v: Value): Range {
    return this.#ranges.get(v) ?? typeRange(v.type.dtype);
  }

  #op(op: Op): void {
    const results = this.#results(op);
    op.results.forEach((r, i) => {
      const d = r.type.dtype;
      const whole = typeRange(d);
      const known = isInteger(d) || d === 'bool' || followed.has(op.name) || ['move', 'index'].includes(opDef(op.name).family);
      const found = (known ? results[i] : undefined) ?? whole;
      // Narrower integers wrap.
      const range = isInteger(d) && !isBig(d) && (found.lo < whole.lo || found.hi > whole.hi) ? whole : found;
      if (isBig(d) && !(op.name === 'constant' && this.#limits.has(r))) {
        const held = typeRange(d === 'i64' ? 'i32' : 'u32');
        if (!(range.lo >= held.lo && range.hi <= held.hi)) {
          const from = op.source.length > 0 ? ` of ${op.source.join(', ')}` : '';
          throw new Unsupported('64-bit integers on WebGPU', `the ${d} result of ${op.name}${from} may be ${range.lo} to ${range.hi}: WGSL has no 64-bit integers, and these are not proved to fit ${held.lo} to ${held.hi}; compile the model for wasm`);
        }
      }
      this.#set(r, range);
    });
  }

  /** Ranges of results; undefined where nothing is known but the type. */
  #results(op: Op): readonly (Range | undefined)[] {
    const args = op.operands.map((v) => this.#of(v));
    const [x, y] = args;
    switch (op.name) {
      case 'constant': return [contents(tensorAttr(op.attrs, 'value'))];
      case 'fused': return this.graph({ ...op.regions[0]! }, args);
      case 'if': {
        const [a, b] = op.regions.map((r) => this.graph(r, args.slice(1)));
        return a!.map((r, i) => union(r, b![i]!));
      }
      case 'loop': return this.#loop(op, args);
      case 'iota': return [{ lo: 0, hi: Math.max(0, op.results[0]!.type.shape[num(op.attrs, 'axis')]! - 1) }];
      case 'argMax': case 'argMin': return [{ lo: 0, hi: op.operands[0]!.type.shape[num(op.attrs, 'axis')]! - 1 }];
      case 'topK': return [x, { lo: 0, hi: Math.max(0, op.operands[0]!.type.shape[num(op.attrs, 'axis')]! - 1) }];
      case 'neg': return [{ lo: -x!.hi, hi: -x!.lo }];
      case 'abs': return [x!.lo >= 0 ? x : { lo: 0, hi: Math.max(-x!.lo, x!.hi) }];
      case 'sign': return [{ lo: -1, hi: 1 }];
      case 'relu': return [{ lo: Math.max(0, x!.lo), hi: Math.max(0, x!.hi) }];
      case 'bitNot': return [{ lo: -x!.hi - 1, hi: -x!.lo - 1 }];
      case 'add': return [{ lo: x!.lo + y!.lo, hi: x!.hi + y!.hi }];
      case 'sub': return [{ lo: x!.lo - y!.hi, hi: x!.hi - y!.lo }];
      case 'mul': return [of(x!.lo * y!.lo, x!.lo * y!.hi, x!.hi * y!.lo, x!.hi * y!.hi)];
      case 'div': { const most = Math.max(-x!.lo, x!.hi); return [{ lo: x!.lo >= 0 && y!.lo >= 0 ? 0 : -most, hi: most }]; }
      case 'mod': { const most = Math.max(-y!.lo, y!.hi); return [{ lo: y!.lo >= 0 ? 0 : -most, hi: most }]; }
      case 'fmod': return [{ lo: Math.min(0, x!.lo), hi: Math.max(0, x!.hi) }];
      case 'pow': return [y!.lo >= 0 ? power(x!, y!) : undefined];
      case 'min': return [{ lo: Math.min(x!.lo, y!.lo), hi: Math.min(x!.hi, y!.hi) }];
      case 'max': return [{ lo: Math.max(x!.lo, y!.lo), hi: Math.max(x!.hi, y!.hi) }];
      case 'clamp': return [{ lo: Math.min(Math.max(x!.lo, y!.lo), args[2]!.hi), hi: Math.max(Math.min(x!.hi, args[2]!.hi), y!.lo) }];
      case 'select': return [union(y!, args[2]!)];
      case 'bitAnd': return [x!.lo >= 0 || y!.lo >= 0 ? { lo: 0, hi: x!.lo >= 0 && y!.lo >= 0 ? Math.min(x!.hi, y!.hi) : x!.lo >= 0 ? x!.hi : y!.hi } : { lo: bits(x!, y!).lo, hi: bits(x!, y!).hi }];
      case 'bitOr': case 'bitXor': return [bits(x!, y!)];
      case 'shr': return [x!.lo >= 0 ? { lo: 0, hi: x!.hi } : { lo: x!.lo, hi: Math.max(0, x!.hi) }];
      case 'shl': return [y!.hi < 32 && y!.lo >= 0 ? of(x!.lo * 2 ** y!.hi, x!.hi * 2 ** y!.hi, x!.lo, x!.hi) : undefined];
      case 'cast': {
        const to = typeRange(op.results[0]!.type.dtype);
        if (flag(op.attrs, 'saturate')) return [of(Math.min(Math.max(x!.lo, to.lo), to.hi), Math.min(Math.max(x!.hi, to.lo), to.hi))];
        return [x!.lo >= to.lo && x!.hi <= to.hi ? { lo: Math.trunc(x!.lo), hi: Math.trunc(x!.hi) } : undefined];
      }
      case 'pad': { const value = num(op.attrs, 'value'); return [str(op.attrs, 'mode') === 'constant' ? union(x!, { lo: value, hi: value }) : x]; }
      case 'concat': return [union(...args)];
      case 'dynamicUpdate': return [union(x!, y!)];
      case 'scatterElements': case 'scatterNd': return [scattered(op, x!, args[2]!)];
      case 'reduceSum': return [times(x!, nums(op.attrs, 'axes').reduce((n, a) => n * op.operands[0]!.type.shape[a]!, 1))];
      case 'cumSum': return [union(times(x!, op.operands[0]!.type.shape[num(op.attrs, 'axis')]!), { lo: 0, hi: 0 })];
      case 'reduceMax': case 'reduceMin': return [sizeOf(op.operands[0]!.type.shape) === 0 ? undefined : x];
      case 'sumPool': return [union(times(x!, nums(op.attrs, 'kernel').reduce((n, k) => n * k, 1)), { lo: 0, hi: 0 })];
      case 'maxPool': return [x, { lo: 0, hi: Math.max(0, nums(op.attrs, 'kernel').reduce((n, k) => n * k, 1) - 1) }];
      case 'contract': return [products(op, x!, y!)];
      case 'conv': return [union(times(product(x!, y!), op.operands[1]!.type.shape.slice(1).reduce((n, d) => n * d, 1)), { lo: 0, hi: 0 })];
      default: {
        const { family } = opDef(op.name);
        return family === 'move' || family === 'index' || family === 'resample' ? [x] : [];
      }
    }
  }

  /** Runs a loop on ranges, round by round, as long as they change and no longer than it does. Where nobody knows how long, what is carried may be all that its type holds. */
  #loop(op: Op, args: readonly Range[]): readonly (Range | undefined)[] {
    const carried = num(op.attrs, 'carried');
    const [limit] = args;
    if (num(op.attrs, 'trips') < 0) this.rounds.set(op, Math.max(this.rounds.get(op) ?? 0, limit!.hi));
    const trips = num(op.attrs, 'trips') >= 0 ? num(op.attrs, 'trips') : limit!.hi < 2 ** 24 ? Math.max(0, limit!.hi) : -1;
    const index = { lo: 0, hi: trips >= 0 ? trips : 2 ** 31 - 1 };
    const body = (state: readonly Range[]): Range[] => this.graph(op.regions[0]!, [index, ...state, ...args.slice(2 + carried)]).slice(1);
    let state: readonly Range[] = args.slice(2, 2 + carried);
    let results: readonly Range[] = [];
    for (let round = 0; round < (trips >= 0 ? Math.min(trips, mostRounds) : 2); round++) {
      const outs = body(state);
      results = outs.map((r, i) => (i < carried ? union(r, state[i]!) : results[i] ? union(r, results[i]) : r));
      const next = state.map((s, i) => union(s, outs[i]!));
      if (next.every((r, i) => r.lo === state[i]!.lo && r.hi === state[i]!.hi)) return results;
      state = next;
    }
    if (trips >= 0 && trips <= mostRounds) return results.length > 0 ? results : [...state];
    return body(op.regions[0]!.inputs.slice(1, 1 + carried).map((v) => typeRange(v.type.dtype)));
  }
}

const times = (r: Range, n: number): Range => of(r.lo * n, r.hi * n);
const product = (x: Range, y: Range): Range => of(x.lo * y.lo, x.lo * y.hi, x.hi * y.lo, x.hi * y.hi);

function products(op: Op, x: Range, y: Range): Range {
  const [, a, b, r] = /^(\w*),(\w*)->(\w*)$/.exec(str(op.attrs, 'spec')) as unknown as [string, string, string, string];
  const sizes = new Map([...[...a].map((l, i) => [l, op.operands[0]!.type.shape[i]!] as const), ...[...b].map((l, i) => [l, op.operands[1]!.type.shape[i]!] as const)]);
  const terms = [...sizes].reduce((n, [l, d]) => (r.includes(l) ? n : n * d), 1);
  return times(product(x, y), terms);
}

/** Results of bitwise ops need no more bits than their operands. */
function bits(x: Range, y: Range): Range {
  const most = Math.max(x.hi, y.hi, -x.lo - 1, -y.lo - 1, 0);
  const hi = 2 ** Math.ceil(Math.log2(most + 1)) - 1;
  return { lo: x.lo < 0 || y.lo < 0 ? -hi - 1 : 0, hi };
}

function power(x: Range, y: Range): Range {
  const most = Math.max(Math.abs(x.lo), Math.abs(x.hi)) ** y.hi;
  return { lo: x.lo >= 0 ? 0 : -most, hi: Math.max(1, most) };
}

function scattered(op: Op, x: Range, updates: Range): Range | undefined {
  const count = sizeOf(op.operands[2]!.type.shape);
  switch (str(op.attrs, 'reduction')) {
    case 'add': return { lo: x.lo + Math.min(0, updates.lo * count), hi: x.hi + Math.max(0, updates.hi * count) };
    case 'mul': return undefined;
    default: return union(x, updates);
  }
}

function contents(t: Tensor): Range {
  if (!isInteger(t.dtype)) return dtypes[t.dtype].kind === 'bool' ? { lo: 0, hi: 1 } : floats(t);
  let lo = Infinity;
  let hi = -Infinity;
  for (const x of t.data) {
    lo = Math.min(lo, Number(x));
    hi = Math.max(hi, Number(x));
  }
  return t.data.length === 0 ? { lo: 0, hi: 0 } : { lo, hi };
}

/** Of f32 constants of a few elements, which are often scales or limits that are cast later. */
function floats(t: Tensor): Range {
  if (t.dtype !== 'f32' || t.data.length > 16 || t.data.length === 0) return { lo: -Infinity, hi: Infinity };
  const xs = Array.from(t.data as Float32Array);
  return xs.some(Number.isNaN) ? { lo: -Infinity, hi: Infinity } : of(...xs);
}
