/** Gradient cases of pools and resampling. */
import fc from 'fast-check';
import { between, distinct, tensors, type GradientCase, type Instance } from '../gradient-harness.ts';
import { geometries, type Geometry } from './spatial.ts';
import { sizeOf } from '../../ir/type.ts';

const values = between(-2, 2);
/** Batch and channels. */
export const planes = fc.tuple(fc.integer({ min: 1, max: 2 }), fc.integer({ min: 1, max: 2 }));

/** A random table: which elements each output reads, with which weights (some of them 0). */
export const tables: fc.Arbitrary<{ shape: number[]; attrs: { axis: number; size: number; taps: number; indices: number[]; weights: number[] } }> = fc
  .record({ shape: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }), pick: fc.nat(99), size: fc.integer({ min: 1, max: 5 }), taps: fc.integer({ min: 1, max: 3 }) })
  .chain(({ shape, pick, size, taps }) => {
    const axis = pick % shape.length;
    const entries = { minLength: size * taps, maxLength: size * taps };
    return fc.tuple(fc.array(fc.nat(shape[axis]! - 1), entries), fc.array(fc.constantFrom(0, 1, -0.5, 0.25, 2), entries)).map(([indices, weights]) => ({ shape, attrs: { axis, size, taps, indices, weights } }));
  });

/** dy and window positions, some of which may point into the padding. */
export const pooled = (value: fc.Arbitrary<number>): fc.Arbitrary<Instance> => fc.tuple(geometries, planes).chain(([g, p]) => fc
  .tuple(tensors([...p, ...g.out], value), tensors([...p, ...g.out], fc.nat(sizeOf(g.kernel) - 1), 'i32'))
  .map((operands) => ({ operands, attrs: { kernel: g.kernel, ...g.sweep, size: g.input } })));

/** Whether every window holds an element of the input; the maximum of one that does not is -inf. */
const meetsInput = (g: Geometry): boolean => g.input.every((size, i) => Array.from({ length: g.out[i]! }, (_, h) => h)
  .every((h) => Array.from({ length: g.kernel[i]! }, (_, y) => h * g.sweep.strides[i]! + y * g.sweep.dilations[i]! - g.sweep.pads[i]!).some((at) => at >= 0 && at < size)));

export const windowGradients: readonly GradientCase[] = [
  { op: 'maxPool', instance: fc.tuple(geometries.filter(meetsInput), planes).chain(([g, p]) => distinct([...p, ...g.input]).map((x) => ({ operands: [x], attrs: { kernel: g.kernel, ...g.sweep } }))), runs: 40 },
  { op: 'maxPoolGrad', instance: pooled(values), runs: 40 },
  { op: 'sumPool', instance: fc.tuple(geometries, planes).chain(([g, p]) => tensors([...p, ...g.input], values).map((x) => ({ operands: [x], attrs: { kernel: g.kernel, ...g.sweep } }))), runs: 25 },
  { op: 'sumPoolGrad', instance: fc.tuple(geometries, planes).chain(([g, p]) => tensors([...p, ...g.out], values).map((x) => ({ operands: [x], attrs: { kernel: g.kernel, ...g.sweep, size: g.input } }))), runs: 25 },
  { op: 'resample', instance: tables.chain(({ shape, attrs }) => tensors(shape, values).map((x) => ({ operands: [x], attrs }))), runs: 60 },
];
