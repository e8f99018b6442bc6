/** What shaders may use of an adapter, and where they find a program's memory. */
import type { Memory } from './memory.ts';

/** Limits and features that shaders are written for. Plain data, which the driver gives; an artifact says which of them it needs. */
export interface Machine {
  /** Workgroups at work at once. */
  readonly workgroups: number;
  /** Bytes of workgroup memory: what a workgroup shares of its operands fits them. */
  readonly workgroupBytes: number;
  /** Invocations of a workgroup. */
  readonly invocations: number;
  /** Storage buffers that a shader binds. */
  readonly bindings: number;
  /** Bytes of one binding, and of one GPU buffer; multiples of 256. */
  readonly bindingBytes: number;
  readonly bufferBytes: number;
  /** Whether f16 is stored in 16 bits and computed as such, which needs the feature `shader-f16`; elsewhere its bits take a word. */
  readonly f16: boolean;
}

/** Invocations that join values in workgroup memory: as many as are wanted, fewer where so many words (`boxes` of an invocation) do not fit. A power of two. */
export function joiningLanes({ workgroupBytes, invocations }: Machine, wanted: number, boxes: number): number {
  let lanes = wanted;
  while (lanes > 1 && (lanes > invocations || 4 * boxes * lanes > workgroupBytes)) lanes /= 2;
  return lanes;
}

/** What every kernel is written for. */
export interface Site {
  readonly machine: Machine;
  readonly memory: Memory;
}
