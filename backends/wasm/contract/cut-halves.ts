/** How a product by Strassen's algorithm is cut into chunks: by its sizes alone, never by the number of threads. */
import { panelColumns } from '../../../ir/ops/packing/panels.ts';
import type { Division } from '../../../ir/tile.ts';
import { evenly, leastRows, leastWork } from './cut.ts';

/** Chunks and passes over the halves of a product's rows and columns. */
export interface CutHalves {
  /** Rows of the upper half in a block (the last may have fewer), and the number of blocks. */
  readonly rowBlock: number;
  readonly rowBlocks: number;
  /** Blocks of panels of the left half; their sizes differ by one at most. */
  readonly panelBlocks: number;
  /** Panels of the largest pass. */
  readonly panelsPerPass: number;
}

/** Panels that pay for reading rows and the sums of them. */
const leastPanels = 3;

/** Bytes of a pair of panels of k rows, of the left half and of the right one, and of the four sums of their quarters. */
export const pairBytes = (k: number): number => 16 * panelColumns * k;

/**
 * Cuts a product whose rows, columns and sum go in halves: `rows` and `columns` are those of one half, `k` is the whole sum, `rowBytes` those of a tile's rows and their sums. Columns first, and no more chunks than
 * tiles, since each of them reads all rows and all sums of them.
 */
export function cutHalves(d: Division, o: { readonly rows: number; readonly columns: number; readonly k: number; readonly rowBytes: number }): CutHalves {
  const work = 4 * o.rows * o.columns * o.k;
  const wanted = evenly(Math.min(d.tiles, work / leastWork));
  const panels = o.columns / panelColumns;
  const panelBlocks = Math.min(wanted, evenly(panels / leastPanels));
  const rowParts = Math.max(1, Math.min(Math.floor(wanted / panelBlocks), Math.floor(o.rows / leastRows)));
  const rowBlock = Math.ceil(o.rows / rowParts);
  const most = Math.max(1, Math.floor((d.bytesPerTile - o.rowBytes) / pairBytes(o.k)));
  // Passes of equal size.
  const largest = Math.ceil(panels / panelBlocks);
  const panelsPerPass = Math.ceil(largest / Math.ceil(largest / most));
  return { rowBlock, rowBlocks: Math.ceil(o.rows / rowBlock), panelBlocks, panelsPerPass };
}
