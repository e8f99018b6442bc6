/** Kernels of the families `contract` and `conv`, and of fused contractions. */
import { invariant } from '../../../ir/diagnostic.ts';
import { str } from '../../../ir/op.ts';
import type { Emitter } from '../kernel.ts';
import { directConv } from './conv-direct.ts';
import { contractionOf } from './fused.ts';
import { packedGemm } from './gemm.ts';

/** Emits any contraction: plain, or the root of a `fused` op of kind `contract`. */
export const contraction: Emitter = (asm, op, operands, results) => {
  const k = contractionOf(op);
  const result = results[0]!;
  if (k.root.name === 'contractPacked') return packedGemm(asm, k, operands, result);
  if (k.root.name === 'convPacked') {
    switch (str(k.root.attrs, 'algorithm')) {
      case 'direct': return directConv(asm, k, operands, result);
    }
  }
  invariant(false, `no kernel for ${k.root.name}`);
};
