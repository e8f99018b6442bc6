/** What a walk computes for one element, or for several vectors side by side: loops over the reduce dims, reads, folds. */
import { invariant } from '../../../ir/diagnostic.ts';
import type { Dim } from '../../../ir/axes.ts';
import { outsideMark, type Clip, type OffsetTable } from '../access.ts';
import { types, type E, type Fn, type Local } from '../asm.ts';
import { folds } from '../lanes.ts';
import type { NestDim } from '../nest.ts';
import type { Tensors, Walk } from './types.ts';
import { foldedType, type Width } from './width.ts';

/** One piece of a walk: its tensors, its dims by name, and the loops over its reduce dims. */
export interface PieceWalk {
  readonly walk: Walk;
  readonly tensors: Tensors;
  readonly dims: ReadonlyMap<string, Dim>;
  readonly inner: readonly NestDim[];
}

/** The current index of each dim that is looped over by itself. */
type Indices = ReadonlyMap<string, Local>;

/** The elements of one step along the row: folds over the reduce dims, or one read. */
export function emitElements<V>(f: Fn, piece: PieceWalk, outerIndices: Indices, ptrs: readonly Local[], w: Width<V>): E[] {
  const { walk, tensors: t, inner, dims } = piece;
  const { asm } = f;
  const { m } = asm;
  const fold = walk.fold === undefined ? undefined : folds[walk.fold];
  const sums = Array.from({ length: w.unroll }, () => w.lanes.local());
  const dtype = foldedType(walk);
  const code: E[] = sums.map((s) => s.set(w.lanes.constant(fold ? fold.start(dtype) : walk.outside)));
  const body = (indices: Indices, at: readonly Local[]): E[] => {
    const addresses: Local[] = [];
    const pre: E[] = [];
    let valid: E | undefined;
    for (let r = 0; r < t.reads; r++) {
      const access = t.accesses[r]!;
      if (access.tables.length === 0) {
        addresses.push(at[r]!);
        continue;
      }
      const address = f.local('i32');
      pre.push(f.set(address, f.get(at[r]!)));
      for (const table of access.tables) {
        const offset = f.local('i32');
        pre.push(f.set(offset, tableOffset(f, dims, table, indices)), f.set(address, asm.add(f.get(address), f.get(offset))));
        if (table.outside) {
          const ok = m.i32.ne(f.get(offset), asm.i32(outsideMark));
          valid = valid === undefined ? ok : m.i32.and(valid, ok);
        }
      }
      addresses.push(address);
    }
    if (t.reads === 0) return pre;
    const weight = walk.weights && w.lanes.local();
    if (weight && walk.weights) {
      const factor = f.local('f32');
      pre.push(f.set(factor, tableWeight(f, dims, walk.weights, indices)), weight.set(w.weight(f.get(factor))));
      // A tap of weight 0 is not read.
      const counts = m.f32.ne(f.get(factor), m.f32.const(0));
      valid = valid === undefined ? counts : m.i32.and(valid, counts);
    }
    const work = sums.flatMap((s, u) => {
      if (walk.prologue) {
        const { steps, value } = w.prologue(addresses.map((a, r) => w.load(r, a, u)));
        return [...steps, s.set(fold ? fold.join(w.lanes, s.get(), value) : value)];
      }
      const x = w.load(0, addresses[0]!, u);
      if (!fold) return s.set(weight ? w.lanes.mul(x, weight.get()) : x);
      if (t.reads === 2) {
        invariant(walk.fold === 'sum', 'products are summed');
        return s.set(w.lanes.madd(x, w.load(1, addresses[1]!, u), s.get()));
      }
      return s.set(weight ? w.lanes.madd(x, weight.get(), s.get()) : fold.join(w.lanes, s.get(), x));
    });
    return valid === undefined ? [...pre, ...work] : [...pre, f.if(valid, work)];
  };
  const level = (k: number, indices: Indices, at: readonly Local[]): E[] => {
    const d = inner[k];
    if (!d) return body(indices, at);
    const index = f.local('i32');
    const nested = new Map([...indices, [d.name, index]]);
    const own = d.steps.map((s, i) => (s === 0 || i >= t.reads ? at[i]! : f.local('i32')));
    const clips = t.accesses.flatMap((a) => a.clips.filter((c) => c.reduce === d.name));
    const step = own.flatMap((p, i) => (p === at[i] ? [] : [f.inc(p, d.steps[i]!)]));
    const start = own.flatMap((p, i) => (p === at[i] ? [] : [f.set(p, f.get(at[i]!))]));
    if (clips.length === 0) return d.size === 0 ? [] : [...start, f.repeat(index, 0, d.size, 1, [...level(k + 1, nested, own), ...step])];
    const [from, to] = [f.local('i32'), f.local('i32')];
    return [
      f.set(from, asm.i32(0)),
      f.set(to, asm.i32(d.size)),
      ...clips.flatMap((c) => narrow(f, c, from, to, indices)),
      ...start,
      ...own.flatMap((p, i) => (p === at[i] ? [] : [f.set(p, asm.add(f.get(p), asm.times(f.get(from), d.steps[i]!)))])),
      f.loop(index, f.get(from), () => f.get(to), 1, [...level(k + 1, nested, own), ...step]),
    ];
  };
  code.push(...level(0, outerIndices, ptrs));
  code.push(...w.finish(ptrs, sums.map((s) => s.get)));
  return code;
}

/** Narrows [from, to) of the reduce dim to where 0 <= Σ times·dim + plus < size. */
function narrow(f: Fn, clip: Clip, from: Local, to: Local, indices: Indices): E[] {
  const { asm } = f;
  const { m } = asm;
  const times = clip.terms.find(([d]) => d === clip.reduce)![1];
  const rest = f.local('i32');
  const sum = clip.terms.filter(([d]) => d !== clip.reduce).reduce((e, [d, n]) => {
    const l = indices.get(d);
    return l ? asm.add(e, asm.times(f.get(l), n)) : e;
  }, asm.i32(clip.plus));
  const step = Math.abs(times);
  // a / step rounded up, for any sign of a.
  const ceiling = (a: E): E => {
    if (step === 1) return a;
    const t = f.local('i32');
    return m.block(null, [f.set(t, a), m.select(m.i32.gt_s(f.get(t), asm.i32(0)), m.i32.div_s(asm.plus(f.get(t), step - 1), asm.i32(step)), m.i32.div_s(f.get(t), asm.i32(step)))], types.i32);
  };
  const least = f.local('i32');
  const end = f.local('i32');
  // times > 0: k >= -rest / step and k < (size - rest) / step; times < 0: k > (rest - size) / step and k <= rest / step.
  const [low, high] = times > 0
    ? [ceiling(asm.sub(asm.i32(0), f.get(rest))), ceiling(asm.sub(asm.i32(clip.size), f.get(rest)))]
    : [ceiling(asm.sub(f.get(rest), asm.i32(clip.size - 1))), ceiling(asm.plus(f.get(rest), 1))];
  return [
    f.set(rest, sum),
    f.set(least, low),
    f.set(end, high),
    f.if(m.i32.gt_s(f.get(least), f.get(from)), [f.set(from, f.get(least))]),
    f.if(m.i32.lt_s(f.get(end), f.get(to)), [f.set(to, f.get(end))]),
  ];
}

/** The byte offset that a table has for the current indices; tables lie in memory as constants. */
function tableOffset(f: Fn, dims: ReadonlyMap<string, Dim>, t: OffsetTable, indices: Indices): E {
  return f.asm.m.i32.load(f.asm.data(new Uint8Array(t.at.buffer)), 4, tableEntry(f, dims, t, indices));
}
function tableWeight(f: Fn, dims: ReadonlyMap<string, Dim>, t: NonNullable<Walk['weights']>, indices: Indices): E {
  return f.asm.m.f32.load(f.asm.data(new Uint8Array(Float32Array.from(t.at).buffer)), 4, tableEntry(f, dims, t, indices));
}
function tableEntry(f: Fn, dims: ReadonlyMap<string, Dim>, t: { readonly outer: string; readonly inner: string | undefined }, indices: Indices): E {
  const { asm } = f;
  const get = (d: string): E => {
    const l = indices.get(d);
    return l ? f.get(l) : asm.i32(0);
  };
  const number = t.inner === undefined ? get(t.outer) : asm.add(asm.times(get(t.outer), dims.get(t.inner)!.size), get(t.inner));
  return asm.times(number, 4);
}
