/** Copies between two layouts of the same elements. */
import type { Placed } from '../../ir/tile.ts';
import { dtypes, sizeOf, type DType } from '../../ir/type.ts';
import type { Asm, E, Fn, Local } from './asm.ts';
import { loadElement, storeElement } from './dtype.ts';
import type { KernelCode } from './kernel.ts';
import { collapse, cutWithin, emitNest, kernelOfParts, type NestDim, type Part, type Row } from './nest.ts';

/** Copies `from` to `to`, of the same shape; pointers in this order. */
export function emitCopy(asm: Asm, from: Placed, to: Placed): KernelCode {
  const { bytes } = dtypes[from.type.dtype];
  const { shape } = from.type;
  if (sizeOf(shape) === 0) return { fn: '', chunks: 0, scratchBytes: 0 };
  const dims = shape.map((size, i): NestDim => ({ name: `d${i}`, size, steps: [from.strides[i]! * bytes, to.strides[i]! * bytes] }));
  return kernelOfParts(asm, `copy ${bytes} [${shape.join(',')}] ${from.strides.join(',')} ${to.strides.join(',')}`, 2, copyParts(asm, bytes, dims));
}

/** The integer dtype that moves elements of a width as they are. */
export const rawType = (bytes: 1 | 2 | 4 | 8): DType => (({ 1: 'u8', 2: 'u16', 4: 'i32', 8: 'i64' }) as const)[bytes];

/** A copy of `steps[source]` to `steps[target]` over dims in any order; `at` adds constant byte offsets to the two pointers. */
export function copyParts(asm: Asm, bytes: 1 | 2 | 4 | 8, all: readonly NestDim[], source = 0, target = 1, at: readonly [number, number] = [0, 0]): Part[] {
  const two = all.map((d): NestDim => ({ ...d, steps: [d.steps[source]!, d.steps[target]!] }));
  const ordered = two.sort((a, b) => Math.abs(b.steps[1]!) - Math.abs(a.steps[1]!) || Math.abs(b.steps[0]!) - Math.abs(a.steps[0]!));
  const dims = collapse(ordered);
  if (dims.length === 0) dims.push({ name: 'one', size: 1, steps: [bytes, bytes] });
  const part = (list: readonly NestDim[], shift: readonly [number, number], row: (f: Fn, r: Row, d: NestDim) => E[]): Part => {
    const cut = cutWithin(asm, list, { elements: [bytes, bytes] });
    return {
      cut,
      bytes: cut.bytes,
      work: list.reduce((n, d) => n * d.size, 1),
      emit(f, chunk, ptrs) {
        const bases = [ptrs[source]!, ptrs[target]!].map((p, i) => {
          const moved = f.local('i32');
          return { moved, set: f.set(moved, asm.plus(f.get(p), at[i]! + shift[i]!)) };
        });
        return [...bases.map((b) => b.set), ...emitNest(f, list, cut, chunk, bases.map((b) => b.moved), { row: (r) => row(f, r, list.at(-1)!) })];
      },
    };
  };
  const plainRow = (f: Fn, r: Row, d: NestDim): E[] => copyRow(f, r, bytes, d.steps[0]!, d.steps[1]!);
  const inner = dims.at(-1)!;
  const across = dims.findIndex((d) => d.steps[0] === bytes);
  const blocked = asm.simd && bytes === 4 && inner.steps[1] === 4 && inner.steps[0] !== 4 && inner.steps[0] !== 0 && inner.size >= 4 && across >= 0 && dims[across]!.size >= 4;
  if (!blocked) return [part(dims, [0, 0], plainRow)];
  // Four rows of the dim that runs through the source at once: squares of 4x4 are turned in registers.
  const d = dims[across]!;
  const others = dims.filter((x) => x !== d && x !== inner);
  const [s, t] = d.steps as [number, number];
  const fours = Math.floor(d.size / 4);
  const parts = [part([...others, { name: 'fours', size: fours, steps: [4 * s, 4 * t] }, inner], [0, 0], (f, r) => turnRow(f, r, inner.steps[0]!, t))];
  if (d.size % 4 > 0) parts.push(part([...others, { name: 'rest', size: d.size % 4, steps: d.steps }, inner], [4 * fours * s, 4 * fours * t], plainRow));
  return parts;
}

/** One row of a copy: `s` and `t` are the bytes between neighbours of source and target. */
export function copyRow(f: Fn, row: Row, bytes: 1 | 2 | 4 | 8, s: number, t: number): E[] {
  const { asm } = f;
  const { m } = asm;
  const count = (): E => (typeof row.count === 'number' ? asm.i32(row.count) : f.get(row.count));
  const [from, to] = row.ptrs as [Local, Local];
  if (s === bytes && t === bytes && (typeof row.count !== 'number' || row.count * bytes >= 64)) return [m.memory.copy(f.get(to), f.get(from), asm.times(count(), bytes))];
  const d = rawType(bytes);
  const [p, q, i] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const one = (k: number): E => storeElement(asm, d, at(f, q, k * t), loadElement(asm, d, at(f, p, k * s)));
  const copies = [f.set(p, f.get(from)), f.set(q, f.get(to))];
  if (typeof row.count === 'number') {
    const fours = Math.floor(row.count / 4);
    const tail = Array.from({ length: row.count % 4 }, (_, k) => one(k));
    return [...copies, ...(fours > 0 ? [f.repeat(i, 0, fours, 1, [one(0), one(1), one(2), one(3), f.inc(p, 4 * s), f.inc(q, 4 * t)])] : []), ...tail];
  }
  return [...copies, f.loop(i, asm.i32(0), count, 1, [one(0), f.inc(p, s), f.inc(q, t)])];
}

const at = (f: Fn, p: Local, by: number): E => f.asm.plus(f.get(p), by);

/** A row of 4x4 squares: the source runs through memory down the columns (four rows), the target along the row; rows of the target are `t` apart. */
function turnRow(f: Fn, row: Row, s: number, t: number): E[] {
  const { asm } = f;
  const { m } = asm;
  const [p, q, left] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const v = [0, 1, 2, 3].map(() => f.local('v128'));
  const h = [0, 1, 2, 3].map(() => f.local('v128'));
  const mix = (a: Local, b: Local, lanes: readonly number[]): E => m.i8x16.shuffle(f.get(a), f.get(b), lanes.flatMap((l) => [4 * l, 4 * l + 1, 4 * l + 2, 4 * l + 3]));
  const top = f.label('square');
  const store = (k: number, e: E): E => m.v128.store(0, 4, at(f, q, k * t), e);
  const square = [
    ...v.map((l, k) => f.set(l, m.v128.load(0, 4, at(f, p, k * s)))),
    f.set(h[0]!, mix(v[0]!, v[1]!, [0, 4, 1, 5])),
    f.set(h[1]!, mix(v[2]!, v[3]!, [0, 4, 1, 5])),
    f.set(h[2]!, mix(v[0]!, v[1]!, [2, 6, 3, 7])),
    f.set(h[3]!, mix(v[2]!, v[3]!, [2, 6, 3, 7])),
    store(0, mix(h[0]!, h[1]!, [0, 1, 4, 5])),
    store(1, mix(h[0]!, h[1]!, [2, 3, 6, 7])),
    store(2, mix(h[2]!, h[3]!, [0, 1, 4, 5])),
    store(3, mix(h[2]!, h[3]!, [2, 3, 6, 7])),
    f.inc(p, 4 * s), f.inc(q, 16), f.inc(left, -4), m.br(top),
  ];
  const one = f.label('column');
  const column = [
    f.set(v[0]!, m.v128.load(0, 4, f.get(p))),
    ...[0, 1, 2, 3].map((k) => m.v128.store32_lane(0, 4, k, at(f, q, k * t), f.get(v[0]!))),
    f.inc(p, s), f.inc(q, 4), f.inc(left, -1), m.br(one),
  ];
  return [
    f.set(p, f.get(row.ptrs[0]!)),
    f.set(q, f.get(row.ptrs[1]!)),
    f.set(left, typeof row.count === 'number' ? asm.i32(row.count) : f.get(row.count)),
    m.loop(top, f.if(m.i32.ge_s(f.get(left), asm.i32(4)), square)),
    m.loop(one, f.if(m.i32.gt_s(f.get(left), asm.i32(0)), column)),
  ];
}
