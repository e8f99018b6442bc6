/** Matrix products by one level of Strassen's algorithm (ir/ops/packing/strassen.ts): 7 products of quarters, whose sums never leave the caches. */
import { panelColumns } from '../../../ir/ops/packing/panels.ts';
import { sumCount } from '../../../ir/ops/packing/strassen.ts';
import { dtypes } from '../../../ir/type.ts';
import type { Asm, E, Local, Ty } from '../asm.ts';
import type { KernelCode } from '../kernel.ts';
import { cutHalves, pairBytes } from './cut-halves.ts';
import { adding, epiloguePass, plainStore, type Epilogue } from './epilogue.ts';
import { callMicro, maxRows, type TileShape } from './micro.ts';
import { evenRows } from './rows.ts';
import type { TileSpace } from './space.ts';
import { addPanels, panelSums } from './strassen-sums.ts';
import { rowRuns } from './tiles.ts';

export interface StrassenProduct {
  readonly key: string;
  /** Kernel operands; the result's pointer follows them. */
  readonly operands: number;
  /** Positions of the left operand, the packed right one, and the sums of the left one. */
  readonly roots: readonly [left: number, packed: number, sums: number];
  /** One outer block: all rows are evenly spaced. */
  readonly space: TileSpace;
  readonly epilogue: Epilogue;
  readonly k: number;
  readonly columns: number;
  /** Bytes from one row of the left operand to the next. */
  readonly leftStride: number;
}

/** Where a quarter of the result, or a buffer of its shape, lies: its tile's first element, and from one row to the next. */
interface Place { readonly at: () => E; readonly rowStride: number }

/**
 * Emits the kernel. A chunk goes through some panels of the left half of the columns together with those at the same places in the right half, a pass of them at a time: it sums their quarters into
 * scratch, then for each tile of upper rows, and of the lower ones that belong to them, runs the 7 products one after the other over all panels of the pass, from one buffer of the tile's sums to the next.
 */
export function strassenProduct(asm: Asm, p: StrassenProduct): KernelCode {
  const { space, k, columns } = p;
  const [upper, lower] = [Math.ceil(space.rows / 2), Math.floor(space.rows / 2)];
  const height = maxRows(asm);
  // Two rows of the left operand, and four sums of their halves.
  const rowBytes = height * (2 * 4 * k + sumCount * 2 * k);
  const cut = cutHalves(asm.division, { rows: upper, columns: columns / 2, k, rowBytes });
  const align = (n: number): number => Math.ceil(n / 64) * 64;
  const tableBytes = align(4 * cut.rowBlock);
  const halfPanel = (4 * panelColumns * k) / 2;
  const panelArea = panelSums * cut.panelsPerPass * halfPanel;
  const bufferStride = 4 * panelColumns * cut.panelsPerPass;
  const bufferBytes = height * bufferStride;
  const view = space.tensors[0]!;
  const columnBytes = view.columnStride * dtypes[p.epilogue.dtype].bytes;

  const fn = asm.fn(`strassen ${p.key}`, Array.from({ length: p.operands + 3 }, (): Ty => 'i32'), undefined, (f, [chunk, scratch, ...pointers]) => {
    const { m } = asm;
    const local = (): Local => f.local('i32');
    const [panelBlock, rowBlock, start, from, to, passStart, count, row, upperTable, lowerTable, sumTable, panels, first, second, c] = Array.from({ length: 15 }, local) as [Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local, Local];
    const operandBase = p.epilogue.operands.map(() => local());
    const [left, packed, sums] = p.roots.map((i) => pointers[i]!) as [Local, Local, Local];
    const rightHalf = (columns / 2) * 4 * k;

    /** A half panel of the weights, by its quarter, or of the sums of panels, by its number. */
    const weights = (down: boolean, right: boolean): E => asm.plus(asm.add(f.get(packed), asm.times(f.get(passStart), 2 * halfPanel)), (right ? rightHalf : 0) + (down ? halfPanel : 0));
    const sumOfPanels = (t: number): E => asm.plus(f.get(panels), t * cut.panelsPerPass * halfPanel);
    const buffer = (b: Local): Place => ({ at: () => f.get(b), rowStride: bufferStride });
    const result = (down: boolean, right: boolean): Place => ({ at: () => offset(c, view.rowStride, columnBytes, down, right), rowStride: view.rowStride });
    const offset = (base: Local, rowStride: number, bytes: number, down: boolean, right: boolean): E =>
      asm.plus(asm.add(f.get(base), asm.add(asm.times(f.get(row), rowStride), asm.times(f.get(passStart), panelColumns * bytes))), (down ? upper * rowStride : 0) + (right ? (columns / 2) * bytes : 0));
    const operandArgs = (down: boolean, right: boolean): E[] => p.epilogue.operands.flatMap((o, i) => {
      const { rowStride } = space.tensors[1 + i]!;
      const at = offset(operandBase[i]!, rowStride, o.columnStride * dtypes[o.dtype].bytes, down, right);
      return o.varies ? [at, asm.i32(rowStride)] : [at];
    });
    const bufferArgs = (buffers: readonly Local[]): E[] => buffers.flatMap((b) => [f.get(b), asm.i32(bufferStride)]);

    /** One product over the panels of the pass; `rows` from a table, with an offset of some bytes; panels of the weights are twice as far apart as sums of them. */
    const product = (tile: TileShape, rows: { readonly table: Local; readonly offset: number }, b: E, ofWeights: boolean, into: Place, epilogue: Epilogue, extra: () => readonly E[]): E[] => callMicro(asm, tile, epilogue, {
      table: asm.add(f.get(rows.table), asm.times(f.get(row), 4)), taps: asm.i32(1), tapStride: asm.i32(0), run: asm.i32(2 * k), rowOffset: asm.i32(rows.offset),
      b, panels: f.get(count), panelStride: asm.i32(ofWeights ? 2 * halfPanel : halfPanel), c: into.at, rowStride: () => asm.i32(into.rowStride), extra,
    });
    /** A product whose sum with some buffers is a quarter of the result. */
    const finish = (tile: TileShape, rows: { readonly table: Local; readonly offset: number }, b: E, ofWeights: boolean, buffers: readonly Local[], down: boolean, right: boolean): E[] => {
      const place = result(down, right);
      if (!p.epilogue.heavy) return product(tile, rows, b, ofWeights, place, adding(p.epilogue, buffers.length), () => [...operandArgs(down, right), ...bufferArgs(buffers)]);
      return [...product(tile, rows, b, ofWeights, place, adding(plainStore(), buffers.length), () => bufferArgs(buffers)), ...pass(tile, p.epilogue, place, place, () => operandArgs(down, right))];
    };
    /** The epilogue over stored sums, panel by panel. */
    const pass = (tile: TileShape, epilogue: Epilogue, sumsAt: Place, into: Place, args: () => readonly E[]): E[] => {
      const fn = epiloguePass(asm, epilogue, 2, 4);
      const params = epilogue.operands.flatMap((o) => (o.varies ? [o, undefined] : [o]));
      const values = [sumsAt.at(), into.at(), ...args()];
      const [sumsLocal, intoLocal, ...argLocals] = values.map(() => local());
      const i = local();
      const moved = (o: Epilogue['operands'][number] | undefined): number => (o ? panelColumns * o.columnStride * dtypes[o.dtype].bytes : 0);
      return [
        ...[sumsLocal!, intoLocal!, ...argLocals].map((l, v) => f.set(l, values[v]!)),
        f.loop(i, asm.i32(0), () => f.get(count), 1, [
          asm.call(fn, [f.get(sumsLocal!), asm.i32(sumsAt.rowStride), f.get(intoLocal!), asm.i32(into.rowStride), asm.i32(tile.rows), ...argLocals.map((l) => f.get(l))]),
          f.inc(sumsLocal!, 4 * panelColumns), f.inc(intoLocal!, panelColumns * columnBytes),
          ...argLocals.flatMap((l, a) => (moved(params[a]) === 0 ? [] : [f.inc(l, moved(params[a]))])),
        ]),
      ];
    };

    /** The 7 products of a tile of upper rows and of the first `below` lower ones. */
    const tiles = (height: number, below: number): E[] => {
      const tile = (rows: number): TileShape => ({ rows, vectors: 2, lastLanes: 4 });
      const half = 2 * k;
      const sum = (s: number): { readonly table: Local; readonly offset: number } => ({ table: sumTable, offset: (s - 1) * half });
      const plus = (b: Local): [Place, Epilogue, () => E[]] => [buffer(b), adding(plainStore(), 1), () => bufferArgs([b])];
      return [
        ...product(tile(height), { table: upperTable, offset: 0 }, weights(false, false), true, buffer(first), plainStore(), () => []),
        ...finish(tile(height), { table: upperTable, offset: half }, weights(true, false), true, [first], false, false),
        ...product(tile(height), sum(2), sumOfPanels(1), false, ...plus(first)),
        ...product(tile(height), sum(1), sumOfPanels(0), false, buffer(second), plainStore(), () => []),
        ...finish(tile(height), sum(4), weights(true, true), true, [first, second], false, true),
        ...(below === 0 ? [] : [
          ...product(tile(below), sum(3), sumOfPanels(2), false, ...plus(first)),
          ...finish(tile(below), { table: lowerTable, offset: half }, sumOfPanels(3), false, [first], true, false),
          ...pass(tile(below), adding(p.epilogue, 1), buffer(second), result(true, true), () => [...operandArgs(true, true), ...bufferArgs([first])]),
        ]),
      ];
    };
    const overRows = (rows: number, missing: number): E[] => {
      let done = 0;
      return rowRuns(rows, maxRows(asm)).flatMap(({ height, count: runs }, i, all) => {
        const begin = done;
        done += height * runs;
        const cutLast = missing > 0 && i === all.length - 1;
        const whole = cutLast ? runs - 1 : runs;
        return [
          ...(whole > 0 ? [f.repeat(row, begin, begin + height * whole, height, tiles(height, height))] : []),
          ...(cutLast ? [f.set(row, asm.i32(done - height)), ...tiles(height, height - missing)] : []),
        ];
      });
    };
    const block = (rows: number, missing: number): E[] => [
      ...evenRows(f, upperTable, () => f.get(left), start, rows, p.leftStride),
      ...evenRows(f, lowerTable, () => asm.plus(f.get(left), upper * p.leftStride), start, rows, p.leftStride),
      ...evenRows(f, sumTable, () => f.get(sums), start, rows, sumCount * 2 * k),
      f.loop(passStart, f.get(from), () => f.get(to), cut.panelsPerPass, [
        f.set(count, asm.sub(f.get(to), f.get(passStart))),
        f.if(m.i32.gt_s(f.get(count), asm.i32(cut.panelsPerPass)), [f.set(count, asm.i32(cut.panelsPerPass))]),
        asm.call(addPanels(asm), [weights(false, false), asm.i32(rightHalf), asm.i32(halfPanel), f.get(count), f.get(panels), asm.i32(cut.panelsPerPass * halfPanel)]),
        ...overRows(rows, missing),
      ]),
    ];
    const lastRows = upper - (cut.rowBlocks - 1) * cut.rowBlock;
    const firstPanel = (block: E): E => m.i32.div_u(asm.times(block, columns / 2 / panelColumns), asm.i32(cut.panelBlocks));
    const at = (tensor: number, pointer: Local): E => asm.add(f.get(pointer), asm.mul(f.get(start), asm.i32(space.tensors[tensor]!.rowStride)));
    const areas = [upperTable, lowerTable, sumTable, panels, first, second];
    const sizes = [tableBytes, tableBytes, tableBytes, panelArea, bufferBytes];
    return [
      f.set(panelBlock, m.i32.rem_u(f.get(chunk!), asm.i32(cut.panelBlocks))),
      f.set(rowBlock, m.i32.div_u(f.get(chunk!), asm.i32(cut.panelBlocks))),
      f.set(start, asm.times(f.get(rowBlock), cut.rowBlock)),
      f.set(from, firstPanel(f.get(panelBlock))),
      f.set(to, firstPanel(asm.plus(f.get(panelBlock), 1))),
      ...areas.map((l, i) => f.set(l, asm.plus(f.get(scratch!), sizes.slice(0, i).reduce((n, s) => n + s, 0)))),
      f.set(c, at(0, pointers[p.operands]!)),
      ...p.epilogue.operands.map((o, i) => f.set(operandBase[i]!, at(1 + i, pointers[o.operand]!))),
      ...(cut.rowBlocks === 1
        ? block(upper, upper - lower)
        : [f.if(m.i32.eq(f.get(rowBlock), asm.i32(cut.rowBlocks - 1)), block(lastRows, upper - lower), block(cut.rowBlock, 0))]),
    ];
  });
  const scratchBytes = 3 * tableBytes + panelArea + 2 * bufferBytes;
  const varying = p.epilogue.operands.filter((o) => o.varies).reduce<number>((n, o) => n + dtypes[o.dtype].bytes, dtypes[p.epilogue.dtype].bytes);
  const vertexBytes = scratchBytes - panelArea + cut.panelsPerPass * pairBytes(k) + rowBytes + 4 * height * panelColumns * cut.panelsPerPass * varying;
  return { fn, chunks: cut.rowBlocks * cut.panelBlocks, scratchBytes, vertexBytes, uncut: `two panels of ${k} rows, and sums of their quarters` };
}
