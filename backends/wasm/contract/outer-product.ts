/** Sums of outer products: Σ over steps of a[step] · b[step]ᵀ, where the elements of a step lie side by side in both. */
import type { Asm, E, Fn, Local } from '../asm.ts';
import { maxRows } from './micro.ts';
import { rowRuns } from './tiles.ts';

/** Bytes from one step to the next of a and of b, and from one row of the sums to the next. */
export interface OuterStrides {
  readonly a: number;
  readonly b: number;
  readonly sums: number;
}

/** Steps per round of the inner loop. */
const unroll = 4;

/** Adds to `rows` x `columns` sums (columns in multiples of 4) the products of `count` steps. Expressions are made anew for each use; `count` is a local. */
export function addOuterProducts(f: Fn, rows: number, columns: number, strides: OuterStrides, at: { readonly a: () => E; readonly b: () => E; readonly sums: () => E; readonly count: Local }): E[] {
  const { asm } = f;
  const [row, panel] = [f.local('i32'), f.local('i32')];
  const panels = Math.floor(columns / 8);
  let first = 0;
  return rowRuns(rows, maxRows(asm)).map(({ height, count }) => {
    const start = first;
    first += height * count;
    const call = (vectors: 1 | 2, column: () => E): E => asm.call(outerKernel(asm, height, vectors, strides), [
      asm.add(at.a(), asm.times(f.get(row), 4)),
      asm.add(at.b(), column()),
      asm.add(at.sums(), asm.add(asm.times(f.get(row), strides.sums), column())),
      f.get(at.count),
    ]);
    return f.repeat(row, start, first, height, [
      ...(panels > 0 ? [f.repeat(panel, 0, panels, 1, [call(2, () => asm.times(f.get(panel), 32))])] : []),
      ...(columns % 8 > 0 ? [call(1, () => asm.i32(32 * panels))] : []),
    ]);
  });
}

/** One tile kept in registers: (a, b, sums, steps). */
function outerKernel(asm: Asm, rows: number, vectors: 1 | 2, strides: OuterStrides): string {
  return asm.fn(`outer ${rows}x${vectors} ${strides.a} ${strides.b} ${strides.sums}`, ['i32', 'i32', 'i32', 'i32'], undefined, (f, [a, b, sums, steps]) => {
    const { m } = asm;
    const acc = Array.from({ length: rows }, () => Array.from({ length: vectors }, () => f.vlocal()));
    const right = Array.from({ length: vectors }, () => f.vlocal());
    const left = f.vlocal();
    const step = (k: number): E[] => [
      ...right.map((l, j) => f.vset(l, asm.vload(b!, k * strides.b + 16 * j))),
      ...acc.flatMap((row, i) => [
        f.vset(left, asm.vload1(a!, k * strides.a + 4 * i, f)),
        ...row.map((l, j) => f.vset(l, asm.vmadd(f.vget(left), f.vget(right[j]!), f.vget(l)))),
      ]),
    ];
    const rounds = (size: number): E => {
      const top = f.label('steps');
      return m.loop(top, f.if(m.i32.ge_s(f.get(steps!), asm.i32(size)), [
        ...Array.from({ length: size }, (_, k) => step(k)).flat(),
        f.inc(a!, size * strides.a), f.inc(b!, size * strides.b), f.inc(steps!, -size),
        m.br(top),
      ]));
    };
    return [
      ...acc.flatMap((row, i) => row.map((l, j) => f.vset(l, asm.vload(sums!, i * strides.sums + 16 * j)))),
      rounds(unroll),
      rounds(1),
      // The stores of a row stand side by side: V8's revectorizer pairs them only then.
      ...acc.flatMap((row, i) => row.map((l, j) => asm.vstore(sums!, i * strides.sums + 16 * j, f.vget(l)))),
    ];
  });
}
