/**
 * The general kernel: walks the pieces of an op's axes. It reads each operand at the piece's index, folds over the reduce dims (for one operand: its
 * values; for two: their products), runs an elementwise chain on the result and writes it. It serves moves, windows, resampling and reductions of every
 * layout, and contractions of every dtype that have no faster kernel. Four f32 lanes run along a parallel dim that is contiguous in the result.
 */
import type { Dim, Piece } from '../../../ir/axes.ts';
import { dtypes } from '../../../ir/type.ts';
import { accessOf, placeAccess } from '../access.ts';
import type { Asm } from '../asm.ts';
import type { KernelCode } from '../kernel.ts';
import { stepAlong } from '../map.ts';
import { collapse, cutWithin, emitNest, kernelOfParts, type NestDim, type Part } from '../nest.ts';
import { emitRow } from './row.ts';
import type { Tensors, Walk } from './types.ts';

export type { Walk } from './types.ts';

/** Emits a walk as a kernel of `operands` operands. */
export function emitWalk(asm: Asm, key: string, walk: Walk, operands: number): KernelCode {
  const parts = walk.stage.pieces.flatMap((piece) => walkParts(asm, walk, piece, operands));
  return kernelOfParts(asm, key, operands + walk.results.length, parts);
}

/** One piece of a walk, as parts of a kernel of `operands` operands. */
export function walkParts(asm: Asm, walk: Walk, piece: Piece, operands: number): Part[] {
  const dims = new Map(walk.space.filter((d) => piece.dims.includes(d.name)).map((d) => [d.name, d]));
  const written = new Set(piece.writes.flatMap((p) => p.terms.map(([d]) => d)));
  const parallel = [...dims.values()].filter((d) => written.has(d.name));
  const reduce = [...dims.values()].filter((d) => !written.has(d.name) && d.role === 'reduce');
  if (parallel.some((d) => d.size === 0)) return [];
  const t = tensorsOf(walk, piece, dims, operands);
  const odd = new Set(t.accesses.flatMap((a) => [...a.tables.flatMap((x) => [x.outer, x.inner ?? x.outer]), ...a.clips.flatMap((c) => c.terms.map(([d]) => d))]));
  if (walk.weights) for (const d of [walk.weights.outer, walk.weights.inner ?? walk.weights.outer]) odd.add(d);
  const nestDim = (d: Dim): NestDim => ({ name: d.name, size: d.size, steps: t.accesses.map((a) => a.steps.get(d.name) ?? 0), ...(odd.has(d.name) && { indexed: true }) });
  const main = t.firstResult;
  const ordered = parallel.map(nestDim).sort((a, b) => Math.abs(b.steps[main]!) - Math.abs(a.steps[main]!));
  const outer = collapse(ordered);
  if (outer.length === 0 || outer.at(-1)!.indexed) outer.push({ name: ' one', size: 1, steps: t.accesses.map(() => 0) });
  const inner = collapse(reduce.map(nestDim));
  const work = inner.reduce((n, d) => n * Math.max(1, d.size), 1);
  // What is read at places that a table gives lies anywhere: each iteration may read another element.
  const spread = (d: NestDim): NestDim => ({ ...d, steps: d.steps.map((s, i) => (t.accesses[i]!.tables.length > 0 ? Infinity : s)) });
  const cut = cutWithin(asm, outer, { elements: t.placed.map((p) => dtypes[p.type.dtype].bytes), work, inner: inner.map(spread), least: 16, bytesOver: outer.map(spread) });
  return [{
    cut,
    bytes: cut.bytes,
    work: work * outer.reduce((n, d) => n * d.size, 1),
    emit(f, chunk, ptrs) {
      const bases = t.accesses.map((a, i) => {
        const base = f.local('i32');
        return { base, set: f.set(base, asm.plus(f.get(ptrs[t.pointers[i]!]!), a.fixed)) };
      });
      return [
        ...bases.map((b) => b.set),
        ...emitNest(f, outer, cut, chunk, bases.map((b) => b.base), {
          row: (row) => emitRow(f, { walk, tensors: t, dims, inner }, outer.at(-1)!, row),
        }),
      ];
    },
  }];
}

function tensorsOf(walk: Walk, piece: Piece, dims: ReadonlyMap<string, Dim>, operands: number): Tensors {
  const read = walk.reads.flatMap((r, i) => {
    const index = piece.reads[i];
    return index ? [{ access: accessOf(index, r.placed, dims), placed: r.placed, pointer: r.operand }] : [];
  });
  const { shape } = walk.results[0]!.type;
  const rank = shape.length;
  const extras = (walk.epilogue?.extras ?? []).map((x) => {
    // Broadcast against the result: its places, with this operand's strides.
    const strides = shape.map((_, axis) => stepAlong(x.placed, axis - rank) / dtypes[x.placed.type.dtype].bytes);
    return { access: placeAccess(piece.writes, { type: { dtype: x.placed.type.dtype, shape }, strides }), placed: x.placed, pointer: x.operand };
  });
  const results = walk.results.map((placed, i) => ({ access: placeAccess(piece.writes, placed), placed, pointer: operands + i }));
  const all = [...read, ...extras, ...results];
  return { accesses: all.map((a) => a.access), placed: all.map((a) => a.placed), pointers: all.map((a) => a.pointer), reads: read.length, firstResult: read.length + extras.length };
}
