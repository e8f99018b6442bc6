/** Kernels of the families `contract` and `conv`, and of fused contractions. */
import { geometryOf } from '../../../ir/ops/packing/geometry.ts';
import type { Placed } from '../../../ir/tile.ts';
import type { Asm } from '../asm.ts';
import type { Emitter, KernelCode } from '../kernel.ts';
import { directConv } from './conv-direct.ts';
import { isPixelProduct, pixelProduct } from './conv-weight.ts';
import { depthwiseConv } from './depthwise.ts';
import { depthwiseWeight, isDepthwiseWeight } from './depthwise-weight.ts';
import { contractionOf, type Contraction } from './fused.ts';
import { packedGemm } from './gemm.ts';
import { genericContraction } from './generic.ts';
import { groupedWeight, isGroupedWeight } from './grouped-weight.ts';
import { matmul } from './matmul.ts';
import type { BlockMoments } from './moments.ts';
import { packConvKernel, packMatmulKernel } from './pack.ts';
import { strassenSumsKernel } from './strassen-sums.ts';
import { winogradConv } from './winograd.ts';
import { isWinogradWeight, winogradWeight } from './winograd-weight.ts';

/** Emits any op of the two families, plain or as the root of a `fused` op of kind `contract`. */
export const contraction: Emitter = (asm, op, operands, results) => {
  if (op.name === 'packConv') return packConvKernel(asm, op, operands, results);
  if (op.name === 'packMatmul') return packMatmulKernel(asm, op, operands, results);
  if (op.name === 'strassenSums') return strassenSumsKernel(asm, op, operands, results);
  const k = contractionOf(op);
  const result = results[0]!;
  switch (k.root.name) {
    case 'contractPacked': return packedGemm(asm, k, operands, result);
    case 'convPacked': return packedConv(asm, k, operands, result);
    case 'contract': return matmul(asm, k, operands, result) ?? genericContraction(asm, k, operands, result);
    case 'convWeight':
      if (isWinogradWeight(k.op)) return winogradWeight(asm, k, operands, result);
      if (isDepthwiseWeight(k.op)) return depthwiseWeight(asm, k, operands, result);
      if (isGroupedWeight(k.op)) return groupedWeight(asm, k, operands, result);
      return isPixelProduct(k.op) ? pixelProduct(asm, k, operands, result) : genericContraction(asm, k, operands, result);
    default: return genericContraction(asm, k, operands, result);
  }
};

/** Emits a `convPacked`, plain or as the root of a fused op, which may take the moments of its result along. */
export function packedConv(asm: Asm, k: Contraction, operands: readonly Placed[], result: Placed, moments?: BlockMoments): KernelCode {
  switch (geometryOf(k.root.attrs).algorithm) {
    case 'direct': return directConv(asm, k, operands, result, moments);
    case 'winograd2':
    case 'winograd4': return winogradConv(asm, k, operands, result, moments);
    case 'depthwise': return depthwiseConv(asm, k, operands, result, moments);
  }
}
