/** Layouts by beam search: dynamic programming over the ops in order, in which a state is where the values lie that are still read. */
import type { Value } from '../../../ir/graph.ts';
import type { Spread } from '../../../ir/tiles.ts';
import type { Choice } from '../choose.ts';
import { signature } from '../divide.ts';
import type { Place, Program } from './program.ts';

/** How each op is run, by its number; undefined for constants and for reshapes that are views. */
export interface Layouts {
  readonly choices: readonly (Choice | undefined)[];
  /** Of a run, what is brought home at its end included. */
  readonly cycles: number;
}

/** Ops that are chosen already. `key` is equal for states whose values that are still read lie alike. */
interface State {
  readonly homes: Map<Value, Spread>;
  readonly key: readonly [number, number];
  readonly cycles: number;
  /** What ops to come are expected to pay for where values lie. */
  readonly ahead: number;
  readonly made: Made | undefined;
}
interface Made { readonly index: number; readonly choice: Choice; readonly before: Made | undefined }
/** A state with one more op. */
interface Step { readonly from: State; readonly choice: Choice | undefined; readonly places: readonly Place[]; readonly key: readonly [number, number]; readonly cycles: number; readonly ahead: number }

/**
 * The layouts of fewest cycles, as far as `width` states show: of states whose values lie alike only the one of fewest cycles is kept, and of the others `width`, by their cycles and those expected of ops to come. With one
 * state, each op is chosen by itself; with as many as there are, nothing is better.
 */
export function beamSearch(program: Program, width: number, onProgress?: (done: number, of: number) => void): Layouts {
  const { graph } = program;
  const ids = new Ids();
  let states: State[] = [{ homes: program.start(), key: [0, 0], cycles: 0, ahead: 0, made: undefined }];
  graph.ops.forEach((op, index) => {
    if (index % 100 === 0) onProgress?.(index, graph.ops.length);
    if (op.name === 'constant') return;
    const steps = states.flatMap((s) => stepsOf(program, s, index, ids));
    states = bestOf(steps, width).map((s, _, all) => taken(program, s, index, all));
  });
  const best = states.reduce((a, b) => (b.cycles < a.cycles ? b : a));
  const choices: (Choice | undefined)[] = graph.ops.map(() => undefined);
  for (let m = best.made; m; m = m.before) choices[m.index] = m.choice;
  return { choices, cycles: best.cycles };
}

function stepsOf(program: Program, from: State, index: number, ids: Ids): Step[] {
  const op = program.graph.ops[index]!;
  let [h, l] = from.key;
  let { ahead } = from;
  for (const [k, v] of op.operands.entries()) {
    const home = from.homes.get(v)!;
    ahead -= program.outlook.cyclesOf(op, k, home);
    if (program.readers.get(v)!.at(-1) === index && op.operands.indexOf(v) === k) {
      const [a, b] = ids.of(v, home);
      [h, l] = [h ^ a, l ^ b];
    }
  }
  const step = (choice: Choice | undefined, places: readonly Place[]): Step => {
    let [cycles, after] = [from.cycles + (choice?.cycles ?? 0), ahead];
    let [x, y] = [h, l];
    for (const p of places) {
      cycles += program.homeCycles(p, index);
      after += program.outlook.cyclesAfter(p[0], p[1], index);
      if ((program.readers.get(p[0])?.at(-1) ?? -1) <= index) continue;
      const before = from.homes.get(p[0]);
      for (const [a, b] of [ids.of(p[0], p[1]), ...(before ? [ids.of(p[0], before)] : [])]) [x, y] = [x ^ a, y ^ b];
      if (before) after -= program.outlook.cyclesAfter(p[0], before, index);
    }
    return { from, choice, places, key: [x, y], cycles, ahead: after };
  };
  const view = program.viewOf(index, from.homes);
  if (view) return [step(undefined, [[op.results[0]!, view]])];
  return program.optionsOf(index, from.homes).map((c) => step(c, program.placesAfter(index, c)));
}

/** The best of each key, and of those the best. */
function bestOf(steps: readonly Step[], width: number): Step[] {
  const score = (s: Step): number => s.cycles + s.ahead;
  if (width === 1) return [steps.reduce((a, b) => (score(b) < score(a) ? b : a))];
  const distinct = new Map<string, Step>();
  for (const s of steps) {
    const key = s.key.join();
    const other = distinct.get(key);
    if (!other || s.cycles < other.cycles) distinct.set(key, s);
  }
  const list = [...distinct.values()];
  return list.length <= width ? list : list.sort((a, b) => score(a) - score(b)).slice(0, width);
}

function taken(program: Program, { from, choice, places, key, cycles, ahead }: Step, index: number, all: readonly Step[]): State {
  // Values that nothing reads any more are forgotten; the only successor of a state takes its map over.
  const homes = all.some((s) => s.from === from && s.choice !== choice) ? new Map(from.homes) : from.homes;
  for (const [v, at] of places) if ((program.readers.get(v)?.at(-1) ?? -1) > index) homes.set(v, at);
  for (const v of program.graph.ops[index]!.operands) if (program.readers.get(v)!.at(-1) === index) homes.delete(v);
  return { homes, key, cycles, ahead, made: choice ? { index, choice, before: from.made } : from.made };
}

/** Two numbers for each value and place, so that sets of them can be told apart by their exclusive or. */
class Ids {
  readonly #values = new Map<Value, number>();
  readonly #places = new Map<string, number>();

  of(v: Value, at: Spread): [number, number] {
    let value = this.#values.get(v);
    if (value === undefined) this.#values.set(v, (value = this.#values.size + 1));
    const text = signature(at);
    let place = this.#places.get(text);
    if (place === undefined) this.#places.set(text, (place = this.#places.size + 1));
    return [mixed(value, place, 0x9e3779b1), mixed(place, value, 0x85ebca6b)];
  }
}

/** A hash of two numbers (the finalizer of MurmurHash3). */
function mixed(a: number, b: number, seed: number): number {
  let x = Math.imul(a ^ seed, 0xcc9e2d51) ^ Math.imul(b + seed, 0x1b873593);
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
