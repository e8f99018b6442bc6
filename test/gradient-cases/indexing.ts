/** Gradient cases of reads and writes at run-time indices. */
import fc from 'fast-check';
import type { Tensor } from '../../ir/type.ts';
import { between, distinct, shapes, tensor, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';

const values = between(-2, 2);
const indexType = fc.constantFrom('i32' as const, 'i64' as const);

/** Indices along an axis: from either end, and some outside, which are clamped. */
export const indicesFor = (shape: readonly number[], size: number): fc.Arbitrary<Tensor> => indexType.chain((dtype) => tensors(shape, fc.integer({ min: -size - 2, max: size + 1 }), dtype));

const nonScalar = shapes(3, 3).filter((s) => s.length > 0);

/** Shapes of x and of the tensor of indices that names some of its elements along an axis. */
export const elementwise: fc.Arbitrary<{ shape: number[]; axis: number; part: number[] }> = nonScalar.chain((shape) => fc
  .tuple(fc.nat(shape.length - 1), fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 3, maxLength: 3 }))
  .map(([axis, want]) => ({ shape, axis, part: shape.map((d, i) => (i === axis ? want[i]! : Math.min(d, want[i]!))) })));

/** A shape and tuples of indices into its axes from `batch` on. */
const tuples: fc.Arbitrary<{ shape: number[]; batch: number; depth: number; indices: Tensor; lead: number[] }> = fc
  .tuple(nonScalar, fc.nat(2), fc.nat(3), shapes(2, 2))
  .chain(([shape, b, d, more]) => {
    const batch = Math.min(b, shape.length - 1);
    const depth = Math.min(d, shape.length - batch);
    const lead = [...shape.slice(0, batch), ...more];
    return indicesFor([...lead, depth], 3).map((indices) => ({ shape, batch, depth, indices, lead }));
  });

const reductions = ['none', 'add', 'mul', 'min', 'max'];
/** Values with zeros for products; values without ties for extremes. */
const both = (reduction: string, a: readonly number[], b: readonly number[]): fc.Arbitrary<[Tensor, Tensor]> => {
  if (reduction === 'mul') return fc.tuple(tensors(a, fc.oneof(values, fc.constant(0))), tensors(b, fc.oneof(values, fc.constant(0))));
  if (reduction !== 'min' && reduction !== 'max') return fc.tuple(tensors(a, values), tensors(b, values));
  const n = a.reduce((p, d) => p * d, 1);
  const m = b.reduce((p, d) => p * d, 1);
  return distinct([n + m]).map((all) => [tensor('f64', a, [...(all.data as Float64Array)].slice(0, n)), tensor('f64', b, [...(all.data as Float64Array)].slice(n))]);
};

const window = nonScalar.chain((shape) => fc.tuple(fc.constant(shape), fc.tuple(...shape.map((d) => fc.integer({ min: 1, max: d }))), tensors([shape.length], fc.integer({ min: -2, max: 4 }), 'i64')));

export const indexingGradients: readonly GradientCase[] = [
  {
    op: 'gather',
    instance: fc.tuple(nonScalar, shapes(2, 3)).chain(([shape, wanted]) => fc.nat(shape.length - 1).chain((axis) => fc
      .tuple(tensors(shape, values), indicesFor(wanted, shape[axis]!))
      .map((operands): Instance => ({ operands, attrs: { axis } })))),
    runs: 50,
  },
  {
    op: 'gatherElements',
    instance: elementwise.chain(({ shape, axis, part }) => fc.tuple(tensors(shape, values), indicesFor(part, shape[axis]!)).map((operands) => ({ operands, attrs: { axis } }))),
    runs: 50,
  },
  { op: 'gatherNd', instance: tuples.chain(({ shape, batch, indices }) => tensors(shape, values).map((x) => ({ operands: [x, indices], attrs: { batchDims: batch } }))), runs: 60 },
  { op: 'dynamicSlice', instance: window.chain(([shape, sizes, starts]) => tensors(shape, values).map((x) => ({ operands: [x, starts], attrs: { sizes } }))) },
  { op: 'dynamicUpdate', instance: window.chain(([shape, sizes, starts]) => fc.tuple(tensors(shape, values), tensors(sizes, values)).map(([x, patch]) => ({ operands: [x, patch, starts] }))) },
  ...reductions.map((reduction): GradientCase => ({
    op: 'scatterElements',
    note: reduction,
    instance: elementwise.chain(({ shape, axis, part }) => fc
      .tuple(both(reduction, shape, part), indicesFor(part, shape[axis]!))
      .map(([[x, updates], indices]) => ({ operands: [x, indices, updates], attrs: { axis, reduction } }))),
    runs: 40,
  })),
  ...reductions.map((reduction): GradientCase => ({
    op: 'scatterNd',
    note: reduction,
    instance: tuples.filter((t) => t.batch === 0).chain(({ shape, depth, indices, lead }) => both(reduction, shape, [...lead, ...shape.slice(depth)])
      .map(([x, updates]) => ({ operands: [x, indices, updates], attrs: { reduction } }))),
    runs: 40,
  })),
];
