/** The interpreter's matrix product. */

/** A row-major matrix inside an array: first element and distance of rows, in elements. */
export interface Matrix {
  readonly data: Float64Array;
  readonly offset: number;
  readonly stride: number;
}

/** c += a · b with a of m x k, b of k x n. Blocks of 4 x 4 results stay in registers; what is left over is added row by row. */
export function addProduct(a: Matrix, b: Matrix, c: Matrix, m: number, k: number, n: number): void {
  const wholeRows = m - (m % 4);
  const wholeColumns = n - (n % 4);
  blocks(a.data, a.offset, a.stride, b.data, b.offset, b.stride, c.data, c.offset, c.stride, wholeRows, k, wholeColumns);
  rows(a, b, c, 0, wholeRows, k, wholeColumns, n);
  rows(a, b, c, wholeRows, m, k, 0, n);
}

/** Writes the transpose of an m x n matrix, without gaps, into `to`. */
export function transposeInto(from: Matrix, m: number, n: number, to: Float64Array): void {
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) to[j * m + i] = from.data[from.offset + i * from.stride + j]!;
}

function blocks(a: Float64Array, a0: number, as: number, b: Float64Array, b0: number, bs: number, c: Float64Array, c0: number, cs: number, m: number, k: number, n: number): void {
  for (let i = 0; i < m; i += 4) {
    for (let j = 0; j < n; j += 4) {
      let c00 = 0, c01 = 0, c02 = 0, c03 = 0, c10 = 0, c11 = 0, c12 = 0, c13 = 0;
      let c20 = 0, c21 = 0, c22 = 0, c23 = 0, c30 = 0, c31 = 0, c32 = 0, c33 = 0;
      let p = a0 + i * as;
      let q = b0 + j;
      for (let l = 0; l < k; l++, p++, q += bs) {
        const x0 = b[q]!, x1 = b[q + 1]!, x2 = b[q + 2]!, x3 = b[q + 3]!;
        const y0 = a[p]!, y1 = a[p + as]!, y2 = a[p + 2 * as]!, y3 = a[p + 3 * as]!;
        c00 += y0 * x0; c01 += y0 * x1; c02 += y0 * x2; c03 += y0 * x3;
        c10 += y1 * x0; c11 += y1 * x1; c12 += y1 * x2; c13 += y1 * x3;
        c20 += y2 * x0; c21 += y2 * x1; c22 += y2 * x2; c23 += y2 * x3;
        c30 += y3 * x0; c31 += y3 * x1; c32 += y3 * x2; c33 += y3 * x3;
      }
      const r = c0 + i * cs + j;
      c[r]! += c00; c[r + 1]! += c01; c[r + 2]! += c02; c[r + 3]! += c03;
      c[r + cs]! += c10; c[r + cs + 1]! += c11; c[r + cs + 2]! += c12; c[r + cs + 3]! += c13;
      c[r + 2 * cs]! += c20; c[r + 2 * cs + 1]! += c21; c[r + 2 * cs + 2]! += c22; c[r + 2 * cs + 3]! += c23;
      c[r + 3 * cs]! += c30; c[r + 3 * cs + 1]! += c31; c[r + 3 * cs + 2]! += c32; c[r + 3 * cs + 3]! += c33;
    }
  }
}

function rows(a: Matrix, b: Matrix, c: Matrix, fromRow: number, toRow: number, k: number, fromColumn: number, toColumn: number): void {
  if (fromColumn === toColumn) return;
  const [x, y, z] = [a.data, b.data, c.data];
  for (let i = fromRow; i < toRow; i++) {
    for (let l = 0; l < k; l++) {
      const scale = x[a.offset + i * a.stride + l]!;
      const q = b.offset + l * b.stride;
      const r = c.offset + i * c.stride;
      for (let j = fromColumn; j < toColumn; j++) z[r + j]! += scale * y[q + j]!;
    }
  }
}
