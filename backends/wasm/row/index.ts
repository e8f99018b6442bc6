/**
 * Reductions and everything around them: plain reductions, fused ones, and whole softmax and norm regions. All reductions of a kernel run over the same
 * axes. For each kept element (or vector of them) the reduced dims are swept as often as reductions depend on each other; values in between live in
 * locals, and expensive ones that a later sweep reads again are kept in scratch.
 */
import type { Op } from '../../../ir/graph.ts';
import type { Placed } from '../../../ir/tile.ts';
import { dtypes, sizeOf } from '../../../ir/type.ts';
import type { Asm, E, Fn, Local } from '../asm.ts';
import { nothing } from '../elements.ts';
import type { KernelCode, Setting } from '../kernel.ts';
import { cutWithin, emitNest, kernel, type Row } from '../nest.ts';
import { blockRows, emitBlocked } from './blocked.ts';
import { emitSweeps } from './emit.ts';
import { planRows, type RowPlan, type RowRegion } from './plan.ts';
import { acrossUnroll, planShape, savedBytes, type Shape } from './shape.ts';
import { scalarWidth, vectorWidth, type Width } from './width.ts';

/** Emits a region whose reductions run over `axes` of `full`. Operands and results in the order of `inputs` and `outputs`. */
export function emitRows(asm: Asm, key: string, region: RowRegion, operands: readonly Placed[], results: readonly Placed[], setting?: Setting): KernelCode {
  const plan = planRows(region);
  const shape = planShape(asm, plan, operands, results);
  const reduced = sizeOf(plan.reducedShape);
  if (shape.kept.some((d) => d.size === 0)) return nothing;
  const rows = blockRows(plan, shape, setting);
  if (rows !== undefined) return emitBlocked(asm, `${key} ${setting ?? ''}`, plan, shape, rows);
  const cut = cutWithin(asm, shape.kept, { elements: shape.tensors.map((t) => dtypes[t.type.dtype].bytes), work: reduced * plan.sweeps.length, inner: shape.reduced, anywhere: shape.mode !== 'across' });
  const scratchBytes = plan.saved.length * savedBytes(plan, shape);
  return kernel(asm, key, operands.length + results.length, cut.chunks, scratchBytes, (f, k) =>
    emitNest(f, shape.kept, cut, k.chunk, k.ptrs, { row: (row) => emitKeptRow(f, plan, shape, row, k.scratch) }), { vertexBytes: cut.bytes + scratchBytes, uncut: `a reduction over ${reduced} elements` });
}

/** The region of a plain reduction. */
export const plainRegion = (op: Op): RowRegion => ({ ops: [op], inputs: op.operands, outputs: op.results });

function emitKeptRow(f: Fn, plan: RowPlan, shape: Shape, row: Row, scratch: Local): E[] {
  const { asm } = f;
  const dim = shape.kept.at(-1)!;
  const own = row.ptrs.map((p, i) => (dim.steps[i] === 0 ? p : f.local('i32')));
  const copies = own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.set(p, f.get(row.ptrs[i]!))]));
  const advance = (n: number): E[] => own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.inc(p, n * dim.steps[i]!)]));
  const left = f.local('i32');
  const loop = (elements: number, body: E[]): E => {
    const top = f.label('k');
    return asm.m.loop(top, f.if(asm.m.i32.ge_s(f.get(left), asm.i32(elements)), [...body, ...advance(elements), f.inc(left, -elements), asm.m.br(top)]));
  };
  const start = [...copies, f.set(left, typeof row.count === 'number' ? asm.i32(row.count) : f.get(row.count))];
  const rowOf = <V>(w: Width<V>, unroll: number, along: boolean): E[] => emitSweeps(f, plan, shape, own, scratch, w, unroll, along);
  if (shape.mode === 'scalar') return [...start, loop(1, rowOf(scalarWidth(f, shape), 1, false))];
  if (shape.mode === 'along') return [...start, loop(1, rowOf(vectorWidth(f, shape, shape.reduced.at(-1)!, 4), 1, true))];
  const unroll = acrossUnroll(plan);
  const count = typeof row.count === 'number' ? row.count : Infinity;
  return [
    ...start,
    ...(count >= 4 * unroll ? [loop(4 * unroll, rowOf(vectorWidth(f, shape, dim, 4), unroll, false))] : []),
    ...(count >= 4 ? [loop(4, rowOf(vectorWidth(f, shape, dim, 4), 1, false))] : []),
    ...(count % 4 !== 0 || count === Infinity ? [loop(1, rowOf(vectorWidth(f, shape, dim, 1), 1, false))] : []),
  ];
}
