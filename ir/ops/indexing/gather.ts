/** Reads at run-time indices. */
import { plain, type Axes, type Dim, type Index } from '../../axes.ts';
import type { Builder } from '../../builder.ts';
import type { Value } from '../../graph.ts';
import { num, type OpDef } from '../../op.ts';
import { isFloat, showType, sizeOf, tensorType } from '../../type.ts';
import { arity, check, dimsOf, fresh, namesOf, nth, readDims, requireAxis, requireIndex, writeDims } from '../helpers.ts';
import { elementOffsets, requireElementIndices, requireTarget, requireTuples, resolveIndices, tupleOffsets } from './indices.ts';

const axisAttr = { kind: 'number', default: 0 } as const;

export const gather: OpDef = {
  name: 'gather',
  doc: 'y[a.., i.., c..] = x[a.., indices[i..], c..], the index standing at `axis`; negative indices count from the end, others are clamped',
  family: 'index',
  operands: ['x', 'indices'],
  attrs: { axis: axisAttr },
  infer(operands, a) {
    const [x, indices] = arity(operands, 2);
    const axis = num(a, 'axis');
    requireAxis(axis, x);
    requireIndex(indices);
    requireTarget(x, axis, indices);
    return [tensorType(x.dtype, [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)])];
  },
  axes([x, indices], a, [y]) {
    const axis = num(a, 'axis');
    const dims = dimsOf(y!.shape);
    const whole: Dim = { name: 'v', size: x!.shape[axis]!, role: 'whole' };
    const end = axis + indices!.shape.length;
    const reads = [[...readDims(dims.slice(0, axis)), wholeOf(whole), ...readDims(dims.slice(end))], readDims(dims.slice(axis, end))];
    return oneMove([...dims, whole], reads, dims);
  },
  reference([x, indices], a, [y]) {
    const axis = num(a, 'axis');
    const length = x!.shape[axis]!;
    const at = resolveIndices(indices!, [length]);
    const inner = sizeOf(x!.shape.slice(axis + 1));
    const out = fresh(y!);
    for (let o = 0; o < sizeOf(x!.shape.slice(0, axis)); o++) {
      for (let i = 0; i < at.length; i++) {
        const from = (o * length + at[i]!) * inner;
        out.data.set(x!.data.subarray(from, from + inner) as Float64Array & BigInt64Array & BigUint64Array, (o * at.length + i) * inner);
      }
    }
    return [out];
  },
  grad: {
    build(b, op, [dy]) {
      const [x, indices] = [nth(op.operands, 0), nth(op.operands, 1)];
      if (!dy || !isFloat(x.type.dtype)) return [undefined, undefined];
      const axis = num(op.attrs, 'axis');
      const rank = indices.type.shape.length;
      // With the indexed axis in front, rows of x are named by tuples of one index.
      const lead = range(axis, axis + rank);
      const order = [...lead, ...range(0, dy.type.shape.length).filter((d) => !lead.includes(d))];
      const back = [axis, ...range(0, x.type.shape.length).filter((d) => d !== axis)];
      const rows = b.zeros(tensorType(x.type.dtype, back.map((d) => x.type.shape[d]!)));
      const sums = b.one('scatterNd', [rows, b.reshape(indices, [...indices.type.shape, 1]), b.transpose(dy, order)], { reduction: 'add' });
      return [b.transpose(sums, back.map((_, d) => back.indexOf(d))), undefined];
    },
  },
};

export const gatherElements: OpDef = {
  name: 'gatherElements',
  doc: 'y[p] = x[p with indices[p] at `axis`]; negative indices count from the end, others are clamped',
  family: 'index',
  operands: ['x', 'indices'],
  attrs: { axis: axisAttr },
  infer(operands, a) {
    const [x, indices] = arity(operands, 2);
    requireElementIndices(x, indices, num(a, 'axis'));
    return [tensorType(x.dtype, indices.shape)];
  },
  axes([x, indices], a) {
    const axis = num(a, 'axis');
    const dims = dimsOf(indices!.shape);
    const whole: Dim = { name: 'v', size: x!.shape[axis]!, role: 'whole' };
    return oneMove([...dims, whole], [dims.map((d, i) => (i === axis ? wholeOf(whole) : plain(d.name))), readDims(dims)], dims);
  },
  reference([x, indices], a, [y]) {
    const out = fresh(y!);
    // Elements are copied only, which bigints allow as numbers do.
    const [from, to] = [x!.data as Float64Array, out.data as Float64Array];
    elementOffsets(x!.shape, indices!, num(a, 'axis')).forEach((p, i) => (to[i] = from[p]!));
    return [out];
  },
  grad: {
    build(b, op, [dy]) {
      const [x, indices] = [nth(op.operands, 0), nth(op.operands, 1)];
      if (!dy || !isFloat(x.type.dtype)) return [undefined, undefined];
      return [b.one('scatterElements', [b.zeros(x.type), indices, dy], { axis: num(op.attrs, 'axis'), reduction: 'add' }), undefined];
    },
  },
};

export const gatherNd: OpDef = {
  name: 'gatherNd',
  doc: 'y[b.., i.., s..] = x[b.., indices[b.., i.., :].., s..]: tuples along the last axis of indices name slices, behind `batchDims` leading axes',
  family: 'index',
  operands: ['x', 'indices'],
  attrs: { batchDims: { kind: 'number', default: 0 } },
  infer(operands, a) {
    const [x, indices] = arity(operands, 2);
    const batch = num(a, 'batchDims');
    requireIndex(indices);
    check(indices.shape.length >= 1, () => `${showType(indices)} has no axis of index tuples`);
    check(Number.isInteger(batch) && batch >= 0 && batch < Math.min(x.shape.length + 1, indices.shape.length), () => `batchDims=${batch} must be at least 0 and below the rank of ${showType(indices)}`);
    check(x.shape.slice(0, batch).every((d, i) => d === indices.shape[i]), () => `the first ${batch} axes of ${showType(x)} and ${showType(indices)} differ`);
    const depth = indices.shape.at(-1)!;
    requireTuples(x, indices, batch, depth);
    return [tensorType(x.dtype, [...indices.shape.slice(0, -1), ...x.shape.slice(batch + depth)])];
  },
  axes([x, indices], a, [y]) {
    const batch = num(a, 'batchDims');
    const depth = indices!.shape.at(-1)!;
    const dims = dimsOf(y!.shape);
    const lead = indices!.shape.length - 1;
    const wholes = dimsOf(x!.shape.slice(batch, batch + depth), 'whole', 'v');
    const tuple: Dim = { name: 't', size: depth, role: 'whole' };
    const reads = [
      [...readDims(dims.slice(0, batch)), ...wholes.map(wholeOf), ...readDims(dims.slice(lead))],
      [...readDims(dims.slice(0, lead)), wholeOf(tuple)],
    ];
    return oneMove([...dims, ...wholes, tuple], reads, dims);
  },
  reference([x, indices], a, [y]) {
    const batch = num(a, 'batchDims');
    const depth = indices!.shape.at(-1)!;
    const offsets = tupleOffsets(indices!, x!.shape, batch, depth);
    const slice = sizeOf(x!.shape.slice(batch + depth));
    const perBatch = sizeOf(indices!.shape.slice(batch, -1));
    const batchSize = sizeOf(x!.shape.slice(batch));
    const out = fresh(y!);
    offsets.forEach((offset, i) => {
      const from = Math.floor(i / perBatch) * batchSize + offset;
      out.data.set(x!.data.subarray(from, from + slice) as Float64Array & BigInt64Array & BigUint64Array, i * slice);
    });
    return [out];
  },
  grad: {
    build(b, op, [dy]) {
      const [x, indices] = [nth(op.operands, 0), nth(op.operands, 1)];
      if (!dy || !isFloat(x.type.dtype)) return [undefined, undefined];
      const tuples = withBatchIndices(b, indices, num(op.attrs, 'batchDims'));
      return [b.one('scatterNd', [b.zeros(x.type), tuples, dy], { reduction: 'add' }), undefined];
    },
  },
};

/** Tuples that name the batch axes too. */
function withBatchIndices(b: Builder, indices: Value, batch: number): Value {
  const lead = [...indices.type.shape.slice(0, -1), 1];
  const own = range(0, batch).map((axis) => b.one('iota', [], { shape: lead, axis, dtype: indices.type.dtype }));
  return b.concat([...own, indices], lead.length - 1);
}

const wholeOf = (d: Dim): Index => ({ kind: 'whole', dim: d.name });
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

function oneMove(space: readonly Dim[], reads: readonly (readonly Index[])[], result: readonly Dim[]): Axes {
  return { space, stages: [{ pieces: [{ dims: namesOf(space), reads, writes: writeDims(result), indexed: [] }], combine: 'none', product: false }] };
}
