/** Running sums and products along an axis. */
import type { Dim } from '../../axes.ts';
import type { Builder } from '../../builder.ts';
import type { Value } from '../../graph.ts';
import { flag, num, type AttrSpec, type OpDef, type RefTensor } from '../../op.ts';
import { isFloat, sizeOf } from '../../type.ts';
import { arity, bigints, dimsOf, fresh, namesOf, nth, numbers, readDims, requireAxis, requireNumeric, writeDims } from '../helpers.ts';

const attrs = {
  axis: { kind: 'number', default: 'required' },
  exclusive: { kind: 'boolean', default: false },
  reverse: { kind: 'boolean', default: false },
} as const satisfies Record<string, AttrSpec>;

export const cumSum: OpDef = {
  ...scan('sum'),
  name: 'cumSum',
  doc: 'y[t] = Σ_{s≤t} x[s] along `axis`; exclusive: s<t; reverse: s≥t (s>t)',
  grad: {
    build: (b, op, [dy]) => [dy && cumulate(b, 'cumSum', dy, num(op.attrs, 'axis'), flag(op.attrs, 'exclusive'), !flag(op.attrs, 'reverse'))],
  },
};

export const cumProd: OpDef = {
  ...scan('prod'),
  name: 'cumProd',
  doc: 'y[t] = Π_{s≤t} x[s] along `axis`; exclusive: s<t; reverse: s≥t (s>t)',
  grad: {
    build(b, op, [dy]) {
      const x = nth(op.operands, 0);
      const y = nth(op.results, 0);
      if (!dy) return [undefined];
      const [axis, exclusive, reverse] = [num(op.attrs, 'axis'), flag(op.attrs, 'exclusive'), flag(op.attrs, 'reverse')];
      // dx[s] = Σ_{t≥s} dy[t]·y[t] / x[s] up to the first zero, where y leaves x[s] out instead; behind it every product holds that zero.
      const back = (v: Value): Value => cumulate(b, 'cumSum', v, axis, exclusive, !reverse);
      const isZero = b.binary('eq', x, 0);
      const zeros = cumulate(b, 'cumSum', b.cast(isZero, 'i32'), axis, false, reverse);
      const first = b.binary('and', isZero, b.binary('eq', zeros, 1));
      const without = cumulate(b, 'cumProd', b.select(first, 1, x), axis, exclusive, reverse);
      const before = b.div(back(b.mul(dy, y)), b.select(isZero, 1, x));
      const atFirst = b.select(first, back(b.mul(dy, without)), 0);
      return [b.select(b.binary('eq', zeros, 0), before, atFirst)];
    },
  },
};

const cumulate = (b: Builder, name: 'cumSum' | 'cumProd', x: Value, axis: number, exclusive: boolean, reverse: boolean): Value => b.one(name, [x], { axis, exclusive, reverse });

/** What the two have in common: only the operation differs. */
function scan(combine: 'sum' | 'prod'): Omit<OpDef, 'name' | 'doc' | 'grad'> {
  return {
    family: 'scan',
    operands: ['x'],
    attrs,
    infer(operands, a) {
      const [x] = arity(operands, 1);
      requireNumeric(x);
      requireAxis(num(a, 'axis'), x);
      return [x];
    },
    axes([x], a) {
      const space = dimsOf(x!.shape).map((d, i): Dim => (i !== num(a, 'axis') ? d : { ...d, role: 'scan', ...(flag(a, 'reverse') ? { reverse: true } : {}) }));
      const piece = { dims: namesOf(space), reads: [readDims(space)], writes: writeDims(space), indexed: [] };
      return { space, stages: [{ pieces: [piece], combine, product: false }] };
    },
    reference([x], a, [y]) {
      const out = fresh(y!);
      const axis = num(a, 'axis');
      const step = sizeOf(x!.shape.slice(axis + 1));
      const length = x!.shape[axis]!;
      const exclusive = flag(a, 'exclusive');
      const outer = sizeOf(x!.shape.slice(0, axis));
      const run = runner(combine, x!, out, exclusive);
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < step; i++) {
          const start = o * length * step + i;
          if (flag(a, 'reverse')) run(start + (length - 1) * step, -step, length);
          else run(start, step, length);
        }
      }
      return [out];
    },
  };
}

type Run = (start: number, step: number, length: number) => void;

/** Accumulates one line. Integers wrap: sums of up to 2^21 elements of 32 bits are exact before they do, products wrap at each step. */
function runner(combine: 'sum' | 'prod', x: RefTensor, y: RefTensor, exclusive: boolean): Run {
  if (!(x.data instanceof Float64Array)) return bigRunner(combine, bigints(x), bigints(y), exclusive);
  const [from, to] = [x.data, numbers(y)];
  const join = combine === 'sum' ? (p: number, q: number) => p + q : isFloat(x.dtype) ? (p: number, q: number) => p * q : Math.imul;
  return (start, step, length) => {
    let total = combine === 'sum' ? 0 : 1;
    for (let i = 0, p = start; i < length; i++, p += step) {
      const next = join(total, from[p]!);
      to[p] = exclusive ? total : next;
      total = next;
    }
  };
}

function bigRunner(combine: 'sum' | 'prod', from: BigInt64Array | BigUint64Array, to: BigInt64Array | BigUint64Array, exclusive: boolean): Run {
  return (start, step, length) => {
    let total = combine === 'sum' ? 0n : 1n;
    for (let i = 0, p = start; i < length; i++, p += step) {
      const next = BigInt.asUintN(64, combine === 'sum' ? total + from[p]! : total * from[p]!);
      to[p] = exclusive ? total : next;
      total = next;
    }
  };
}
