/** Matrix products with a packed right operand. */
import { invariant } from '../../../ir/diagnostic.ts';
import { nums, str } from '../../../ir/op.ts';
import { matmulShape } from '../../../ir/ops/packing/matmul.ts';
import type { Placed } from '../../../ir/tile.ts';
import { dtypes, sizeOf } from '../../../ir/type.ts';
import type { Asm } from '../asm.ts';
import { kernelKey, type KernelCode } from '../kernel.ts';
import { blockedKernel } from './blocked.ts';
import { cutWork } from './cut.ts';
import { epilogueOf, startingFromBias } from './epilogue.ts';
import type { Contraction } from './fused.ts';
import { evenRows } from './rows.ts';
import { broadcastTo, mergedStride, tileSpace } from './space.ts';
import { strassenProduct } from './strassen.ts';

/** Emits a `contractPacked`, plain or as the root of a fused op. */
export function packedGemm(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed): KernelCode {
  const shape = matmulShape(str(k.root.attrs, 'spec'), nums(k.root.attrs, 'bShape'));
  invariant(shape, 'a packed product has the shape of a matrix product');
  const a = operands[k.roots[0]!]!;
  const rowShape = a.type.shape.slice(0, shape.rowAxes);
  const tensors = [result, ...k.extra.map((i) => operands[i]!)].map((p) => {
    const strides = broadcastTo(result.type.shape, p.type.shape, p.strides);
    const columnStride = mergedStride(result.type.shape.slice(shape.rowAxes), strides.slice(shape.rowAxes));
    invariant(columnStride !== undefined, 'the columns of a packed product are evenly spaced');
    return { rowStrides: strides.slice(0, shape.rowAxes), columnStride, bytes: dtypes[p.type.dtype].bytes };
  });
  const space = tileSpace(rowShape, tensors);
  const rowStride = mergedStride(rowShape, a.strides.slice(0, shape.rowAxes));
  const kStride = mergedStride(a.type.shape.slice(shape.rowAxes), a.strides.slice(shape.rowAxes));
  invariant(rowStride !== undefined && (kStride === 1 || shape.k === 1), 'a packed product reads even rows whose elements lie side by side');
  const common = { key: kernelKey(k.op, operands, [result]), operands: operands.length, space, columns: shape.n };
  // Halves of rows that are not evenly spaced throughout have no common stride: then the sums go unread.
  if (str(k.root.attrs, 'algorithm') === 'strassen' && space.outer === 1) {
    return strassenProduct(asm, { ...common, roots: [k.roots[0]!, k.roots[1]!, k.roots[2]!], epilogue: epilogueOf(k.op, k.root, k.extra, space), k: shape.k, leftStride: 4 * (sizeOf(rowShape) === 1 ? 0 : rowStride) });
  }
  const cut = cutWork(asm.division, { outer: space.outer, rows: space.rows, groups: 1, columns: shape.n, k: shape.k, rowBytes: 4 * shape.k, rowMultiple: 1 });
  return blockedKernel(asm, {
    ...common, epilogue: startingFromBias(epilogueOf(k.op, k.root, k.extra, space)), groups: 1, taps: 1, run: 4 * shape.k, cut, rowBytes: 4 * shape.k, fillBytes: 0,
    panels: (f, pointers) => f.get(pointers[k.roots[1]!]!),
    fill: (f, pointers, { table, first, count }) => evenRows(f, table, () => f.get(pointers[k.roots[0]!]!), first, count, 4 * (sizeOf(rowShape) === 1 ? 0 : rowStride)),
  });
}
