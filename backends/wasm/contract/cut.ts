/** How the work of a contraction is cut into chunks: by its sizes alone, never by the number of threads. */
import { panelColumns } from '../../../ir/ops/packing/panels.ts';
import { mostChunks, type Division } from '../../../ir/tile.ts';

export interface Cut {
  /** Rows of a block (the last may have fewer) and the number of blocks. */
  readonly rowBlock: number;
  readonly rowBlocks: number;
  /** Whole panels of the largest block, and the number of blocks, whose sizes differ by one at most; the last block also has the narrower last panel. */
  readonly panelBlock: number;
  readonly panelBlocks: number;
  readonly groupBlock: number;
  readonly groupBlocks: number;
  /** Whole panels that stay in cache while the rows of a block pass by. */
  readonly panelsPerPass: number;
  /** Whether the rows of a block stay in cache too, while passes of panels follow each other; else they pass by a few at a time. */
  readonly keepsRows: boolean;
}

/** Work below which a chunk costs more to hand out than it is worth, in multiply-adds: some microseconds. */
export const leastWork = 150_000;
/** Rows that pay for reading a panel. */
export const leastRows = 48;
/** Bytes of packed weights, and of operand rows, that a tile holds while they are read again. */
const panelCache = (d: Division): number => d.bytesPerTile / 2;
const rowCache = (d: Division): number => d.bytesPerTile / 4;

/** The largest power of two up to n: as many chunks share out evenly among 2, 4 or 8 threads. */
export const evenly = (n: number): number => 2 ** Math.floor(Math.log2(Math.max(1, n)));

/** Cuts `outer` blocks of rows x (groups x columns) with a reduction of `k`; `rowBytes`: bytes of the operand that one row adds, `rowMultiple`: what blocks of rows are a multiple of. */
export function cutWork(d: Division, o: { readonly outer: number; readonly rows: number; readonly groups: number; readonly columns: number; readonly k: number; readonly rowBytes: number; readonly rowMultiple: number }): Cut {
  const work = o.outer * o.rows * o.groups * o.columns * o.k;
  const wanted = evenly(Math.ceil(Math.min(mostChunks(d), Math.max(1, work / leastWork)) / o.outer));
  const panels = Math.max(1, Math.floor(o.columns / panelColumns));
  // Either blocks of rows stay in cache and each of them reads all weights, or passes of panels do and each of those reads all rows.
  const weightBytes = 4 * o.groups * o.columns * o.k;
  const passes = Math.ceil(weightBytes / panelCache(d));
  const fewest = Math.ceil((o.rows * o.rowBytes) / rowCache(d));
  const columnsFirst = passes > 1 && (fewest === 1 || passes * o.rows * o.rowBytes < fewest * weightBytes);
  const rowParts = Math.max(columnsFirst ? 1 : fewest, evenly(Math.min(columnsFirst ? Math.ceil(wanted / (panels * o.groups)) : wanted, Math.floor(o.rows / leastRows))));
  const rowBlock = Math.min(o.rows, Math.ceil(Math.ceil(o.rows / rowParts) / o.rowMultiple) * o.rowMultiple);
  const rowBlocks = Math.ceil(o.rows / rowBlock);
  const rest = Math.max(1, Math.round(wanted / rowBlocks));
  const groupBlock = Math.ceil(o.groups / Math.min(o.groups, rest));
  const groupBlocks = Math.ceil(o.groups / groupBlock);
  const panelBlocks = Math.min(panels, Math.ceil(rest / groupBlocks));
  const panelsPerPass = Math.max(1, Math.floor(panelCache(d) / (4 * panelColumns * o.k)));
  return { rowBlock, rowBlocks, panelBlock: Math.ceil(panels / panelBlocks), panelBlocks, groupBlock, groupBlocks, panelsPerPass, keepsRows: !columnsFirst && Math.ceil(panels / panelBlocks) > panelsPerPass };
}

/** Bytes of panels that a chunk packs for itself, of rows that it packs, and of rows that it reads in place, which several blocks of columns read one after the other. */
const ownPanels = (d: Division): number => d.bytesPerTile / 2;
const ownRows = (d: Division): number => d.bytesPerTile / 4;
const placedRows = (d: Division): number => 2 * d.bytesPerTile;

/** Cuts a product whose panels are packed by each chunk: columns first, since every block of rows packs its panels again; but for rows that are packed too, and by every block of columns again. */
export function cutProduct(d: Division, o: { readonly outer: number; readonly rows: number; readonly columns: number; readonly k: number; readonly rowMultiple: number; readonly inPlace: boolean }): Cut {
  const wanted = Math.ceil(Math.min(mostChunks(d), Math.max(1, (o.outer * o.rows * o.columns * o.k) / leastWork)) / o.outer);
  const panels = Math.max(1, Math.floor(o.columns / panelColumns));
  const largest = Math.max(1, Math.floor(ownPanels(d) / (4 * panelColumns * o.k)));
  const fewest = Math.ceil((o.rows * 4 * o.k) / (o.inPlace ? placedRows(d) : ownRows(d)));
  const panelBlock = Math.min(largest, Math.ceil(panels / Math.min(panels, o.inPlace ? wanted : Math.ceil(wanted / fewest))));
  const panelBlocks = Math.ceil(panels / panelBlock);
  const rowParts = Math.max(1, fewest, Math.min(Math.ceil(wanted / panelBlocks), Math.floor(o.rows / (2 * leastRows))));
  const rowBlock = Math.min(o.rows, Math.ceil(Math.ceil(o.rows / rowParts) / o.rowMultiple) * o.rowMultiple);
  return { rowBlock, rowBlocks: Math.ceil(o.rows / rowBlock), panelBlock, panelBlocks, groupBlock: 1, groupBlocks: 1, panelsPerPass: panels, keepsRows: false };
}
