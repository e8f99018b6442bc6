/**
 * Strassen's product in Winograd's form (Winograd, "On multiplication of 2 x 2 matrices", 1971; see Huang, Smith, Henry and van de Geijn, "Strassen's algorithm reloaded", 2016): 7 products of quarters in place of 8.
 *
 *     S1 = A21 + A22   S2 = S1 - A11   S3 = A11 - A21   S4 = A12 - S2
 *     T1 = B12 - B11   T2 = B22 - T1   T3 = B22 - B12   T4 = B21 - T2
 *     P1 = A11·B11   P2 = A12·B21   P3 = S4·B22   P4 = A22·T4   P5 = S1·T1   P6 = S2·T2   P7 = S3·T3
 *     C11 = P1 + P2   C12 = P1 + P6 + P5 + P3   C21 = P1 + P6 + P7 + P4   C22 = P1 + P6 + P7 + P5
 */
import { num, type OpDef } from '../../op.ts';
import { showType, sizeOf, tensorType } from '../../type.ts';
import { arity, check, fresh, numbers } from '../helpers.ts';
import { wholeOperand } from './conv.ts';

/** How many sums of quarters of a left operand there are: S1 to S4. */
export const sumCount = 4;
/** What the summed elements of a Strassen product, and its columns, are multiples of: halves of them are whole vectors, and whole panels. */
export const summedMultiple = 8;
export const columnMultiple = 16;

/** Floats of the sums of a left operand of some rows of k elements: for each row of the upper half S1, S2, S3 and S4. */
export const sumsFloats = (rows: number, k: number): number => Math.ceil(rows / 2) * sumCount * (k / 2);

export const strassenSums: OpDef = {
  name: 'strassenSums',
  doc: 'the sums S1 to S4 of quarters of a, the left operand of a product, whose first `rowAxes` axes are rows: for each row of the upper half the four side by side. Where rows are odd in number, the last of them also stands for the one that is missing',
  family: 'contract',
  operands: ['a'],
  attrs: { rowAxes: { kind: 'number', default: 'required' } },
  infer(operands, attrs) {
    const [a] = arity(operands, 1);
    const rowAxes = num(attrs, 'rowAxes');
    check(a.dtype === 'f32', () => `${showType(a)} is not of type f32`);
    check(rowAxes >= 0 && rowAxes < a.shape.length, () => `${rowAxes} row axes of ${showType(a)}, expected at least one axis beside them`);
    const k = sizeOf(a.shape.slice(rowAxes));
    check(k % summedMultiple === 0, () => `rows of ${k} elements, expected a multiple of ${summedMultiple}`);
    return [tensorType('f32', [sumsFloats(sizeOf(a.shape.slice(0, rowAxes)), k)])];
  },
  axes: wholeOperand,
  reference([a], attrs, [result]) {
    const to = fresh(result!);
    const rowAxes = num(attrs, 'rowAxes');
    writeSums(numbers(a!), sizeOf(a!.shape.slice(0, rowAxes)), sizeOf(a!.shape.slice(rowAxes)), numbers(to));
    return [to];
  },
  grad: { none: 'algorithms are chosen after differentiation' },
};

function writeSums(a: Float64Array, rows: number, k: number, to: Float64Array): void {
  const upper = Math.ceil(rows / 2);
  const half = k / 2;
  for (let row = 0; row < upper; row++) {
    const lower = Math.min(upper + row, rows - 1);
    for (let i = 0; i < half; i++) {
      const [a11, a12, a21, a22] = [a[row * k + i]!, a[row * k + half + i]!, a[lower * k + i]!, a[lower * k + half + i]!];
      const s1 = a21 + a22;
      const s2 = s1 - a11;
      [s1, s2, a11 - a21, a12 - s2].forEach((s, v) => (to[(row * sumCount + v) * half + i] = s));
    }
  }
}
