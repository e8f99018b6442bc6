/** Cuts a block of rows and panels into tiles and calls the micro-kernel for each. */
import type { E, Fn, Local } from '../asm.ts';
import { fetch } from '../fetch.ts';
import type { Epilogue } from './epilogue.ts';
import { callMicro, maxRows, type TileShape } from './micro.ts';

/** Tiles of one height that follow each other. */
interface RowRun { readonly height: number; readonly count: number }

/** Cuts rows into tiles whose heights differ by one at most: a tile of 1 row costs nearly as much as one of 4. */
export function rowRuns(rows: number, highest: number): RowRun[] {
  const tiles = Math.ceil(rows / highest);
  const low = Math.floor(rows / tiles);
  const high = rows - low * tiles;
  return [{ height: low + 1, count: high }, { height: low, count: tiles - high }].filter((r) => r.count > 0);
}

/** A block of the result to compute. Everything in bytes; expressions are made anew for each use. */
export interface Block {
  readonly rows: number;
  /** Whole panels: first and past the last (locals), of the panels that `b` holds. */
  readonly from: Local;
  readonly to: Local;
  /** Whole panels per pass over the rows: as many as stay in cache. */
  readonly panelsPerPass: number;
  /** Columns of the last, narrower panel (1..7; 0: none) and the condition for it to belong to this block. */
  readonly lastColumns: number;
  readonly hasLast: () => E;
  /** Number of whole panels before the last one. */
  readonly wholePanels: number;
  /** Row pointers of the first tap. */
  readonly table: () => E;
  readonly taps: number;
  readonly tapStride: () => E;
  readonly run: number;
  readonly rowOffset: () => E;
  /** First panel. */
  readonly b: () => E;
  readonly panelBytes: number;
  /** The result at the block's first row, column 0. */
  readonly c: () => E;
  readonly rowStride: number;
  /** Epilogue operands at the block's first row, column 0, in the epilogue's order. */
  readonly extra: readonly { readonly pointer: () => E; readonly rowStride: number; readonly columnBytes: number }[];
  readonly columnBytes: number;
  readonly epilogue: Epilogue;
}

/** The loops over the tiles of a block: passes of panels, rows, panels. The table of row pointers has an entry of 4 bytes per row. */
export function tileLoops(f: Fn, k: Block): E[] {
  const { asm } = f;
  const { m } = asm;
  const row = f.local('i32');
  const panel = f.local('i32');
  const runs = rowRuns(k.rows, maxRows(asm));
  const overRows = (body: (height: number) => readonly E[]): E[] => {
    let first = 0;
    return runs.map(({ height, count }) => {
      const start = first;
      first += height * count;
      return count === 1 ? m.block(null, [f.set(row, asm.i32(start)), ...body(height)]) : f.repeat(row, start, first, height, body(height));
    });
  };
  const call = (tile: TileShape, at: () => E, panels: E): E[] => callMicro(asm, tile, k.epilogue, {
    table: asm.add(k.table(), asm.times(f.get(row), 4)),
    taps: asm.i32(k.taps),
    tapStride: k.tapStride(),
    run: asm.i32(k.run),
    rowOffset: k.rowOffset(),
    b: asm.add(k.b(), asm.times(at(), k.panelBytes)),
    panels,
    panelStride: asm.i32(k.panelBytes),
    c: () => asm.add(k.c(), asm.add(asm.times(f.get(row), k.rowStride), asm.times(at(), 8 * k.columnBytes))),
    rowStride: () => asm.i32(k.rowStride),
    extra: () => k.epilogue.operands.flatMap((o, i) => {
      const { pointer, rowStride, columnBytes } = k.extra[i]!;
      const p = columnBytes === 0 ? pointer() : asm.add(pointer(), asm.times(at(), 8 * columnBytes));
      return o.varies ? [asm.add(p, asm.times(f.get(row), rowStride)), asm.i32(rowStride)] : [p];
    }),
  });
  const out: E[] = [];
  if (k.wholePanels > 0) {
    const passEnd = f.local('i32');
    // A panel that one tile alone reads need not stay: it goes straight to the first-level cache.
    const panelsPerPass = runs.length === 1 && runs[0]!.count === 1 ? 1 : k.panelsPerPass;
    const passStart = f.local('i32');
    const tiles = (height: number): E[] => {
      const tile = { rows: height, vectors: 2, lastLanes: 4 };
      // A heavy epilogue follows each tile while that is in the first-level cache.
      return k.epilogue.heavy
        ? [f.loop(panel, f.get(passStart), () => f.get(passEnd), 1, call(tile, () => f.get(panel), asm.i32(1)))]
        : call(tile, () => f.get(passStart), asm.sub(f.get(passEnd), f.get(passStart)));
    };
    out.push(
      f.loop(passStart, f.get(k.from), () => f.get(k.to), panelsPerPass, [
        f.set(passEnd, asm.plus(f.get(passStart), panelsPerPass)),
        f.if(m.i32.gt_u(f.get(passEnd), f.get(k.to)), [f.set(passEnd, f.get(k.to))]),
        // Weights come from memory, and the tiles alone ask for them too late and a few at a time: measured on the last layers of ResNet-50, this makes them 1.15 times as fast.
        ...fetch(asm, asm.add(k.b(), asm.times(f.get(passStart), k.panelBytes)), asm.mul(asm.sub(f.get(passEnd), f.get(passStart)), asm.i32(k.panelBytes))),
        ...overRows(tiles),
      ]),
    );
  }
  if (k.lastColumns > 0) {
    const tile = (height: number): TileShape => ({ rows: height, vectors: k.lastColumns > 4 ? 2 : 1, lastLanes: ((k.lastColumns - 1) % 4) + 1 });
    out.push(f.if(k.hasLast(), overRows((height) => call(tile(height), () => asm.i32(k.wholePanels), asm.i32(1)))));
  }
  return out;
}
