/** How the points of one result meet, in float64 and in the order of the points. */
import type { Stage } from '../../../ir/axes.ts';
import { InternalError } from '../../../ir/diagnostic.ts';
import { isFloat, type DType } from '../../../ir/type.ts';
import { highest, lowest } from '../../../ir/ops/helpers.ts';
import { outsidePlace } from './axis.ts';
import type { Window } from './program.ts';

/** What a walk makes: one array an entry, for results of the stage (or count, mean and sum of squares of moments). */
export type Made = readonly (Float64Array | BigInt64Array | BigUint64Array)[];

/** An operand of neighbouring results: its elements, where each result begins to read, and what stands for points outside the tensor. */
export interface Operand {
  readonly data: Float64Array;
  readonly base: Int32Array;
  readonly fill: number;
}

/** Combines results `from` up to `to`, all of which have one window over their operands. */
export type Combiner = (window: Window, operands: readonly Operand[], target: Int32Array, from: number, to: number, made: Made) => void;

/** The combiner of a stage. Throws an InternalError where there is none, or where a sum of integers leaves the exact range. */
export function combinerOf(stage: Stage, dtype: DType, what: string): Combiner {
  switch (stage.combine) {
    case 'none': return (window, operands, target, from, to, made) => {
      if (window.count !== 1) throw new InternalError(`${what} walks ${window.count} points for one result`);
      move(window, operands, target, from, to, made[0] as Float64Array);
    };
    case 'sum': {
      const float = isFloat(dtype);
      return (window, [a, b], target, from, to, made) => {
        const out = made[0] as Float64Array;
        if (b) sumOfProducts(window, a!, b, target, from, to, out);
        else sum(window, a!, target, from, to, out);
        if (!float) for (let o = from; o < to; o++) if (Math.abs(out[target[o]!]!) > Number.MAX_SAFE_INTEGER) throw new InternalError(`${what}: a sum of integers leaves the exact range of float64`);
      };
    }
    case 'prod': return folded(1, (p, x) => p * x);
    case 'max': return folded(lowest(dtype), Math.max);
    case 'min': return folded(highest(dtype), Math.min);
    case 'moments': return moments;
    case 'argmax': return argmax(lowest(dtype));
    default: throw new InternalError(`no walk combines by ${stage.combine}`);
  }
}

/** An element, or what stands for it outside the tensor. */
const elementOf = ({ data, base, fill }: Operand, o: number, place: number): number => (place === outsidePlace ? fill : data[base[o]! + place]!);

function move({ at }: Window, [a, b]: readonly Operand[], target: Int32Array, from: number, to: number, out: Float64Array): void {
  const [p, q] = [at[0]![0]!, at[1]?.[0]];
  if (!b && p !== outsidePlace) {
    const { data, base } = a!;
    for (let o = from; o < to; o++) out[target[o]!] = data[base[o]! + p]!;
  } else for (let o = from; o < to; o++) out[target[o]!] = elementOf(a!, o, p) * (b ? elementOf(b, o, q!) : 1);
}

function sum({ at, count }: Window, { data, base }: Operand, target: Int32Array, from: number, to: number, out: Float64Array): void {
  const p = at[0]!;
  for (let o = from; o < to; o++) {
    const s = base[o]!;
    let total = 0;
    for (let i = 0; i < count; i++) total += data[s + p[i]!]!;
    out[target[o]!] = total;
  }
}

/** Four results at a time: each is a sum of its own in the order of the points, but they take turns, so that no addition waits for the one before it. */
function sumOfProducts({ at, count }: Window, a: Operand, b: Operand, target: Int32Array, from: number, to: number, out: Float64Array): void {
  const [p, q, x, y, xs, ys] = [at[0]!, at[1]!, a.data, b.data, a.base, b.base];
  let o = from;
  for (; o + 4 <= to; o += 4) {
    const [s0, s1, s2, s3] = [xs[o]!, xs[o + 1]!, xs[o + 2]!, xs[o + 3]!];
    const [t0, t1, t2, t3] = [ys[o]!, ys[o + 1]!, ys[o + 2]!, ys[o + 3]!];
    let [u0, u1, u2, u3] = [0, 0, 0, 0];
    if (s0 === s1 && s0 === s2 && s0 === s3) {
      for (let i = 0; i < count; i++) {
        const [e, k] = [x[s0 + p[i]!]!, q[i]!];
        u0 += e * y[t0 + k]!;
        u1 += e * y[t1 + k]!;
        u2 += e * y[t2 + k]!;
        u3 += e * y[t3 + k]!;
      }
    } else if (t0 === t1 && t0 === t2 && t0 === t3) {
      for (let i = 0; i < count; i++) {
        const [j, e] = [p[i]!, y[t0 + q[i]!]!];
        u0 += x[s0 + j]! * e;
        u1 += x[s1 + j]! * e;
        u2 += x[s2 + j]! * e;
        u3 += x[s3 + j]! * e;
      }
    } else {
      for (let i = 0; i < count; i++) {
        const [j, k] = [p[i]!, q[i]!];
        u0 += x[s0 + j]! * y[t0 + k]!;
        u1 += x[s1 + j]! * y[t1 + k]!;
        u2 += x[s2 + j]! * y[t2 + k]!;
        u3 += x[s3 + j]! * y[t3 + k]!;
      }
    }
    out[target[o]!] = u0;
    out[target[o + 1]!] = u1;
    out[target[o + 2]!] = u2;
    out[target[o + 3]!] = u3;
  }
  for (; o < to; o++) {
    const [s, t] = [xs[o]!, ys[o]!];
    let total = 0;
    for (let i = 0; i < count; i++) total += x[s + p[i]!]! * y[t + q[i]!]!;
    out[target[o]!] = total;
  }
}

function folded(start: number, add: (sum: number, x: number) => number): Combiner {
  return ({ at, count }, [a, b], target, from, to, made) => {
    const out = made[0] as Float64Array;
    for (let o = from; o < to; o++) {
      let total = start;
      for (let i = 0; i < count; i++) total = add(total, elementOf(a!, o, at[0]![i]!) * (b ? elementOf(b, o, at[1]![i]!) : 1));
      out[target[o]!] = total;
    }
  };
}

const moments: Combiner = ({ at, count }, [a], target, from, to, made) => {
  const p = at[0]!;
  const [counts, means, squares] = made as readonly Float64Array[];
  for (let o = from; o < to; o++) {
    let total = 0;
    for (let i = 0; i < count; i++) total += elementOf(a!, o, p[i]!);
    const mean = count === 0 ? 0 : total / count;
    let m2 = 0;
    for (let i = 0; i < count; i++) m2 += (elementOf(a!, o, p[i]!) - mean) ** 2;
    const k = target[o]!;
    [counts![k], means![k], squares![k]] = [count, mean, m2];
  }
};

function argmax(start: number): Combiner {
  return ({ at, count }, [a], target, from, to, made) => {
    const p = at[0]!;
    for (let o = from; o < to; o++) {
      let [best, where] = [start, -1];
      for (let i = 0; i < count; i++) {
        if (p[i] === outsidePlace) continue;
        const x = elementOf(a!, o, p[i]!);
        if (where < 0 || x > best || (Number.isNaN(x) && !Number.isNaN(best))) [best, where] = [x, i];
      }
      const k = target[o]!;
      made[0]![k] = best;
      made[1]![k] = Math.max(0, where);
    }
  };
}

/** 64-bit integers: moves, sums and products. */
export function combineBig(stage: Stage, what: string): Combiner {
  if (stage.combine !== 'none' && stage.combine !== 'sum') throw new InternalError(`${what}: no walk combines 64-bit integers by ${stage.combine}`);
  return ({ at, count }, operands, target, from, to, made) => {
    for (let o = from; o < to; o++) {
      let total = 0n;
      for (let i = 0; i < count; i++) {
        let product = 1n;
        operands.forEach(({ data, base }, k) => {
          const place = at[k]![i]!;
          product *= place === outsidePlace ? 0n : (data as unknown as BigInt64Array)[base[o]! + place]!;
        });
        total += product;
      }
      made[0]![target[o]!] = total;
    }
  };
}
