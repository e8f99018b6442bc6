/** Sums of quarters that Strassen's algorithm multiplies: of the left operand a step of its own, of the packed right one a function. */
import { invariant } from '../../../ir/diagnostic.ts';
import { num } from '../../../ir/op.ts';
import { sumCount } from '../../../ir/ops/packing/strassen.ts';
import { sizeOf } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local, Vec, VLocal } from '../asm.ts';
import { kernelKey, type Emitter } from '../kernel.ts';
import { mergedStride } from './space.ts';

/** Sums of quarters of the right operand: T1 to T4. */
export const panelSums = 4;
/** Rows of the upper half that one chunk sums. */
const chunkRows = 8;

/** Emits `strassenSums`, of rows that are evenly spaced and contiguous. */
export const strassenSumsKernel: Emitter = (asm, op, [a], [result]) => {
  const rowAxes = num(op.attrs, 'rowAxes');
  const rowShape = a!.type.shape.slice(0, rowAxes);
  const rows = sizeOf(rowShape);
  const k = sizeOf(a!.type.shape.slice(rowAxes));
  const stride = mergedStride(rowShape, a!.strides.slice(0, rowAxes));
  invariant(stride !== undefined && mergedStride(a!.type.shape.slice(rowAxes), a!.strides.slice(rowAxes)) === 1, 'the rows to sum are even and their elements lie side by side');
  const upper = Math.ceil(rows / 2);
  const half = 2 * k;
  const fn = asm.fn(`strassen sums ${kernelKey(op, [a!], [result!])}`, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [chunk, , from, to]) => {
    const { m } = asm;
    const [row, end, above, below, target, last] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    const top = f.label('k');
    const quarter = (): VLocal => f.vlocal();
    const [a11, a12, a21, a22, s1, s2] = [quarter(), quarter(), quarter(), quarter(), quarter(), quarter()];
    return [
      f.set(row, asm.times(f.get(chunk!), chunkRows)),
      f.set(end, least(f, asm.plus(asm.times(f.get(chunk!), chunkRows), chunkRows), upper)),
      f.loop(row, f.get(row), () => f.get(end), 1, [
        f.set(above, asm.add(f.get(from!), asm.mul(f.get(row), asm.i32(4 * stride)))),
        f.set(below, asm.add(f.get(from!), asm.mul(least(f, asm.plus(f.get(row), upper), rows - 1), asm.i32(4 * stride)))),
        f.set(target, asm.add(f.get(to!), asm.mul(f.get(row), asm.i32(sumCount * half)))),
        f.set(last, asm.plus(f.get(target), half)),
        m.loop(top, m.block(null, [
          f.vset(a11, asm.vload(above, 0)), f.vset(a12, asm.vload(above, half)), f.vset(a21, asm.vload(below, 0)), f.vset(a22, asm.vload(below, half)),
          f.vset(s1, asm.vadd(f.vget(a21), f.vget(a22))),
          f.vset(s2, asm.vsub(f.vget(s1), f.vget(a11))),
          asm.vstore(target, 0, f.vget(s1)), asm.vstore(target, half, f.vget(s2)),
          asm.vstore(target, 2 * half, asm.vsub(f.vget(a11), f.vget(a21))), asm.vstore(target, 3 * half, asm.vsub(f.vget(a12), f.vget(s2))),
          f.inc(above, 16), f.inc(below, 16), f.inc(target, 16),
          m.br(top, m.i32.lt_u(f.get(target), f.get(last))),
        ])),
      ]),
    ];
  });
  return { fn, chunks: Math.ceil(upper / chunkRows), scratchBytes: 0, vertexBytes: 4 * 4 * k };
};

function least(f: Fn, e: E, most: number): E {
  const l = f.local('i32');
  const { m } = f.asm;
  // WebAssembly evaluates the condition of a select last.
  return m.select(m.i32.lt_s(f.get(l), f.asm.i32(most)), f.tee(l, e), f.asm.i32(most));
}

/**
 * Sums quarters of panels: (left panel, bytes from it to the right one, bytes of half a panel, panels, to, bytes from one sum to the next). Panels follow each other; each sum of a panel is half a panel, and those of
 * one kind follow each other.
 */
export function addPanels(asm: Asm): string {
  return asm.fn('strassen panels', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], undefined, (f, [left, right, half, count, to, apart]) => {
    const { m } = asm;
    const [b11, b12, b21, b22, t1, t2, t3, t4, end] = Array.from({ length: 9 }, () => f.local('i32')) as [Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const [panel, step] = [f.label('panel'), f.label('k')];
    const vectors = [0, 16];
    const rows = (at: number): E[] => {
      const value = { b11: f.vlocal(), b12: f.vlocal(), b21: f.vlocal(), b22: f.vlocal(), t1: f.vlocal(), t2: f.vlocal() };
      const get = (l: VLocal): Vec => f.vget(l);
      return [
        f.vset(value.b11, asm.vload(b11, at)), f.vset(value.b12, asm.vload(b12, at)), f.vset(value.b21, asm.vload(b21, at)), f.vset(value.b22, asm.vload(b22, at)),
        f.vset(value.t1, asm.vsub(get(value.b12), get(value.b11))),
        f.vset(value.t2, asm.vsub(get(value.b22), get(value.t1))),
        asm.vstore(t1, at, get(value.t1)), asm.vstore(t2, at, get(value.t2)),
        asm.vstore(t3, at, asm.vsub(get(value.b22), get(value.b12))), asm.vstore(t4, at, asm.vsub(get(value.b21), get(value.t2))),
      ];
    };
    return [m.loop(panel, m.block(null, [
      f.set(b11, f.get(left!)), f.set(b21, asm.add(f.get(left!), f.get(half!))), f.set(b12, asm.add(f.get(left!), f.get(right!))), f.set(b22, asm.add(f.get(b12), f.get(half!))),
      f.set(t1, f.get(to!)), f.set(t2, asm.add(f.get(t1), f.get(apart!))), f.set(t3, asm.add(f.get(t2), f.get(apart!))), f.set(t4, asm.add(f.get(t3), f.get(apart!))),
      f.set(end, f.get(b21)),
      m.loop(step, m.block(null, [
        ...vectors.flatMap(rows),
        ...[b12, b21, b22, t1, t2, t3, t4].map((l) => f.inc(l, 32)),
        m.br(step, m.i32.lt_u(f.tee(b11, asm.plus(f.get(b11), 32)), f.get(end))),
      ])),
      f.set(left!, asm.add(f.get(left!), asm.times(f.get(half!), 2))),
      f.set(to!, asm.add(f.get(to!), f.get(half!))),
      m.br(panel, f.tee(count!, asm.sub(f.get(count!), asm.i32(1)))),
    ]))];
  });
}
