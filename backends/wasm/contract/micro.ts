/**
 * The micro-kernel of every contraction: a tile of rows x columns kept in registers while the reduction runs.
 *
 * Rows of A are read in place through a table of row pointers (one per tap and row), so that a convolution needs no copy of its input and a matrix
 * product is the case of one tap. B is packed in panels of the tile's columns. The epilogue runs on the registers before the only store.
 */
import type { Asm, E, Fn, Local, Ty, VLocal } from '../asm.ts';
import { laneOf } from '../elementwise/index.ts';
import { dtypes } from '../../../ir/type.ts';
import { applyEpilogue, epilogueParams, nextColumns, nextRow, plainStore, epiloguePass, startValue, storeResult, type Epilogue } from './epilogue.ts';

/** A tile: rows, vectors of 4 columns, and how many columns of the last vector exist (1..4). */
export interface TileShape {
  readonly rows: number;
  readonly vectors: number;
  readonly lastLanes: number;
}

/** What a call of the micro-kernel passes; all sizes in bytes. */
export interface MicroArgs {
  /** Address of the row pointers of the tile's first tap. */
  readonly table: E;
  readonly taps: E;
  /** From the row pointers of one tap to those of the next. */
  readonly tapStride: E;
  /** Bytes of one row that one tap reads: 4 x the channels of a group. */
  readonly run: E;
  /** Added to every row pointer: the offset of a group, a block of the reduction, a Winograd position. */
  readonly rowOffset: E;
  /** The first packed panel. */
  readonly b: E;
  /** Panels to go through with the same rows, for as many tiles side by side (with a heavy epilogue one), and from one to the next. */
  readonly panels: E;
  readonly panelStride: E;
  /** The (first) tile's first result, and from one of its rows to the next. */
  readonly c: () => E;
  readonly rowStride: () => E;
  /** Pointers (and row strides) of the epilogue's operands at the tile, as `epilogueParams` lists them; a new expression each time. */
  readonly extra: () => readonly E[];
}

type Grid = readonly (readonly VLocal[])[];

/** Steps of the reduction per round of the inner loop. */
const unroll = 4;

/** Rows of the largest tile that keeps its sums in registers; with V8's revectorizer the two vectors of a row are one 256-bit register. */
export const maxRows = (asm: Asm): number => (asm.wide ? 10 : asm.simd ? 6 : 2);

/** Computes tiles side by side: a call of the micro-kernel, which is emitted once per module, tile shape and epilogue, and of the pass of a heavy epilogue. */
export function callMicro(asm: Asm, tile: TileShape, epilogue: Epilogue, a: MicroArgs): E[] {
  const args = (): E[] => [a.table, a.taps, a.tapStride, a.run, a.rowOffset, a.b, a.panels, a.panelStride, a.c(), a.rowStride()];
  if (!epilogue.heavy) return [asm.call(microKernel(asm, tile, epilogue), [...args(), ...a.extra()])];
  const pass = epiloguePass(asm, epilogue, tile.vectors, tile.lastLanes);
  return [
    asm.call(microKernel(asm, tile, plainStore()), args()),
    asm.call(pass, [a.c(), a.rowStride(), a.c(), a.rowStride(), asm.i32(tile.rows), ...a.extra()]),
  ];
}

function microKernel(asm: Asm, tile: TileShape, epilogue: Epilogue): string {
  const key = `micro ${tile.rows}x${tile.vectors} last ${tile.lastLanes} ${epilogue.key}`;
  const params: Ty[] = [...new Array<Ty>(10).fill('i32'), ...epilogueParams(epilogue)];
  return asm.fn(key, params, undefined, (f, [table, taps, tapStride, run, rowOffset, b, panels, panelStride, c, rowStride, ...extra]) => {
    const { rows, vectors } = tile;
    // Small tiles keep several partial sums, so that one multiply-add need not wait for the one before it.
    const chains = rows * vectors;
    const parts = chains >= 8 ? 1 : chains >= 4 ? 2 : 4;
    const sums = Array.from({ length: parts }, () => grid(rows, vectors, () => f.vlocal()));
    const acc = sums[0]!;
    const pointers = Array.from({ length: rows }, () => f.local('i32'));
    const [entry, left, packed, result] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
    const current = extra.map(() => f.local('i32'));
    const m = asm.m;
    const start = [
      ...acc.flatMap((row, i) => row.map((l, j) => f.vset(l, i === 0 ? startValue(f, epilogue, extra, j) : f.vget(acc[0]![j]!)))),
      ...sums.slice(1).flat(2).map((l) => f.vset(l, asm.vsplat(0))),
    ];
    const tapLoop = f.label('tap');
    const reduce = m.loop(tapLoop, m.block(null, [
      ...pointers.map((p, i) => f.set(p, asm.add(m.i32.load(4 * i, 4, f.get(entry)), f.get(rowOffset!)))),
      runLoop(f, sums, pointers, packed, run!),
      f.set(entry, asm.add(f.get(entry), f.get(tapStride!))),
      m.br(tapLoop, f.tee(left, asm.sub(f.get(left), asm.i32(1)))),
    ]));
    const join = sums.slice(1).flatMap((part) => part.flatMap((row, i) => row.map((l, j) => f.vset(acc[i]![j]!, asm.vadd(f.vget(acc[i]![j]!), f.vget(l))))));
    const columns = 4 * vectors;
    // The loop over panels is in here because a call costs as much as some steps of a reduction.
    const panelLoop = f.label('panel');
    return [m.loop(panelLoop, m.block(null, [
      ...start,
      f.set(entry, f.get(table!)), f.set(left, f.get(taps!)), f.set(packed, f.get(b!)),
      reduce, ...join,
      f.set(result, f.get(c!)), ...current.map((l, i) => f.set(l, f.get(extra[i]!))),
      ...storeTile(f, tile, epilogue, acc, result, rowStride!, current),
      f.set(b!, asm.add(f.get(b!), f.get(panelStride!))),
      f.inc(c!, columns * epilogue.columnStride * dtypes[epilogue.dtype].bytes), ...nextColumns(f, epilogue, extra, columns),
      m.br(panelLoop, f.tee(panels!, asm.sub(f.get(panels!), asm.i32(1)))),
    ]))];
  });
}

/** Adds rows[run] · panel[run] to the partial sums in turn; advances the panel. */
function runLoop(f: Fn, sums: readonly Grid[], pointers: readonly Local[], b: Local, run: Local): E {
  const { asm } = f;
  const { m } = asm;
  const end = f.local('i32');
  const lead = pointers[0]!;
  const bytes = 4 * unroll;
  const loopWhile = (step: number, limit: () => E): E => {
    const label = f.label('k');
    return f.if(m.i32.lt_u(f.get(lead), limit()), [
      m.loop(label, m.block(null, [
        ...steps(f, sums, pointers, b, step),
        ...[...pointers].reverse().map((p) => f.inc(p, 4 * step)),
        m.br(label, m.i32.lt_u(f.get(lead), limit())),
      ])),
    ]);
  };
  const whole = f.local('i32');
  return m.block(null, [
    f.set(end, asm.add(f.get(lead), f.get(run))),
    f.set(whole, asm.add(f.get(lead), m.i32.and(f.get(run), asm.i32(-bytes)))),
    loopWhile(unroll, () => f.get(whole)),
    loopWhile(1, () => f.get(end)),
  ]);
}

function steps(f: Fn, sums: readonly Grid[], pointers: readonly Local[], b: Local, count: number): E[] {
  const { asm } = f;
  const vectors = sums[0]![0]!.length;
  const panel = Array.from({ length: vectors }, () => f.vlocal());
  const a = f.vlocal();
  const out: E[] = [];
  for (let k = 0; k < count; k++) {
    panel.forEach((l, j) => out.push(f.vset(l, asm.vload(b, 16 * (k * vectors + j)))));
    sums[k % sums.length]!.forEach((row, i) => {
      out.push(f.vset(a, asm.vload1(pointers[i]!, 4 * k, f)));
      row.forEach((l, j) => out.push(f.vset(l, asm.vmadd(f.vget(a), f.vget(panel[j]!), f.vget(l)))));
    });
  }
  out.push(f.inc(b, 16 * vectors * count));
  return out;
}

function storeTile(f: Fn, tile: TileShape, epilogue: Epilogue, acc: Grid, c: Local, rowStride: Local, extra: readonly Local[]): E[] {
  const { asm } = f;
  const out: E[] = [];
  acc.forEach((row, i) => {
    const done = row.map(() => f.vlocal(laneOf(epilogue.dtype)));
    row.forEach((l, j) => {
      const { steps, value } = applyEpilogue(f, epilogue, l, extra, j);
      out.push(...steps, f.vset(done[j]!, value));
    });
    // The stores of a row stand side by side: V8's revectorizer pairs them only then.
    done.forEach((l, j) => out.push(...storeResult(f, epilogue, c, j, f.vget(l), j === tile.vectors - 1 ? tile.lastLanes : 4)));
    if (i < tile.rows - 1) out.push(f.set(c, asm.add(f.get(c), f.get(rowStride))), ...nextRow(f, epilogue, extra));
  });
  return out;
}

function grid<T>(rows: number, columns: number, make: () => T): T[][] {
  return Array.from({ length: rows }, () => Array.from({ length: columns }, make));
}
