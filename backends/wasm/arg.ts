/** Index of the largest or smallest element along an axis. */
import { flag, num } from '../../ir/op.ts';
import { dtypes, type DType } from '../../ir/type.ts';
import type { E, Fn, Local } from './asm.ts';
import { computeType, isUnsigned, loadElement } from './dtype.ts';
import { byteSteps, eachElement } from './elements.ts';
import { kernelKey, type Emitter } from './kernel.ts';

/** Whether a comes before b where the largest (or smallest) is wanted. NaN is above all numbers, or, with `nanFirst`, before all in either order. */
export function precedes(f: Fn, d: DType, largest: boolean, nanFirst: boolean, a: Local, b: Local): E {
  const { m } = f.asm;
  const type = computeType(d);
  if (type === 'i32' || type === 'i64') return m[type][`${largest ? 'gt' : 'lt'}_${isUnsigned(d) ? 'u' : 's'}`](f.get(a), f.get(b));
  const isNaN = (l: Local): E => m[type].ne(f.get(l), f.get(l));
  const [x, y] = largest || nanFirst ? [a, b] : [b, a];
  return m.i32.or(m[type][largest ? 'gt' : 'lt'](f.get(a), f.get(b)), m.i32.and(isNaN(x), m.i32.eqz(isNaN(y))));
}

export const emitArg: Emitter = (asm, op, operands, results) => {
  const [x, y] = [operands[0]!, results[0]!];
  const { dtype, shape } = x.type;
  const axis = num(op.attrs, 'axis');
  const largest = op.name === 'argMax';
  const xs = byteSteps(x);
  const kept = shape.map((_, i) => i).filter((i) => i !== axis);
  return eachElement(asm, kernelKey(op, operands, results), y.type.shape, [kept.map((i) => xs[i]!), byteSteps(y)], { work: shape[axis]!, touched: shape[axis]! * dtypes[dtype].bytes + dtypes.i64.bytes }, (f, _, ptrs) => {
    const { m } = asm;
    const type = computeType(dtype);
    const [best, v] = [f.local(type), f.local(type)];
    const [p, i, at] = [f.local('i32'), f.local('i32'), f.local('i32')];
    const better = flag(op.attrs, 'last') ? m.i32.eqz(precedes(f, dtype, largest, true, best, v)) : precedes(f, dtype, largest, true, v, best);
    return [
      f.set(p, f.get(ptrs[0]!)),
      f.set(best, loadElement(asm, dtype, f.get(p))),
      f.set(at, asm.i32(0)),
      f.repeat(i, 1, shape[axis]!, 1, [
        f.inc(p, xs[axis]!),
        f.set(v, loadElement(asm, dtype, f.get(p))),
        f.if(better, [f.set(best, f.get(v)), f.set(at, f.get(i))]),
      ]),
      m.i64.store(0, dtypes.i64.bytes, f.get(ptrs[1]!), m.i64.extend_u(f.get(at))),
    ];
  });
};
