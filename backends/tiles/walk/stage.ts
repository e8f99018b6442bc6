/** One stage of an op on one tile: the points of its piece that a part walks, read through slices and combined as the stage says. */
import type { Axes, Index, Piece, Stage } from '../../../ir/axes.ts';
import { isBig, refData } from '../../../ir/number.ts';
import type { DType } from '../../../ir/type.ts';
import { NotHeld, type Held } from '../held.ts';
import type { Slice } from '../parts.ts';
import { combineBig, combinerOf, type Made, type Operand } from './combine.ts';
import { formOf, programOf } from './program.ts';
import type { Ranges } from './reader.ts';

/**
 * Walks a stage. `made`: the slice that is written. Combine argmax gives the number of the winning point among the reduced ones beside the value. Throws NotHeld where a point is read or
 * written that the tile has not got.
 */
export function walkStage(axes: Axes, stage: Stage, ranges: Ranges, operands: readonly Held[], dtype: DType, made: Slice, what: string): Made {
  const sizes = new Map(axes.space.map((d) => [d.name, d.size]));
  const total = made.lists.reduce((n, l) => n * l.length, 1);
  const count = stage.combine === 'moments' ? 3 : stage.combine === 'argmax' ? 2 : 1;
  const out = Array.from({ length: count }, (_, i) => refData({ dtype: i === 1 && stage.combine === 'argmax' ? 'i32' : dtype, shape: [total] }));
  for (const piece of stage.pieces) walkPiece(piece, stage, sizes, ranges, operands, dtype, made, out, what);
  return out;
}

function walkPiece(piece: Piece, stage: Stage, sizes: ReadonlyMap<string, number>, ranges: Ranges, operands: readonly Held[], dtype: DType, made: Slice, out: Made, what: string): void {
  const form = formOf(piece, sizes, operands.map((x) => x.shape));
  const { count, target, bases, kinds, window } = programOf(piece, form, (dim) => ranges(piece, dim), operands, made, stage.combine === 'sum', what);
  if (count === 0) return;
  const read = form.readers.map(({ operand }, k): Operand => ({ data: operands[operand]!.data as Float64Array, base: bases[k]!, fill: fillOf(piece.reads[operand]!) }));
  const combine = isBig(dtype) ? combineBig(stage, what) : combinerOf(stage, dtype, what);
  for (let from = 0, to = 0; from < count; from = to) {
    const kind = kinds[from]!;
    while (to < count && kinds[to] === kind) to++;
    const points = window(kind);
    if (points.lost) throw new NotHeld(`${what} reads an element that the tile does not hold`);
    combine(points, read, target, from, to, out);
  }
}

const fillOf = (indices: readonly Index[]): number => (indices.some((i) => i.kind === 'affine' && i.outside === '-inf') ? -Infinity : 0);
