/**
 * Winograd's minimal filtering F(m x m, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), by Cook-Toom interpolation at
 * 0, pairs ±a, and infinity: y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A.
 */

export type Matrix = readonly (readonly number[])[];

export interface Winograd {
  /** Results per side of a tile, and inputs (= positions) per side. */
  readonly tile: number;
  readonly side: number;
  /** The a of each pair of points ±a. */
  readonly pairs: readonly number[];
  /** m x n, n x 3, n x n. */
  readonly output: Matrix;
  readonly weight: Matrix;
  readonly input: Matrix;
}

/** F(2x2,3x3) with points ±1, or F(4x4,3x3) with ±√2/2 and ±√2, whose powers stay close to 1: half the error of ±1 and ±2. */
export function winograd(tile: 2 | 4): Winograd {
  return tile === 2 ? cookToom(2, [1]) : cookToom(4, [Math.SQRT1_2, Math.SQRT2]);
}

function cookToom(tile: number, pairs: readonly number[]): Winograd {
  const points = [0, ...pairs.flatMap((a) => [a, -a])];
  const side = points.length + 1;
  const without = (skip: number): number[] => points.reduce<number[]>((p, a, i) => (i === skip ? p : timesRoot(p, a)), [1]);
  const scale = points.map((a, i) => points.reduce((f, b, j) => (j === i ? f : f * (a - b)), 1));
  const pad = (row: readonly number[]): number[] => [...row, ...new Array<number>(side - row.length).fill(0)];
  const unit = (n: number, at: number): number[] => Array.from({ length: n }, (_, i) => (i === at ? 1 : 0));
  return {
    tile, side, pairs,
    output: Array.from({ length: tile }, (_, i) => [...points.map((a) => a ** i), i === tile - 1 ? 1 : 0]),
    weight: [...points.map((a, j) => [0, 1, 2].map((k) => a ** k / scale[j]!)), unit(3, 2)],
    input: [...points.map((_, j) => pad(without(j))), pad(points.reduce(timesRoot, [1]))],
  };
}

/** Coefficients (lowest power first) of p · (x - a). */
function timesRoot(p: readonly number[], a: number): number[] {
  const out = new Array<number>(p.length + 1).fill(0);
  p.forEach((c, i) => {
    out[i]! -= a * c;
    out[i + 1]! += c;
  });
  return out;
}

/** left · x · leftᵀ, where x has `inner` rows and columns, into `out`. `temp` holds left.length x inner numbers. */
export function sandwich(left: Matrix, x: Float64Array, inner: number, temp: Float64Array, out: Float64Array): void {
  const rows = left.length;
  for (let i = 0; i < rows; i++) {
    const row = left[i]!;
    for (let j = 0; j < inner; j++) {
      let s = 0;
      for (let k = 0; k < inner; k++) s += row[k]! * x[k * inner + j]!;
      temp[i * inner + j] = s;
    }
  }
  for (let j = 0; j < rows; j++) {
    const row = left[j]!;
    for (let i = 0; i < rows; i++) {
      let s = 0;
      for (let k = 0; k < inner; k++) s += row[k]! * temp[i * inner + k]!;
      out[i * rows + j] = s;
    }
  }
}
