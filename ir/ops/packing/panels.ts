/**
 * The panel format: a matrix of k rows and n columns, cut into panels of `panelColumns` columns, each panel stored row by row. Where 1 to 4 columns are
 * left, the last panel has 4 columns; where 5 to 7, it has 8; missing columns are zero.
 */

/** Columns of a whole panel: two vectors of four. */
export const panelColumns = 8;

/** Columns that are stored for n columns. */
export const storedColumns = (n: number): number => Math.ceil(n / 4) * 4;

/** Floats of a packed k x n matrix. */
export const panelFloats = (k: number, n: number): number => k * storedColumns(n);

/** Where element (row, column) of a packed matrix of k rows and n columns lies. */
export function panelIndex(row: number, column: number, k: number, n: number): number {
  const first = column - (column % panelColumns);
  return first * k + row * Math.min(panelColumns, storedColumns(n) - first) + (column - first);
}

/** Weights as the interpreter holds them, or as the artifact stores them: packing rounds only where it stores float32. */
export type Floats = Float64Array | Float32Array;

/** Packs a matrix whose element (row, column) is `from[offset + row·rowStep + column·columnStep]` into `to` at `at`. */
export function packPanels(from: Floats, offset: number, k: number, n: number, rowStep: number, columnStep: number, to: Floats, at: number): void {
  for (let first = 0; first < n; first += panelColumns) {
    const width = Math.min(panelColumns, storedColumns(n) - first);
    const columns = Math.min(width, n - first);
    const base = at + first * k;
    const source = offset + first * columnStep;
    for (let row = 0; row < k; row++) {
      for (let c = 0; c < columns; c++) to[base + row * width + c] = from[source + row * rowStep + c * columnStep]!;
    }
  }
}
