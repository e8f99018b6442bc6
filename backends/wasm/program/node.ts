/** Steps made ready for the code that runs them. */
import type { E, Fn, Local } from '../asm.ts';
import type { KernelCode } from '../kernel.ts';

/** Where things lie that the program needs. */
export interface ProgramLayout {
  /** Address of the data region that buffers count from. */
  readonly data: number;
  /** Address of the step times, or -1. */
  readonly profile: number;
}

/** The pointers that a kernel gets. */
export type Args = (f: Fn, scratch: Local) => E[];

/** A step made ready: what to call, or a region of such steps. */
export type Node =
  | { readonly kind: 'kernel'; readonly code: KernelCode; readonly args: Args; readonly row: number }
  /** Copies through scratch, all reads before all writes; run by one thread. */
  | { readonly kind: 'sequence'; readonly nodes: readonly Node[]; readonly row: number }
  | { readonly kind: 'if'; readonly condition: number; readonly then: readonly Node[]; readonly otherwise: readonly Node[] }
  | { readonly kind: 'loop'; readonly index: number; readonly limit: number; readonly proceed: number; readonly body: readonly Node[] };
