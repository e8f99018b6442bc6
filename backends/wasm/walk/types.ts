/** What a walk is: an op's axes, how values are folded, and the elementwise ops around it. */
import type { Dim, Stage } from '../../../ir/axes.ts';
import type { Op, Value } from '../../../ir/graph.ts';
import type { Placed } from '../../../ir/tile.ts';
import type { Access } from '../access.ts';
import type { FoldName } from '../lanes.ts';

export interface Walk {
  readonly space: readonly Dim[];
  readonly stage: Stage;
  /** Operands that the stage reads, in its order, with their places among the kernel's operands. */
  readonly reads: readonly { readonly placed: Placed; readonly operand: number }[];
  /** Where the reduce dims are folded; undefined where the body only moves. */
  readonly fold: FoldName | undefined;
  /** What a read outside gives where nothing is folded. */
  readonly outside: number | bigint;
  /** Multiplies each read value by an entry of this table, chosen by two dims (of a resampling). */
  readonly weights?: { readonly outer: string; readonly inner: string | undefined; readonly at: readonly number[] };
  /** Elementwise ops on what is read: `values` are the values of `reads`, `output` is what is folded. */
  readonly prologue?: { readonly ops: readonly Op[]; readonly values: readonly Value[]; readonly output: Value };
  /** Elementwise ops on the result, what they read (which broadcasts to the result), and the folded value as they see it. */
  readonly epilogue?: { readonly ops: readonly Op[]; readonly root: Value; readonly extras: readonly { readonly value: Value; readonly placed: Placed; readonly operand: number }[]; readonly outputs: readonly Value[] };
  /** One for each output of the epilogue; all have one shape. */
  readonly results: readonly Placed[];
}

/** The tensors of a piece: reads that it has, extras, and the results. */
export interface Tensors { readonly accesses: readonly Access[]; readonly placed: readonly Placed[]; readonly pointers: readonly number[]; readonly reads: number; readonly firstResult: number }
