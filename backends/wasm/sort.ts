/** The k best elements along an axis, best first. */
import { flag, num } from '../../ir/op.ts';
import { dtypes } from '../../ir/type.ts';
import type { E, Fn, Local } from './asm.ts';
import { precedes } from './arg.ts';
import { computeType, loadElement, storeElement } from './dtype.ts';
import { byteSteps, eachElement, nothing } from './elements.ts';
import { kernelKey, type Emitter } from './kernel.ts';

/** Up to this many are picked one by one; more are merge-sorted, with indices in scratch. */
const pickLimit = 16;

export const emitSort: Emitter = (asm, op, operands, results) => {
  const [x, values, indices] = [operands[0]!, results[0]!, results[1]];
  const { dtype, shape } = x.type;
  const [axis, k] = [num(op.attrs, 'axis'), num(op.attrs, 'k')];
  if (k === 0) return nothing;
  const size = shape[axis]!;
  const largest = flag(op.attrs, 'largest');
  const lines = shape.map((d, i) => (i === axis ? 1 : d));
  const tensors = indices ? [x, values, indices] : [x, values];
  const step = byteSteps(x)[axis]!;
  const picks = k <= pickLimit;
  return eachElement(asm, kernelKey(op, operands, results), lines, tensors.map(byteSteps), { work: picks ? k * size : size * 16, touched: size * dtypes[dtype].bytes + k * (dtypes[dtype].bytes + (indices ? 8 : 0)) }, (f, _, ptrs, scratch) => {
    const type = computeType(dtype);
    const value = (i: E): E => loadElement(asm, dtype, asm.add(f.get(ptrs[0]!), asm.times(i, step)));
    const [best, v, last] = [f.local(type), f.local(type), f.local(type)];
    const write = (rank: Local, index: Local): E[] => [
      storeElement(asm, dtype, asm.add(f.get(ptrs[1]!), asm.times(f.get(rank), byteSteps(values)[axis]!)), value(f.get(index))),
      ...(indices ? [asm.m.i64.store(0, dtypes.i64.bytes, asm.add(f.get(ptrs[2]!), asm.times(f.get(rank), byteSteps(indices)[axis]!)), asm.m.i64.extend_u(f.get(index)))] : []),
    ];
    const before = (a: Local, b: Local): E => precedes(f, dtype, largest, false, a, b);
    const [rank, i] = [f.local('i32'), f.local('i32')];
    if (picks) {
      const [at, lastAt] = [f.local('i32'), f.local('i32')];
      const { m } = asm;
      // After the last one taken: worse than it, or equal and later.
      const open = m.i32.or(before(last, v), m.i32.and(m.i32.eqz(before(v, last)), m.i32.gt_s(f.get(i), f.get(lastAt))));
      const better = m.i32.or(m.i32.lt_s(f.get(at), asm.i32(0)), before(v, best));
      return [
        f.set(lastAt, asm.i32(-1)),
        f.repeat(rank, 0, k, 1, [
          f.set(at, asm.i32(-1)),
          f.repeat(i, 0, size, 1, [
            f.set(v, value(f.get(i))),
            f.if(m.i32.or(m.i32.eqz(f.get(rank)), open), [f.if(better, [f.set(best, f.get(v)), f.set(at, f.get(i))])]),
          ]),
          f.set(last, f.get(best)),
          f.set(lastAt, f.get(at)),
          ...write(rank, at),
        ]),
      ];
    }
    const sorted = mergeSort(f, size, scratch, (a, b) => [f.set(best, value(f.get(a))), f.set(v, value(f.get(b))), before(v, best)]);
    const index = f.local('i32');
    return [...sorted.code, f.repeat(rank, 0, k, 1, [f.set(index, asm.m.i32.load(0, 4, asm.add(f.get(sorted.at), asm.times(f.get(rank), 4)))), ...write(rank, index)])];
  }, { scratchBytes: picks ? 0 : 8 * size, uncut: `the order of ${size} elements` });
};

/** Sorts the numbers 0..size-1 in two halves of scratch, stably; `wins(a, b)` prepares and tells whether b comes before a. */
function mergeSort(f: Fn, size: number, scratch: Local, wins: (a: Local, b: Local) => E[]): { readonly code: readonly E[]; readonly at: Local } {
  const { asm } = f;
  const { m } = asm;
  const [from, to, swap, i, width, lo, mid, end, p, q, out, a, b, take] = Array.from({ length: 14 }, () => f.local('i32')) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
  const slot = (base: Local, n: Local): E => asm.add(f.get(base), asm.times(f.get(n), 4));
  const least = (e: E): E => f.bind('i32', e, (x) => m.select(m.i32.lt_s(x(), asm.i32(size)), x(), asm.i32(size)));
  const [passes, runs] = [f.label('passes'), f.label('runs')];
  const [prepareA, prepareB, bFirst] = wins(a, b) as [E, E, E];
  const merge = f.loop(out, f.get(lo), () => f.get(end), 1, [
    // From the second run where the first is used up, or where its next element comes first.
    f.set(take, asm.i32(0)),
    m.if(
      m.i32.ge_s(f.get(p), f.get(mid)),
      f.set(take, asm.i32(1)),
      f.if(m.i32.lt_s(f.get(q), f.get(end)), [f.set(a, m.i32.load(0, 4, slot(from, p))), f.set(b, m.i32.load(0, 4, slot(from, q))), prepareA, prepareB, f.set(take, bFirst)]),
    ),
    m.if(
      f.get(take),
      m.block(null, [m.i32.store(0, 4, slot(to, out), m.i32.load(0, 4, slot(from, q))), f.inc(q, 1)]),
      m.block(null, [m.i32.store(0, 4, slot(to, out), m.i32.load(0, 4, slot(from, p))), f.inc(p, 1)]),
    ),
  ]);
  const code = [
    f.set(from, f.get(scratch)),
    f.set(to, asm.plus(f.get(scratch), 4 * size)),
    f.repeat(i, 0, size, 1, [m.i32.store(0, 4, slot(from, i), f.get(i))]),
    f.set(width, asm.i32(1)),
    m.loop(passes, f.if(m.i32.lt_s(f.get(width), asm.i32(size)), [
      f.set(lo, asm.i32(0)),
      m.loop(runs, f.if(m.i32.lt_s(f.get(lo), asm.i32(size)), [
        f.set(mid, least(asm.add(f.get(lo), f.get(width)))),
        f.set(end, least(asm.add(f.get(lo), asm.times(f.get(width), 2)))),
        f.set(p, f.get(lo)),
        f.set(q, f.get(mid)),
        merge,
        f.set(lo, f.get(end)),
        m.br(runs),
      ])),
      f.set(swap, f.get(from)),
      f.set(from, f.get(to)),
      f.set(to, f.get(swap)),
      f.set(width, asm.times(f.get(width), 2)),
      m.br(passes),
    ])),
  ];
  return { code, at: from };
}
