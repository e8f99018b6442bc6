/** Running sums and products. */
import { flag, num } from '../../ir/op.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes } from '../../ir/type.ts';
import type { E } from './asm.ts';
import { loadElement, normalize, storeElement } from './dtype.ts';
import { byteSteps, eachElement } from './elements.ts';
import { kernelKey, type Emitter } from './kernel.ts';
import { scalarLanes } from './lanes.ts';

/** One line at a time; floats are accumulated in f64. */
export const emitScan: Emitter = (asm, op, operands, results) => {
  const [x, y] = [operands[0]!, results[0]!];
  const { dtype, shape } = x.type;
  const axis = num(op.attrs, 'axis');
  const [exclusive, reverse] = [flag(op.attrs, 'exclusive'), flag(op.attrs, 'reverse')];
  const size = shape[axis]!;
  const lines = shape.map((d, i) => (i === axis ? Math.min(1, d) : d));
  const along = (p: Placed): number => byteSteps(p)[axis]! * (reverse ? -1 : 1);
  return eachElement(asm, kernelKey(op, operands, results), lines, [byteSteps(x), byteSteps(y)], { work: size, touched: 2 * size * dtypes[dtype].bytes }, (f, _, ptrs) => {
    const { m } = asm;
    const l = scalarLanes(f, dtype, true);
    const total = l.local();
    const [p, q, i] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const widened = l.type === 'f64' && dtype !== 'f64';
    const next = (): E => {
      const v = loadElement(asm, dtype, f.get(p));
      const value = widened ? m.f64.promote(v) : v;
      return total.set(op.name === 'cumSum' ? l.add(total.get(), value) : l.mul(total.get(), value));
    };
    const store = (): E => storeElement(asm, dtype, f.get(q), normalize(asm, dtype, widened ? m.f32.demote(total.get()) : total.get()));
    // The result may lie where x does: an exclusive scan reads each element before it writes there.
    const held = l.local();
    const exclusiveStep = [held.set(total.get()), next(), storeElement(asm, dtype, f.get(q), normalize(asm, dtype, widened ? m.f32.demote(held.get()) : held.get()))];
    const last = (size - 1) * (reverse ? 1 : 0);
    return [
      total.set(l.constant(op.name === 'cumSum' ? 0 : 1)),
      f.set(p, asm.plus(f.get(ptrs[0]!), last * byteSteps(x)[axis]!)),
      f.set(q, asm.plus(f.get(ptrs[1]!), last * byteSteps(y)[axis]!)),
      f.repeat(i, 0, size, 1, [...(exclusive ? exclusiveStep : [next(), store()]), f.inc(p, along(x)), f.inc(q, along(y))]),
    ];
  }, { uncut: `a scan over ${size} elements` });
};
