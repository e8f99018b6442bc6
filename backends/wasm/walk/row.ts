/** The innermost loop of a walk. */
import { dtypes } from '../../../ir/type.ts';
import type { E, Fn } from '../asm.ts';
import { isLaneType, isVectorChain } from '../elementwise/index.ts';
import type { NestDim, Row } from '../nest.ts';
import { emitElements, type PieceWalk } from './elements.ts';
import type { Tensors, Walk } from './types.ts';
import { scalarWidth, vectorWidth } from './width.ts';

/** The innermost parallel dim: vectors while there are enough elements, then one at a time through the same code. */
export function emitRow(f: Fn, piece: PieceWalk, dim: NestDim, row: Row): E[] {
  const { asm } = f;
  const { walk, tensors: t } = piece;
  const own = row.ptrs.map((p, i) => (dim.steps[i] === 0 ? p : f.local('i32')));
  const copies = own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.set(p, f.get(row.ptrs[i]!))]));
  const advance = (n: number): E[] => own.flatMap((p, i) => (dim.steps[i] === 0 ? [] : [f.inc(p, n * dim.steps[i]!)]));
  const one = (): E[] => emitElements(f, piece, row.indices, own, scalarWidth(f, walk, t));
  const wide = asm.simd && isVectorWalk(walk, t, dim);
  const block = (unroll: number): E[] => emitElements(f, piece, row.indices, own, vectorWidth(f, walk, t, dim.steps, unroll, 4));
  const single = (): E[] => (wide ? emitElements(f, piece, row.indices, own, vectorWidth(f, walk, t, dim.steps, 1, 1)) : one());
  if (typeof row.count === 'number') {
    const code = [...copies];
    let left = row.count;
    if (!wide) return left === 1 ? [...code, ...one()] : [...code, f.repeat(f.local('i32'), 0, left, 1, [...one(), ...advance(1)])];
    for (const unroll of [4, 1]) {
      const n = Math.floor(left / (4 * unroll));
      left -= n * 4 * unroll;
      if (n === 1) code.push(...block(unroll), ...advance(4 * unroll));
      if (n > 1) code.push(f.repeat(f.local('i32'), 0, n, 1, [...block(unroll), ...advance(4 * unroll)]));
    }
    if (left > 0) code.push(f.repeat(f.local('i32'), 0, left, 1, [...single(), ...advance(1)]));
    return code;
  }
  const left = f.local('i32');
  const { count } = row;
  const loop = (elements: number, body: E[]): E => {
    const top = f.label('v');
    return asm.m.loop(top, f.if(asm.m.i32.ge_s(f.get(left), asm.i32(elements)), [...body, ...advance(elements), f.inc(left, -elements), asm.m.br(top)]));
  };
  return [...copies, f.set(left, f.get(count)), ...(wide ? [loop(16, block(4)), loop(4, block(1))] : []), loop(1, single())];
}

/** Whether lanes can run along the row: f32 throughout, contiguous in the result. */
function isVectorWalk(walk: Walk, t: Tensors, dim: NestDim): boolean {
  const reads = t.placed.slice(0, t.reads);
  const f32 = walk.prologue
    ? reads.every((p) => isLaneType(p.type.dtype)) && isVectorChain(walk.prologue.ops) && walk.prologue.output.type.dtype === 'f32'
    : reads.every((p) => p.type.dtype === 'f32');
  const rest = t.placed.slice(t.reads).every((p) => isLaneType(p.type.dtype));
  const chain = walk.epilogue === undefined ? walk.results[0]!.type.dtype === 'f32' : isVectorChain(walk.epilogue.ops) && walk.epilogue.root.type.dtype === 'f32';
  return f32 && rest && chain && dim.steps[t.firstResult] === dtypes[walk.results[0]!.type.dtype].bytes;
}
