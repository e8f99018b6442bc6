/** The transforms of Winograd tiles, four channels at a time. Both are two passes of a one-dimensional transform through a small buffer. */
import { winograd } from '../../../ir/ops/packing/winograd.ts';
import type { Asm, E, Fn, Local, Ty, VLocal, Vec } from '../asm.ts';
import { applyEpilogue, storeResult, type Epilogue } from './epilogue.ts';

/** Bytes of the buffer between the passes. */
export const transformBuffer = 6 * 6 * 16;

/** Bᵀ d for one column: at 0 and at infinity the even and odd parts of Π(x²-a²), at each pair ±a an even part plus or minus an odd part. */
function inputLine(f: Fn, tile: 2 | 4, d: readonly VLocal[], store: (position: number, v: Vec) => E): E[] {
  const { asm } = f;
  const { pairs, side } = winograd(tile);
  const get = (i: number): Vec => f.vget(d[i]!);
  const squares = pairs.map((a) => a * a);
  const [s = 0, q = 1] = squares;
  // x(x±a)·Π over other pairs b of (x²-b²); F(2,3) has one pair, F(4,3) two.
  if (tile === 2) {
    const odd = f.vlocal();
    return [
      store(0, scaled(f, get(2), get(0), -s)),
      f.vset(odd, times(f, get(1), pairs[0]!)),
      store(1, asm.vadd(get(2), f.vget(odd))),
      store(2, asm.vsub(get(2), f.vget(odd))),
      store(side - 1, scaled(f, get(3), get(1), -s)),
    ];
  }
  const [even, odd] = [f.vlocal(), f.vlocal()];
  const out: E[] = [
    store(0, scaled(f, scaled(f, get(4), get(2), -(s + q)), get(0), s * q)),
    store(side - 1, scaled(f, scaled(f, get(5), get(3), -(s + q)), get(1), s * q)),
  ];
  pairs.forEach((a, i) => {
    const other = squares[1 - i]!;
    out.push(
      f.vset(even, scaled(f, get(4), get(2), -other)),
      f.vset(odd, times(f, scaled(f, get(3), get(1), -other), a)),
      store(1 + 2 * i, asm.vadd(f.vget(even), f.vget(odd))),
      store(2 + 2 * i, asm.vsub(f.vget(even), f.vget(odd))),
    );
  });
  return out;
}

/** Aᵀ m for one column: sums and differences of each pair, times even and odd powers of a. */
function outputLine(f: Fn, tile: 2 | 4, m: readonly VLocal[], store: (result: number, v: Vec) => readonly E[]): E[] {
  const { asm } = f;
  const { pairs, side } = winograd(tile);
  const get = (i: number): Vec => f.vget(m[i]!);
  const sums = pairs.map(() => f.vlocal());
  const differences = pairs.map(() => f.vlocal());
  const out: E[] = pairs.flatMap((_, i) => [
    f.vset(sums[i]!, asm.vadd(get(1 + 2 * i), get(2 + 2 * i))),
    f.vset(differences[i]!, asm.vsub(get(1 + 2 * i), get(2 + 2 * i))),
  ]);
  for (let power = 0; power < tile; power++) {
    const terms = power % 2 === 0 ? sums : differences;
    const start: Vec | undefined = power === 0 ? get(0) : power === tile - 1 ? get(side - 1) : undefined;
    const value = terms.reduce<Vec | undefined>((v, t, i) => {
      const factor = pairs[i]! ** power;
      return v === undefined ? times(f, f.vget(t), factor) : scaled(f, v, f.vget(t), factor);
    }, start);
    out.push(...store(power, value!));
  }
  return out;
}

/** a + k·b. */
function scaled(f: Fn, a: Vec, b: Vec, k: number): Vec {
  if (k === 1) return f.asm.vadd(a, b);
  if (k === -1) return f.asm.vsub(a, b);
  return f.asm.vmadd(b, f.vconst(k), a);
}
const times = (f: Fn, a: Vec, k: number): Vec => (k === 1 ? a : f.asm.vmul(a, f.vconst(k)));

/**
 * Transforms one input tile: (source, row stride, pixel stride, target, position stride, vectors of channels, buffer). The target of position p is
 * target + p · position stride, all channels side by side.
 */
export function inputTransform(asm: Asm, tile: 2 | 4): string {
  const { side } = winograd(tile);
  return asm.fn(`winograd input ${tile}`, new Array<Ty>(7).fill('i32'), undefined, (f, [source, rowStride, pixelStride, target, positionStride, vectors, buffer]) => {
    const local = (): Local => f.local('i32');
    const [i, p, t, column] = [local(), local(), local(), local()] as [Local, Local, Local, Local];
    const rows = Array.from({ length: side }, local);
    const d = Array.from({ length: side }, () => f.vlocal());
    const top = f.label('channels');
    return [asm.m.loop(top, asm.m.block(null, [
      // Columns: d[·][j] -> buffer[·][j]
      f.set(rows[0]!, f.get(source!)),
      ...rows.slice(1).map((r, k) => f.set(r, asm.add(f.get(rows[k]!), f.get(rowStride!)))),
      f.set(column, f.get(buffer!)),
      f.repeat(i, 0, side, 1, [
        ...rows.map((r, k) => f.vset(d[k]!, asm.vload(r, 0))),
        ...inputLine(f, tile, d, (position, v) => asm.vstore(column, 16 * side * position, v)),
        ...rows.map((r) => f.set(r, asm.add(f.get(r), f.get(pixelStride!)))),
        f.inc(column, 16),
      ]),
      // Rows: buffer[i][·] -> positions i·side ..
      f.set(p, f.get(buffer!)),
      f.set(t, f.get(target!)),
      f.repeat(i, 0, side, 1, [
        ...d.map((l, k) => f.vset(l, asm.vload(p, 16 * k))),
        ...lineInOrder(f, side, (store) => inputLine(f, tile, d, store), (v) => [asm.vstore(t, 0, v), f.set(t, asm.add(f.get(t), f.get(positionStride!)))]),
        f.inc(p, 16 * side),
      ]),
      f.inc(source!, 16),
      f.inc(target!, 16),
      asm.m.br(top, f.tee(vectors!, asm.sub(f.get(vectors!), asm.i32(1)))),
    ]))];
  });
}

/** Runs a line whose stores come in any order, and writes its results in the order of positions. */
function lineInOrder(f: Fn, count: number, line: (store: (position: number, v: Vec) => E) => readonly E[], write: (v: Vec) => readonly E[]): E[] {
  const results = Array.from({ length: count }, () => f.vlocal());
  return [...line((position, v) => f.vset(results[position]!, v)), ...results.flatMap((l) => write(f.vget(l)))];
}

/** Parameters of an epilogue operand here: its pointer, and the row and pixel strides of one that varies along pixels. */
const operandParams = (e: Epilogue): number => e.operands.reduce((n, o) => n + (o.varies ? 3 : 1), 0);

/**
 * Transforms one tile back and applies the epilogue: (sums, position stride, result, row stride, pixel stride, rows, columns, vectors of channels, buffer,
 * operands...). Rows and columns of the tile that lie past the result's edge are not stored.
 */
export function outputTransform(asm: Asm, tile: 2 | 4, e: Epilogue, bytes: (dtype: Epilogue['dtype']) => number): string {
  const { side } = winograd(tile);
  return asm.fn(`winograd output ${tile} ${e.key}`, new Array<Ty>(9 + operandParams(e)).fill('i32'), undefined, (f, [sums, positionStride, result, rowStride, pixelStride, rows, columns, vectors, buffer, ...extra]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [i, p, t, column, row, pixel] = Array.from({ length: 6 }, local) as [Local, Local, Local, Local, Local, Local];
    const d = Array.from({ length: side }, () => f.vlocal());
    const y = Array.from({ length: tile }, () => f.vlocal());
    // Pointers of the operands at the tile's current row and pixel, in the form that `applyEpilogue` takes.
    let at = 0;
    const operands = e.operands.map((o) => {
      const [pointer, byRow, byPixel] = extra.slice(at, at + 3);
      at += o.varies ? 3 : 1;
      return { o, pointer: pointer!, byRow: byRow!, byPixel: byPixel!, row: o.varies ? local() : pointer!, pixel: o.varies ? local() : pointer! };
    });
    const moving = operands.filter((x) => x.o.varies);
    const params = operands.flatMap((x) => (x.o.varies ? [x.pixel, x.pixel] : [x.pixel]));
    const advance = (l: Local, by: Local): E => f.set(l, asm.add(f.get(l), f.get(by)));
    const top = f.label('channels');
    const finish = (j: number): E => {
      const { steps, value } = applyEpilogue(f, e, y[j]!, params, 0);
      return f.if(m.i32.gt_u(f.get(columns!), asm.i32(j)), [
        ...steps, ...storeResult(f, e, pixel, 0, value, 4),
        ...(j < tile - 1 ? [advance(pixel, pixelStride!), ...moving.map((x) => advance(x.pixel, x.byPixel))] : []),
      ]);
    };
    return [m.loop(top, m.block(null, [
      f.set(p, f.get(sums!)),
      f.set(column, f.get(buffer!)),
      f.repeat(i, 0, side, 1, [
        f.set(t, f.get(p)),
        ...d.flatMap((l, k) => [f.vset(l, asm.vload(t, 0)), ...(k < side - 1 ? [f.set(t, asm.add(f.get(t), asm.times(f.get(positionStride!), side)))] : [])]),
        ...outputLine(f, tile, d, (k, v) => [asm.vstore(column, 16 * side * k, v)]),
        advance(p, positionStride!),
        f.inc(column, 16),
      ]),
      f.set(t, f.get(buffer!)),
      f.set(row, f.get(result!)),
      ...moving.map((x) => f.set(x.row, f.get(x.pointer))),
      f.loop(i, asm.i32(0), () => f.get(rows!), 1, [
        ...d.map((l, k) => f.vset(l, asm.vload(t, 16 * k))),
        ...outputLine(f, tile, d, (k, v) => [f.vset(y[k]!, v)]),
        f.set(pixel, f.get(row)),
        ...moving.map((x) => f.set(x.pixel, f.get(x.row))),
        ...y.map((_, j) => finish(j)),
        f.inc(t, 16 * side),
        advance(row, rowStride!),
        ...moving.map((x) => advance(x.row, x.byRow)),
      ]),
      f.inc(sums!, 16),
      f.inc(result!, 4 * e.columnStride * bytes(e.dtype)),
      ...operands.flatMap((x) => (x.o.columnStride === 0 ? [] : [f.inc(x.pointer, 4 * x.o.columnStride * bytes(x.o.dtype))])),
      m.br(top, f.tee(vectors!, asm.sub(f.get(vectors!), asm.i32(1)))),
    ]))];
  });
}
