/** Layouts that readers of a value would like: as they read it, each tile with a share. */
import type { Op, Value } from '../../../ir/graph.ts';
import type { Cut, Division, Spread } from '../../../ir/tiles.ts';
import { bytesOf } from '../../../ir/type.ts';
import { isShare, operandSpread, signature } from '../divide.ts';
import { walkOf, type Walk } from '../walk.ts';
import type { Program } from './program.ts';

/** Layouts of a value at most, elementwise ops that they are traced back through, and bytes of values that are of account. */
const [mostWishes, reach, leastBytes] = [2, 6, 1024];

/** Ways of each reader that are looked at. */
const mostWays = 3;

/** Where readers would like each value of a program to lie. */
export class Wishes {
  readonly #program: Program;
  readonly #known = new Map<Value, readonly Spread[]>();

  constructor(program: Program) {
    this.#program = program;
  }

  /** Layouts of a value under which one of its readers, or of those after elementwise ops, finds it where it reads it. */
  of(v: Value, far = reach): readonly Spread[] {
    const known = this.#known.get(v);
    if (known || far === 0 || bytesOf(v.type) < leastBytes) return known ?? [];
    const found = new Map<string, Spread>();
    for (const i of this.#program.readers.get(v) ?? []) {
      const op = this.#program.graph.ops[i]!;
      for (const s of this.#by(op, op.operands.indexOf(v), far)) if (found.size < mostWishes) found.set(signature(s), s);
    }
    const wishes = [...found.values()];
    this.#known.set(v, wishes);
    return wishes;
  }

  #by(op: Op, k: number, far: number): Spread[] {
    const walk = walkOf(op);
    const { shape } = op.operands[k]!.type;
    const { tiles } = this.#program.target.constants;
    const own = walk.kind === 'single' ? [] : this.#program.chooser.waysOf(op).slice(0, mostWays).map((w) => w.needs[k]!);
    const through = walk.kind === 'map' ? this.of(op.results[0]!, far - 1).flatMap((s) => divisionTo(walk, s) ?? []).map((d) => operandSpread(walk, d, k, shape)) : [];
    return [...through, ...own].filter((s) => isShare(s, shape, tiles));
  }
}

/** The division under which an op makes its result just where a spread has it, or undefined: every result axis that is cut has a dim of its own. */
export function divisionTo(walk: Walk, spread: Spread): Division | undefined {
  const { base, dims } = spread;
  if (spread.flat || walk.pieces.length === 0 || dims.some((d) => d.time)) return undefined;
  const ranges: Record<string, Cut> = {};
  for (const [axis, cut] of spread.axes.entries()) {
    if (cut.by.length === 0) continue;
    const v = walk.vars.find((x) => x.axis === axis);
    const { terms, plus } = walk.pieces[0]!.writes[axis]!;
    const name = v ? v.name : terms.length === 1 && terms[0]![1] === 1 && plus === 0 ? terms[0]![0] : undefined;
    if (name === undefined || !walk.vars.some((x) => x.name === name && x.role === 'parallel')) return undefined;
    ranges[name] = cut;
  }
  const used = new Set(Object.values(ranges).flatMap((c) => c.by));
  return dims.some((d, i) => d.parts > 1 && !used.has(i)) ? undefined : { base, dims, ranges };
}
