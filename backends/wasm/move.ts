/** Ops that move elements: transposes, slices, pads, concatenations, broadcasts, reshapes between layouts, and iota. */
import { invariant } from '../../ir/diagnostic.ts';
import type { Axes, Dim, Piece } from '../../ir/axes.ts';
import type { Op } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { opDef } from '../../ir/ops/index.ts';
import type { Placed } from '../../ir/tile.ts';
import { dtypes, isFloat, rowMajor, sizeOf } from '../../ir/type.ts';
import { accessOf, placeAccess } from './access.ts';
import type { Asm } from './asm.ts';
import { copyParts, emitCopy, rawType } from './copy.ts';
import { computeType, loadElement, normalize, storeElement } from './dtype.ts';
import { byteSteps, eachElement, eachNumber, nothing, offsetOfNumber } from './elements.ts';
import { kernelKey, type Emitter, type KernelCode } from './kernel.ts';
import { kernelOfParts, lightWork, type NestDim, type Part } from './nest.ts';
import { walkParts, type Walk } from './walk/index.ts';

export const emitMove: Emitter = (asm, op, operands, results) => {
  const [result] = results;
  invariant(result !== undefined, `${op.name} has a result`);
  if (sizeOf(result.type.shape) === 0) return nothing;
  const key = kernelKey(op, operands, results);
  if (op.name === 'iota') return emitIota(asm, key, num(op.attrs, 'axis'), result);
  if (op.name === 'reshape') return emitReshape(asm, key, operands[0]!, result);
  const axes = axesOf(op);
  const stage = axes.stages[0]!;
  const outside = op.name === 'pad' ? num(op.attrs, 'value') : 0;
  const walk: Walk = { space: axes.space, stage, reads: operands.map((placed, operand) => ({ placed, operand })), fold: undefined, outside: isFloat(result.type.dtype) ? outside : BigInt(outside), results: [result] };
  return kernelOfParts(asm, key, operands.length + 1, stage.pieces.flatMap((piece) => copyPieceParts(asm, axes, piece, operands, result) ?? walkParts(asm, walk, piece, operands.length)));
};

/** The axes of an op that has them. */
export function axesOf(op: Op): Axes {
  const axes = opDef(op.name).axes(op.operands.map((v) => v.type), op.attrs, op.results.map((v) => v.type));
  invariant(!('none' in axes), `${op.name} is described by axes`);
  return axes;
}

/** A piece that reads one operand at evenly spaced places, as a copy. */
function copyPieceParts(asm: Asm, axes: Axes, piece: Piece, operands: readonly Placed[], result: Placed): Part[] | undefined {
  const sources = piece.reads.flatMap((r, i) => (r ? [{ index: r, operand: i }] : []));
  const [source] = sources;
  if (sources.length !== 1 || !source) return undefined;
  const dims = new Map<string, Dim>(axes.space.filter((d) => piece.dims.includes(d.name)).map((d) => [d.name, d]));
  const read = accessOf(source.index, operands[source.operand]!, dims);
  if (read.tables.length + read.clips.length > 0) return undefined;
  const write = placeAccess(piece.writes, result);
  const list = [...dims.values()];
  if (list.some((d) => d.size === 0)) return [];
  const nest = list.map((d): NestDim => {
    const steps = operands.map(() => 0);
    steps[source.operand] = read.steps.get(d.name) ?? 0;
    return { name: d.name, size: d.size, steps: [...steps, write.steps.get(d.name) ?? 0] };
  });
  return copyParts(asm, dtypes[result.type.dtype].bytes, nest, source.operand, operands.length, [read.fixed, write.fixed]);
}

const isRowMajor = (p: Placed): boolean => rowMajor(p.type.shape).every((s, i) => p.type.shape[i] === 1 || p.strides[i] === s);

/** Where one side is row-major it is a copy under the other's shape; else the row-major number of each element is taken apart. */
function emitReshape(asm: Asm, key: string, from: Placed, to: Placed): KernelCode {
  if (isRowMajor(from)) return emitCopy(asm, { type: to.type, strides: rowMajor(to.type.shape) }, to);
  if (isRowMajor(to)) return emitCopy(asm, from, { type: from.type, strides: rowMajor(from.type.shape) });
  const raw = rawType(dtypes[to.type.dtype].bytes);
  return eachNumber(asm, key, to.type.shape, 2, Math.ceil(lightWork(asm) / 4), 0, 2 * dtypes[to.type.dtype].bytes, (f, n, ptrs) => [
    storeElement(asm, raw, asm.add(f.get(ptrs[1]!), offsetOfNumber(f, to, n)), loadElement(asm, raw, asm.add(f.get(ptrs[0]!), offsetOfNumber(f, from, n)))),
  ]);
}

/** Each element is its index along an axis. */
function emitIota(asm: Asm, key: string, axis: number, result: Placed): KernelCode {
  const { dtype, shape } = result.type;
  const { m } = asm;
  return eachElement(asm, key, shape, [byteSteps(result)], { work: 2, touched: dtypes[dtype].bytes }, (f, indices, ptrs) => {
    const index = f.get(indices[axis]!);
    const type = computeType(dtype);
    const value = type === 'i32' ? index : type === 'i64' ? m.i64.extend_s(index) : m[type].convert_s.i32(index);
    return [storeElement(asm, dtype, f.get(ptrs[0]!), normalize(asm, dtype, value))];
  });
}
