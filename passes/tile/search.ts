/** Ways of cutting one op: all splits at distinct sizes of parts, judged by estimated cycles under a bound on temporary bytes. */
import { sizeOf } from '../../ir/type.ts';
import { estimate, macsOfPart, operandBytes, partialBytes, type Estimate, type Model } from './estimate.ts';
import { dependsOn, type Serial } from './serial.ts';
import { grainInOf, macsOf, vectorOf, type TileTarget } from './target.ts';

/** Parts of each var, by position. */
export interface Split {
  readonly parts: readonly number[];
  readonly sizes: readonly number[];
  readonly estimate: Estimate;
  /** Exchange included, as if no operand were where it is read. */
  readonly cycles: number;
  readonly temporary: number;
  readonly serial?: Serial;
}

/** Options of one var at most. */
const mostOptions = 10;
const moreOptions = 24;

/** Numbers of parts that give distinct largest parts, thinned evenly. */
export function partOptions(size: number, grain: number, most: number, atMost = mostOptions): number[] {
  const units = Math.ceil(size / grain);
  const options: number[] = [];
  let last = Infinity;
  for (let p = 1; p <= Math.min(units, most); p++) {
    const largest = Math.ceil(units / p);
    if (largest < last) options.push(p);
    last = largest;
    // Beyond the root, every largest part has one number of parts.
    if (p * p > units && p < units) {
      for (let l = Math.ceil(units / (p + 1)); l >= 1; l--) {
        const q = Math.ceil(units / l);
        if (q > p && q <= most && Math.ceil(units / q) < last) {
          options.push(q);
          last = Math.ceil(units / q);
        }
      }
      break;
    }
  }
  if (options.length <= atMost) return options;
  const ratio = (options.at(-1)! / options[0]!) ** (1 / (atMost - 1));
  const thin = new Set<number>();
  for (let i = 0, want = options[0]!; i < atMost; i++, want *= ratio) thin.add(options.reduce((a, b) => (Math.abs(Math.log(b / want)) < Math.abs(Math.log(a / want)) ? b : a)));
  return [...thin].sort((a, b) => a - b);
}

/** The best splits of an op over all tiles, the fastest first, whose temporaries stay under `bound` bytes; where there is none, the smallest. `serial`: one of its dims is in serial parts besides. */
export function searchSplits(m: Model, t: TileTarget, bound: number, keep: number, serial?: Serial): Split[] {
  const { walk } = m;
  const vars = walk.vars;
  const { dtype } = walk.op.results[0]!.type;
  const elements = Math.max(...[...walk.op.operands, ...walk.op.results].map((v) => sizeOf(v.type.shape)));
  const heavy = walk.kind === 'contract' || walk.kind === 'window';
  // A light op has a vector for each worker of a tile: with less it would not be faster, and what comes after would collect it from more tiles.
  const tiles = heavy ? t.constants.tiles : Math.min(t.constants.tiles, Math.max(1, Math.ceil(elements / (t.constants.workers * vectorOf(t, dtype)))));
  const grains = vars.map((_, i) => grainOf(m, t, i, dtype));
  const optionsOf = (atMost?: number): PartOption[][] => vars.map((v, i) => partOptions(v.size, grains[i]!, tiles, atMost).map((parts) => ({ parts, size: sizeOfParts(v.size, grains[i]!, parts) })));
  let options = optionsOf();
  const best: Split[] = [];
  let smallest: Split | undefined;
  const parts = vars.map(() => 1);
  const sizes = vars.map((v) => v.size);
  const floor = new Floor(m, t, serial);
  let reach = reachOf(options, tiles);
  let wanted = heavy ? Math.min(tiles, reach[0]!) / 3 : 1;
  /** Whether parts that take no less than this cannot be among the best: too many bytes where others fit, or too many cycles. */
  const isWorse = (bytes: number, cycles: () => number): boolean => {
    if (bytes > bound) return best.length > 0 || (smallest !== undefined && bytes >= smallest.temporary);
    return best.length === keep && cycles() >= best.at(-1)!.cycles;
  };
  const least = [...sizes];
  /** Whether no numbers of parts of the vars from `i` on make a good split of those before. */
  const isHopeless = (i: number, used: number): boolean => {
    for (let j = 0; j < vars.length; j++) least[j] = j < i ? sizes[j]! : smallestOf(options[j]!, tiles / used);
    floor.take(least);
    return isWorse(floor.operands, () => floor.cycles());
  };
  const visit = (i: number, used: number): void => {
    if (i === vars.length) {
      if (used < wanted && walk.kind !== 'single') return;
      floor.take(sizes, parts);
      if (isWorse(floor.temporary, () => floor.cycles(parts))) return;
      const s = judge(m, t, parts, sizes, serial);
      if (s.temporary <= bound) {
        if (best.length === keep && !faster(s, best.at(-1)!)) return;
        best.push(s);
        best.sort((a, b) => (faster(a, b) ? -1 : 1));
        if (best.length > keep) best.pop();
      } else if (!smallest || s.temporary < smallest.temporary) smallest = s;
      return;
    }
    if (i > 0 && isHopeless(i, used)) return;
    for (const o of options[i]!) {
      if (used * o.parts > tiles) break;
      if (used * o.parts * reach[i + 1]! < wanted) continue;
      parts[i] = o.parts;
      sizes[i] = o.size;
      visit(i + 1, used * o.parts);
    }
    parts[i] = 1;
    sizes[i] = vars[i]!.size;
  };
  visit(0, 1);
  if (best.length === 0 && wanted > 1 && !serial) {
    // Nothing fits under the bound: all sizes of parts are looked at, not some of them.
    wanted = 1;
    options = optionsOf(moreOptions);
    reach = reachOf(options, tiles);
    visit(0, 1);
  }
  return best.length > 0 ? best : [smallest ?? wholeSplit(m, t, serial)];
}

/** The size of the largest part of a var that is cut over as many tiles as there are. */
function smallestOf(options: readonly PartOption[], tiles: number): number {
  for (let i = options.length - 1; i > 0; i--) if (options[i]!.parts <= tiles) return options[i]!.size;
  return options[0]!.size;
}

/** A number of parts of a var, and the size of the largest. */
interface PartOption { readonly parts: number; readonly size: number }

const sizeOfParts = (size: number, grain: number, parts: number): number => Math.min(size, Math.ceil(Math.ceil(size / grain) / parts) * grain);

/** An op that is not cut. */
export const wholeSplit = (m: Model, t: TileTarget, serial?: Serial): Split => judge(m, t, m.walk.vars.map(() => 1), m.walk.vars.map((v) => v.size), serial);

/** The most tiles that vars from each position on can take. */
const reachOf = (options: readonly (readonly PartOption[])[], tiles: number): number[] => options.map((o) => o.at(-1)!.parts).reduceRight<number[]>((acc, n) => [Math.min(tiles, n * acc[0]!), ...acc], [1]);

/** By cycles; among equals the one with fewer parts. */
const faster = (a: Split, b: Split): boolean => a.cycles < b.cycles || (a.cycles === b.cycles && product(a.parts) < product(b.parts));
const product = (list: readonly number[]): number => list.reduce((n, x) => n * x, 1);

/** Channels are cut at the matrix unit's grain where there are enough of them. */
function grainOf(m: Model, t: TileTarget, at: number, dtype: Parameters<typeof grainInOf>[1]): number {
  const v = m.walk.vars[at]!;
  if (m.walk.kind !== 'contract') return v.grain;
  const p = m.pieces[0]!.product;
  const position = m.pieces[0]!.dims.findIndex((d) => d.at === at);
  const grain = p.cols.includes(position) ? t.constants.grainOut : p.depth.includes(position) ? grainInOf(t, dtype) : 1;
  return v.size >= 2 * grain ? Math.max(grain, v.grain) : v.grain;
}

/** What parts of given sizes cannot get below: far cheaper than judging them. */
class Floor {
  readonly #m: Model;
  readonly #t: TileTarget;
  readonly #serial: Serial | undefined;
  /** How often each operand is received. */
  readonly #often: readonly number[];
  readonly #bytes: number[];
  readonly #rate: number;
  readonly #sizes: number[];
  /** Bytes of the operands. */
  operands = 0;
  /** Bytes of the operands and contributions; exact, where parts are given. */
  temporary = 0;
  #partial = 0;

  constructor(m: Model, t: TileTarget, serial: Serial | undefined) {
    this.#m = m;
    this.#t = t;
    this.#serial = serial;
    this.#often = m.operandBytes.map((_, k) => (serial && dependsOn(m, k, serial.at) ? serial.times : 1));
    this.#bytes = m.operandBytes.map(() => 0);
    this.#rate = m.walk.kind === 'contract' ? macsOf(t, m.walk.op.operands[0]!.type.dtype) : Infinity;
    this.#sizes = m.walk.vars.map((v) => v.size);
  }

  /** Takes sizes of parts, serial parts taken together, and how many there are of each where that is decided. */
  take(whole: readonly number[], parts?: readonly number[]): void {
    const m = this.#m;
    for (let i = 0; i < whole.length; i++) this.#sizes[i] = this.#serial?.at === i ? Math.ceil(whole[i]! / this.#serial.times) : whole[i]!;
    this.operands = 0;
    for (let k = 0; k < this.#bytes.length; k++) this.operands += this.#bytes[k] = operandBytes(m, this.#sizes, k);
    this.#partial = parts && isReduced(m, parts) ? partialBytes(m, this.#sizes) : 0;
    this.temporary = Math.max(this.operands + this.#partial, 2 * this.#partial);
  }

  /** Cycles of what was taken: multiply-adds at the full rate, and the exchange. */
  cycles(parts?: readonly number[]): number {
    const { sync, control, exchange, pairFactor } = this.#t.constants;
    const times = this.#serial?.times ?? 1;
    const shared = parts ? sharing(this.#m, parts, this.#t) : 0;
    let received = this.#partial * times;
    for (let k = 0; k < this.#bytes.length; k++) received += (this.#bytes[k]! * this.#often[k]!) / (k === shared ? pairFactor : 1);
    const macs = this.#rate === Infinity ? 0 : macsOfPart(this.#m, this.#sizes) / this.#rate;
    return macs * times + received / exchange + times * (this.#partial > 0 ? 2 : 1) * (sync + control);
  }
}

/** Whether several parts contribute to a result. */
const isReduced = (m: Model, parts: readonly number[]): boolean => m.walk.vars.some((v, i) => v.role === 'reduce' && parts[i]! > 1);

/** Judges one split. `whole`: the largest part of each var, serial parts of it taken together. */
function judge(m: Model, t: TileTarget, parts: readonly number[], whole: readonly number[], serial?: Serial): Split {
  const { vars } = m.walk;
  const sizes = serial ? whole.map((n, i) => (i === serial.at ? Math.ceil(n / serial.times) : n)) : whole;
  const times = serial?.times ?? 1;
  const contributors = vars.reduce((n, v, i) => (v.role === 'reduce' ? n * parts[i]! : n), 1);
  const e = estimate(m, t, sizes, contributors);
  const shared = sharing(m, parts, t);
  const received = e.operands.reduce((n, b, k) => n + (b / (shared === k ? t.constants.pairFactor : 1)) * (serial && dependsOn(m, k, serial.at) ? times : 1), 0) + e.partial * times;
  const cycles = (e.compute + e.merge) * times + received / t.constants.exchange + times * (contributors > 1 ? 2 : 1) * (t.constants.sync + t.constants.control);
  return { parts: [...parts], sizes: [...whole], ...(serial && { serial }), estimate: e, cycles, temporary: Math.max(e.operands.reduce((n, b) => n + b, 0) + e.partial, 2 * e.partial) };
}

/** The operand that neighbouring tiles share: the streamed one of a product, where its columns are cut in an even number of parts. */
function sharing(m: Model, parts: readonly number[], t: TileTarget): number {
  if (m.walk.kind !== 'contract' || t.constants.pairFactor === 1) return -1;
  const p = m.pieces[0]!;
  const cols = p.product.cols.reduce((n, i) => n * (p.dims[i]!.at >= 0 ? parts[p.dims[i]!.at]! : 1), 1);
  return cols % 2 === 0 ? 0 : -1;
}
