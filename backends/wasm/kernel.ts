/** The contract between kernel emitters and the program that calls them. */
import type { Op } from '../../ir/graph.ts';
import type { Placed } from '../../ir/tile.ts';
import type { Asm } from './asm.ts';

/**
 * An emitted kernel: function `fn(chunk: i32, scratch: i32, operand pointers..., result pointers...: i32)`. Pointers are the byte addresses of each
 * placed tensor's first element. The kernel is called once for every chunk in 0..chunks-1, in any order and on any thread; chunks write disjoint
 * elements and the cut never depends on the number of threads. `scratch` is private to the thread, 64-byte aligned, `scratchBytes` long, dirty.
 */
export interface KernelCode {
  readonly fn: string;
  readonly chunks: number;
  readonly scratchBytes: number;
}

/** Emits one op (plain or fused). Equal ops over equal placements must share one function: build the key from `kernelKey`. */
export type Emitter = (asm: Asm, op: Op, operands: readonly Placed[], results: readonly Placed[]) => KernelCode;
