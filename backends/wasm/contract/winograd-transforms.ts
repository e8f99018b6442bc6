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

/** A one-dimensional transform of `d` that hands over each of its results with its position. */
type TransformLine = (f: Fn, tile: 2 | 4, d: readonly VLocal[], store: (position: number, v: Vec) => E) => E[];

/** Parameters of a transform of tiles, and of one whose tile may reach over the border of its image. */
export interface TilePlace {
  /** Address of the tile's first pixel, and from row to row and pixel to pixel. */
  readonly source: E;
  readonly rowStride: E;
  readonly pixelStride: E;
  /** Address of position 0, all channels side by side, and from position to position. */
  readonly target: E;
  readonly positionStride: E;
  /** Vectors of channels, and `transformBuffer` bytes between the passes. */
  readonly vectors: E;
  readonly buffer: E;
}

/** A tile whose first row and column are `row` and `column` of an image; pixels outside it are zero and are not read. */
export interface TileBorder {
  readonly row: E;
  readonly column: E;
  readonly high: E;
  readonly wide: E;
}

/** Transforms one input tile, Bᵀ d B. */
export const transformInput = (asm: Asm, tile: 2 | 4, place: TilePlace, border?: TileBorder): E => callTransform(asm, tileTransform(asm, 'input', tile, tile + 2, inputLine, border !== undefined), place, border);

/** Transforms one tile of a result's cotangent, of `tile` rows and columns, to A dy Aᵀ. */
export const transformCotangent = (asm: Asm, tile: 2 | 4, place: TilePlace, border?: TileBorder): E => callTransform(asm, tileTransform(asm, 'cotangent', tile, tile, cotangentLine, border !== undefined), place, border);

const callTransform = (asm: Asm, fn: string, p: TilePlace, b?: TileBorder): E =>
  asm.call(fn, [p.source, p.rowStride, p.pixelStride, p.target, p.positionStride, p.vectors, p.buffer, ...(b ? [b.row, b.column, b.high, b.wide] : [])]);

/** A dy for one column: at 0 the first element, at infinity the last, at each pair ±a the even powers plus or minus the odd ones. */
const cotangentLine: TransformLine = (f, tile, d, store) => {
  const { asm } = f;
  const { pairs, side } = winograd(tile);
  const get = (i: number): Vec => f.vget(d[i]!);
  const [even, odd] = [f.vlocal(), f.vlocal()];
  return [
    store(0, get(0)),
    ...pairs.flatMap((a, i) => [
      f.vset(even, tile === 2 ? get(0) : scaled(f, get(0), get(2), a ** 2)),
      f.vset(odd, tile === 2 ? times(f, get(1), a) : scaled(f, times(f, get(1), a), get(3), a ** 3)),
      store(1 + 2 * i, asm.vadd(f.vget(even), f.vget(odd))),
      store(2 + 2 * i, asm.vsub(f.vget(even), f.vget(odd))),
    ]),
    store(side - 1, get(tile - 1)),
  ];
};

/** Transforms `inner` x `inner` elements of each channel to all positions: columns into the buffer, then rows into place. */
function tileTransform(asm: Asm, name: string, tile: 2 | 4, inner: number, line: TransformLine, border: boolean): string {
  const { m } = asm;
  const { side } = winograd(tile);
  return asm.fn(`winograd ${name} ${tile}${border ? ' border' : ''}`, new Array<Ty>(border ? 11 : 7).fill('i32'), undefined, (f, [source, rowStride, pixelStride, target, positionStride, vectors, buffer, firstRow, firstColumn, high, wide]) => {
    const local = (): Local => f.local('i32');
    const [i, p, t, column] = [local(), local(), local(), local()] as [Local, Local, Local, Local];
    const rows = Array.from({ length: inner }, local);
    const d = Array.from({ length: inner }, () => f.vlocal());
    const top = f.label('channels');
    // Rows outside the image stay at a vector of zeros.
    const steps = rows.map(() => (border ? local() : pixelStride!));
    const zeros = border ? asm.data(new Uint8Array(16)) : 0;
    const isRow = (k: number): E => m.i32.lt_u(asm.plus(f.get(firstRow!), k), f.get(high!));
    const load = rows.map((r, k) => f.vset(d[k]!, asm.vload(r, 0)));
    const clear = (): E[] => d.map((l) => f.vset(l, asm.vsplat(0)));
    return [
      ...(border ? steps.map((step, k) => f.set(step, m.select(isRow(k), f.get(pixelStride!), asm.i32(0)))) : []),
      m.loop(top, m.block(null, [
        // Columns: d[·][j] -> buffer[·][j]
        f.set(rows[0]!, f.get(source!)),
        ...rows.slice(1).map((r, k) => f.set(r, asm.add(f.get(rows[k]!), f.get(rowStride!)))),
        ...(border ? rows.map((r, k) => f.set(r, m.select(isRow(k), f.get(r), asm.i32(zeros)))) : []),
        f.set(column, f.get(buffer!)),
        f.repeat(i, 0, inner, 1, [
          ...(border ? [f.if(m.i32.lt_u(asm.add(f.get(firstColumn!), f.get(i)), f.get(wide!)), load, clear())] : load),
          ...line(f, tile, d, (position, v) => asm.vstore(column, 16 * inner * position, v)),
          ...rows.map((r, k) => f.set(r, asm.add(f.get(r), f.get(steps[k]!)))),
          f.inc(column, 16),
        ]),
        // Rows: buffer[i][·] -> positions i·side ..
        f.set(p, f.get(buffer!)),
        f.set(t, f.get(target!)),
        f.repeat(i, 0, side, 1, [
          ...d.map((l, k) => f.vset(l, asm.vload(p, 16 * k))),
          ...lineInOrder(f, side, (store) => line(f, tile, d, store), (v) => [asm.vstore(t, 0, v), f.set(t, asm.add(f.get(t), f.get(positionStride!)))]),
          f.inc(p, 16 * inner),
        ]),
        f.inc(source!, 16),
        f.inc(target!, 16),
        m.br(top, f.tee(vectors!, asm.sub(f.get(vectors!), asm.i32(1)))),
      ])),
    ];
  });
}

/**
 * Transforms the sums of all positions to the nine taps, Gᵀ m G, four result channels at a time: (sums, target, vectors). Sums of a vector's next position lie `positionBytes` further;
 * the taps of a result channel are stored at the given byte offsets from the target, the next result channel `channelBytes` further.
 */
export function weightTransform(asm: Asm, tile: 2 | 4, positionBytes: number, taps: readonly number[], channelBytes: number): string {
  const { weight, side } = winograd(tile);
  return asm.fn(`winograd weight ${tile} ${positionBytes} ${taps.join(',')} ${channelBytes}`, ['i32', 'i32', 'i32'], undefined, (f, [sums, target, vectors]) => {
    const d = Array.from({ length: side }, () => f.vlocal());
    const half = Array.from({ length: 3 * side }, () => f.vlocal());
    const result = f.vlocal();
    const column = f.local('i32');
    /** Σ over positions of G[position][tap] · d[position]. */
    const combine = (tap: number, from: readonly VLocal[]): Vec => from.reduce<Vec | undefined>((sum, l, position) => {
      const k = weight[position]![tap]!;
      if (k === 0) return sum;
      return sum === undefined ? times(f, f.vget(l), k) : scaled(f, sum, f.vget(l), k);
    }, undefined)!;
    const top = f.label('vector');
    return [asm.m.loop(top, asm.m.block(null, [
      ...Array.from({ length: side }, (_, j) => [
        f.set(column, asm.plus(f.get(sums!), j * positionBytes)),
        ...d.map((l, k) => f.vset(l, asm.vload(column, k * side * positionBytes))),
        ...[0, 1, 2].map((r) => f.vset(half[r * side + j]!, combine(r, d))),
      ]).flat(),
      ...taps.flatMap((offset, t) => {
        const row = Math.floor(t / 3);
        return [f.vset(result, combine(t % 3, half.slice(row * side, row * side + side))), ...storeLanesApart(f, target!, offset, channelBytes, result)];
      }),
      f.inc(sums!, 16),
      f.inc(target!, 4 * channelBytes),
      asm.m.br(top, f.tee(vectors!, asm.sub(f.get(vectors!), asm.i32(1)))),
    ]))];
  });
}

/** Stores the four lanes of a vector `step` bytes apart. */
function storeLanesApart(f: Fn, target: Local, offset: number, step: number, v: VLocal): E[] {
  const { m, simd } = f.asm;
  return [0, 1, 2, 3].map((k) => (simd ? m.v128.store32_lane(offset + k * step, 4, k, f.get(target), f.vget(v)[0]!) : m.f32.store(offset + k * step, 4, f.get(target), f.vget(v)[k]!)));
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
