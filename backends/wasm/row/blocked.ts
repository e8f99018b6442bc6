/**
 * Sums down the columns of large matrices (over the pixels, with channels side by side), in blocks of rows. Lanes run across columns and a kernel holds the sums of a few vectors of them, so that going
 * down a whole matrix for each few would read one cache line of every row: too far apart for the processor to see them coming. Each block of rows is brought into cache in the order of memory instead, all
 * columns take their part of it, and add their sums over it to those in scratch.
 */
import { dtypes, sizeOf } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';
import { fetch } from '../fetch.ts';
import type { KernelCode, Setting } from '../kernel.ts';
import { emitNest, kernel, type Row } from '../nest.ts';
import { blockedSweep } from './emit.ts';
import type { RowPlan } from './plan.ts';
import { acrossUnroll, type Shape } from './shape.ts';
import { vectorWidth } from './width.ts';

/** Bytes of a block over all operands: half of a first-level cache, so that the sums fit beside it. */
const blockBytes = 16384;
/** Rows from which blocks are worth their loads and stores of sums; matrices below which threads would have nothing to share. */
const fewestRows = 256;
const fewestMatrices = 8;

/** Rows of a block; undefined where a kernel does not go in blocks: more than one sweep, columns that are no multiple of the vectors side by side, or rows that do not follow each other in memory. */
export function blockRows(plan: RowPlan, shape: Shape, setting: Setting | undefined): number | undefined {
  const [sweep] = plan.sweeps;
  const [rows] = shape.reduced;
  const columns = shape.kept.at(-1)!;
  if (shape.mode !== 'across' || !sweep || plan.sweeps.length > 1 || sweep.reductions.length === 0 || shape.reduced.length > 1 || plan.axes.length === 0) return undefined;
  if (rows!.size < fewestRows || (setting !== 'slab' && sizeOf(shape.kept.slice(0, -1).map((d) => d.size)) < fewestMatrices)) return undefined;
  const vectors = 4 * acrossUnroll(plan);
  if (columns.size % vectors !== 0 || columns.size < 2 * vectors) return undefined;
  const moving = movingOf(plan);
  const rowBytes = moving.map((i) => columns.size * dtypes[shape.tensors[i]!.type.dtype].bytes);
  if (!moving.every((i, k) => columns.steps[i]! * columns.size === rowBytes[k] && rows!.steps[i] === rowBytes[k])) return undefined;
  return Math.max(4, Math.floor(blockBytes / rowBytes.reduce((p, q) => p + q, 0)));
}

/** The tensors that a sweep walks row by row: what it reads and writes there. */
const movingOf = (plan: RowPlan): number[] => [...plan.sweeps[0]!.inputs, ...plan.sweeps[0]!.outputs.map((o) => plan.inputs.length + o.result)];

/** The kernel of a plan that `blockRows` gives a number for. A chunk is one matrix. */
export function emitBlocked(asm: Asm, key: string, plan: RowPlan, shape: Shape, blockSize: number): KernelCode {
  const { kept } = shape;
  const matrices = sizeOf(kept.slice(0, -1).map((d) => d.size));
  const cut = { at: kept.length - 1, block: kept.at(-1)!.size, blocks: 1, chunks: matrices };
  const scratchBytes = plan.sweeps[0]!.reductions.length * kept.at(-1)!.size * 4;
  return kernel(asm, key, shape.tensors.length, matrices, scratchBytes, (f, k) =>
    emitNest(f, kept, cut, k.chunk, k.ptrs, { row: (row) => emitMatrix(f, plan, shape, row, k.scratch, blockSize) }), { vertexBytes: blockBytes + scratchBytes });
}

function emitMatrix(f: Fn, plan: RowPlan, shape: Shape, row: Row, scratch: Local, blockSize: number): E[] {
  const { asm } = f;
  const [rows] = shape.reduced;
  const columns = shape.kept.at(-1)!;
  const unroll = acrossUnroll(plan);
  const { inputs } = plan.sweeps[0]!;
  const [left, size, state, group] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const own = row.ptrs.map(() => f.local('i32'));
  const moving = movingOf(plan);
  // Where the block of each of them starts; other tensors stay where the matrix has them.
  const at = row.ptrs.map((p, i) => (moving.includes(i) ? f.local('i32') : p));
  const parts = blockedSweep(f, plan, shape, own, scratch, vectorWidth(f, shape, columns, 4), unroll);
  const acrossColumns = (from: readonly Local[], body: E[]): E[] => [
    ...own.map((p, i) => f.set(p, f.get(from[i]!))),
    f.set(state, f.get(scratch)),
    f.repeat(group, 0, columns.size / (4 * unroll), 1, [
      ...body,
      ...own.flatMap((p, i) => (columns.steps[i] === 0 ? [] : [f.inc(p, 4 * unroll * columns.steps[i]!)])),
      f.inc(state, parts.stateBytes),
    ]),
  ];
  const top = f.label('block');
  return [
    ...moving.map((i) => f.set(at[i]!, f.get(row.ptrs[i]!))),
    ...acrossColumns(row.ptrs, parts.start(state)),
    f.set(left, asm.i32(rows!.size)),
    asm.m.loop(top, asm.m.block(null, [
      f.set(size, asm.m.select(asm.m.i32.lt_s(f.get(left), asm.i32(blockSize)), f.get(left), asm.i32(blockSize))),
      ...inputs.flatMap((i) => fetch(asm, f.get(at[i]!), asm.times(f.get(size), rows!.steps[i]!))),
      ...acrossColumns(at, parts.block(size, state)),
      ...moving.map((i) => f.set(at[i]!, asm.add(f.get(at[i]!), asm.times(f.get(size), rows!.steps[i]!)))),
      f.set(left, asm.sub(f.get(left), f.get(size))),
      asm.m.br(top, f.get(left)),
    ])),
    ...acrossColumns(row.ptrs, parts.end(state)),
  ];
}
