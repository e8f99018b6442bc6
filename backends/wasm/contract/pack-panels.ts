/** Functions that lay out operands at run time: panels of the right operand, rows of the left one. Strides in bytes. */
import { panelColumns } from '../../../ir/ops/packing/panels.ts';
import type { Asm, E, Fn, Local, Vec } from '../asm.ts';

/** Packs whole panels whose columns lie side by side: (from, k stride, k, to), one panel. */
export function packEvenPanel(asm: Asm): string {
  return asm.fn('pack panel of rows', ['i32', 'i32', 'i32', 'i32'], undefined, (f, [from, kStride, k, to]) => {
    const top = f.label('k');
    return [asm.m.loop(top, asm.m.block(null, [
      asm.vstore(to!, 0, asm.vload(from!, 0)),
      asm.vstore(to!, 16, asm.vload(from!, 16)),
      f.set(from!, asm.add(f.get(from!), f.get(kStride!))),
      f.inc(to!, 32),
      asm.m.br(top, f.tee(k!, asm.sub(f.get(k!), asm.i32(1)))),
    ]))];
  });
}

/** Packs a whole panel whose rows (k) lie side by side within each column: (from, column stride, k, to). Transposes 4 x 4 at a time. */
export function packTransposedPanel(asm: Asm): string {
  return asm.fn('pack panel of columns', ['i32', 'i32', 'i32', 'i32'], undefined, (f, [from, columnStride, k, to]) => {
    const columns = Array.from({ length: panelColumns }, () => f.local('i32'));
    const { m } = asm;
    const four = f.label('four');
    const one = f.label('one');
    const steps = (count: number): E[] => [...columns.map((c) => f.inc(c, 4 * count)), f.inc(to!, 4 * panelColumns * count), f.set(k!, asm.plus(f.get(k!), -count))];
    const single: E[] = columns.map((c, i) => m.f32.store(4 * i, 4, f.get(to!), m.f32.load(0, 4, f.get(c))));
    const transposed: E[] = asm.simd ? [0, 4].flatMap((half) => transposeInto(f, columns.slice(half, half + 4), [to!, to!, to!, to!], [0, 32, 64, 96].map((row) => row + 4 * half))) : [];
    return [
      f.set(columns[0]!, f.get(from!)),
      ...columns.slice(1).map((c, i) => f.set(c, asm.add(f.get(columns[i]!), f.get(columnStride!)))),
      ...(asm.simd ? [f.if(m.i32.ge_u(f.get(k!), asm.i32(4)), [m.loop(four, m.block(null, [...transposed, ...steps(4), m.br(four, m.i32.ge_u(f.get(k!), asm.i32(4)))]))])] : []),
      f.if(f.get(k!), [m.loop(one, m.block(null, [...single, ...steps(1), m.br(one, f.get(k!))]))]),
    ];
  });
}

/** Stores the transpose of 4 rows of 4, each row of it at a pointer and an offset in bytes. */
export function transposeInto(f: Fn, rows: readonly Local[], to: readonly Local[], offsets: readonly number[]): E[] {
  const { asm } = f;
  const { m } = asm;
  const loaded = rows.map(() => f.vlocal());
  const paired = rows.map(() => f.vlocal());
  const lanes = (words: readonly number[]): number[] => words.flatMap((w) => [4 * w, 4 * w + 1, 4 * w + 2, 4 * w + 3]);
  const shuffle = (a: Vec, b: Vec, words: readonly number[]): Vec => [m.i8x16.shuffle(a[0]!, b[0]!, lanes(words))];
  const get = (i: number): Vec => f.vget(loaded[i]!);
  const pair = (i: number): Vec => f.vget(paired[i]!);
  return [
    ...rows.map((r, i) => f.vset(loaded[i]!, asm.vload(r, 0))),
    f.vset(paired[0]!, shuffle(get(0), get(1), [0, 4, 1, 5])),
    f.vset(paired[1]!, shuffle(get(2), get(3), [0, 4, 1, 5])),
    f.vset(paired[2]!, shuffle(get(0), get(1), [2, 6, 3, 7])),
    f.vset(paired[3]!, shuffle(get(2), get(3), [2, 6, 3, 7])),
    asm.vstore(to[0]!, offsets[0]!, shuffle(pair(0), pair(1), [0, 1, 4, 5])),
    asm.vstore(to[1]!, offsets[1]!, shuffle(pair(0), pair(1), [2, 3, 6, 7])),
    asm.vstore(to[2]!, offsets[2]!, shuffle(pair(2), pair(3), [0, 1, 4, 5])),
    asm.vstore(to[3]!, offsets[3]!, shuffle(pair(2), pair(3), [2, 3, 6, 7])),
  ];
}

/** Packs a panel of any strides and up to 8 columns: (from, k stride, column stride, k, columns, stored columns, to); columns past the last become 0. */
export function packAnyPanel(asm: Asm): string {
  return asm.fn('pack panel', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32'], undefined, (f, [from, kStride, columnStride, k, columns, stored, to]) => {
    const { m } = asm;
    const [i, p] = [f.local('i32'), f.local('i32')];
    const top = f.label('k');
    return [m.loop(top, m.block(null, [
      f.set(p, f.get(from!)),
      f.loop(i, asm.i32(0), () => f.get(stored!), 1, [
        f.if(m.i32.lt_u(f.get(i), f.get(columns!)),
          [m.f32.store(0, 4, f.get(to!), m.f32.load(0, 4, f.get(p))), f.set(p, asm.add(f.get(p), f.get(columnStride!)))],
          [m.f32.store(0, 4, f.get(to!), asm.f32(0))]),
        f.inc(to!, 4),
      ]),
      f.set(from!, asm.add(f.get(from!), f.get(kStride!))),
      m.br(top, f.tee(k!, asm.sub(f.get(k!), asm.i32(1)))),
    ]))];
  });
}

/** Copies a row of k elements that lie apart: (from, stride, k, to). */
export function packRow(asm: Asm): string {
  return asm.fn('pack row', ['i32', 'i32', 'i32', 'i32'], undefined, (f, [from, stride, k, to]) => {
    const top = f.label('k');
    return [asm.m.loop(top, asm.m.block(null, [
      asm.m.f32.store(0, 4, f.get(to!), asm.m.f32.load(0, 4, f.get(from!))),
      f.set(from!, asm.add(f.get(from!), f.get(stride!))),
      f.inc(to!, 4),
      asm.m.br(top, f.tee(k!, asm.sub(f.get(k!), asm.i32(1)))),
    ]))];
  });
}

/** Copies 4 rows of k elements, the rows side by side and the elements of each apart: (from, stride, k, to, bytes from a copied row to the next). Transposes 4 x 4 at a time. */
export function packFourRows(asm: Asm): string {
  return asm.fn('pack 4 rows', ['i32', 'i32', 'i32', 'i32', 'i32'], undefined, (f, [from, stride, k, to, rowStride]) => {
    const steps = Array.from({ length: 4 }, () => f.local('i32'));
    const rows = [to!, ...Array.from({ length: 3 }, () => f.local('i32'))];
    const { m } = asm;
    const four = f.label('four');
    const one = f.label('one');
    return [
      ...rows.slice(1).map((r, i) => f.set(r, asm.add(f.get(rows[i]!), f.get(rowStride!)))),
      f.if(m.i32.ge_u(f.get(k!), asm.i32(4)), [m.loop(four, m.block(null, [
        f.set(steps[0]!, f.get(from!)),
        ...steps.slice(1).map((s, i) => f.set(s, asm.add(f.get(steps[i]!), f.get(stride!)))),
        ...transposeInto(f, steps, rows, [0, 0, 0, 0]),
        f.set(from!, asm.add(f.get(steps[3]!), f.get(stride!))),
        ...rows.map((r) => f.inc(r, 16)),
        f.set(k!, asm.plus(f.get(k!), -4)),
        m.br(four, m.i32.ge_u(f.get(k!), asm.i32(4))),
      ]))]),
      f.if(f.get(k!), [m.loop(one, m.block(null, [
        ...rows.flatMap((r, i) => [m.f32.store(0, 4, f.get(r), m.f32.load(4 * i, 4, f.get(from!))), f.inc(r, 4)]),
        f.set(from!, asm.add(f.get(from!), f.get(stride!))),
        f.set(k!, asm.plus(f.get(k!), -1)),
        m.br(one, f.get(k!)),
      ]))]),
    ];
  });
}
