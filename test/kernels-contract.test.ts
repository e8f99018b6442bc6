import { describe, test } from 'vitest';
import type { Builder } from '../ir/builder.ts';
import type { Value } from '../ir/graph.ts';
import { channelsLast, rows, type Slot } from '../bench/kernel.ts';
import { sizeOf, tensorType, type TensorType } from '../ir/type.ts';
import { broadcastAt, eachIndex, expectKernel, featureSets, fuse, pack, randomArray, randomNumbers } from './contract-harness.ts';

interface Epilogue {
  readonly name: string;
  /** Shapes of further operands, given the result's. */
  readonly extra: (shape: readonly number[]) => readonly (readonly number[])[];
  readonly build: (b: Builder, y: Value, extra: readonly Value[]) => Value;
  readonly value: (y: number, extra: readonly number[]) => number;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const channel = (shape: readonly number[]): number[] => (shape.length > 2 ? [shape[1]!, ...shape.slice(2).map(() => 1)] : [shape.at(-1)!]);
const epilogues: readonly Epilogue[] = [
  { name: 'none', extra: () => [], build: (_, y) => y, value: (y) => y },
  { name: 'bias, relu', extra: (s) => [channel(s)], build: (b, y, [bias]) => b.unary('relu', b.add(y, bias!)), value: (y, [bias]) => Math.max(0, y + bias!) },
  { name: 'bias, residual, relu', extra: (s) => [channel(s), s], build: (b, y, [bias, r]) => b.unary('relu', b.add(b.add(y, bias!), r!)), value: (y, [bias, r]) => Math.max(0, y + bias! + r!) },
  { name: 'clip', extra: () => [], build: (b, y) => b.one('clamp', [y, b.scalar(0, 'f32'), b.scalar(0.5, 'f32')]), value: (y) => Math.min(0.5, Math.max(0, y)) },
  { name: 'bias, x · sigmoid(x)', extra: (s) => [channel(s)], build: (b, y, [bias]) => { const z = b.add(y, bias!); return b.mul(z, b.unary('sigmoid', z)); }, value: (y, [bias]) => (y + bias!) * sigmoid(y + bias!) },
  { name: 'scalar operand', extra: () => [[]], build: (b, y, [s]) => b.mul(y, s!), value: (y, [s]) => y * s! },
  { name: 'operand that varies along the last axis and the first', extra: (s) => [[s[0]!, ...s.slice(1, -1).map(() => 1), s.at(-1)!]], build: (b, y, [s]) => b.mul(y, s!), value: (y, [s]) => y * s! },
];

function slotsFor(types: readonly TensorType[], layout: (t: TensorType) => Slot, rank: number): Slot[] {
  return types.map((t) => (t.shape.length === rank ? layout(t) : rows(t)));
}

function withEpilogue(e: Epilogue, shape: readonly number[], plain: Float64Array, next: () => number): { readonly types: TensorType[]; readonly data: Float64Array[]; readonly want: Float64Array } {
  const types = e.extra(shape).map((s) => tensorType('f32', s));
  const data = types.map((t) => randomArray(sizeOf(t.shape), next));
  const want = new Float64Array(plain.length);
  eachIndex(shape, (index, at) => (want[at] = e.value(plain[at]!, data.map((d, i) => d[broadcastAt(types[i]!.shape, index)]!))));
  return { types, data, want };
}

describe.each(featureSets)('packed matrix product, %s', (features) => {
  const shapes = [[1, 1, 1], [1, 10, 33], [7, 5, 3], [6, 8, 4], [13, 17, 9], [49, 24, 70], [200, 36, 21], [64, 100, 300]] as const;
  test.each(shapes)('%i x %i, sum over %i', (m, n, k) => {
    const next = randomNumbers(m * 1000 + n * 10 + k);
    const a = randomArray(m * k, next);
    const b = randomArray(k * n, next);
    const plain = new Float64Array(m * n);
    for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) for (let l = 0; l < k; l++) plain[i * n + j]! += a[i * k + l]! * b[l * n + j]!;
    const packed = pack('packMatmul', tensorType('f32', [k, n]), b, { spec: 'mk,kn->mn' });
    for (const e of epilogues) {
      const { types, data, want } = withEpilogue(e, [m, n], plain, next);
      const op = fuse({ name: 'contractPacked', attrs: { spec: 'mk,kn->mn', bShape: [k, n] }, operands: [tensorType('f32', [m, k]), packed.type] }, types, e.build);
      expectKernel(features, op, [rows(tensorType('f32', [m, k])), rows(packed.type), ...types.map(rows)], [a, packed.data, ...data], rows(tensorType('f32', [m, n])), want, undefined, plain);
    }
  });
  test('a transposed right operand, several row axes, rows further apart than their length', () => {
    const next = randomNumbers(5);
    const [p, q, k, n] = [3, 7, 12, 10];
    const a = randomArray(p * q * k, next);
    const b = randomArray(n * k, next);
    const want = new Float64Array(p * q * n);
    for (let i = 0; i < p * q; i++) for (let j = 0; j < n; j++) for (let l = 0; l < k; l++) want[i * n + j]! += a[i * k + l]! * b[j * k + l]!;
    const packed = pack('packMatmul', tensorType('f32', [n, k]), b, { spec: 'pqk,nk->pqn' });
    const op = fuse({ name: 'contractPacked', attrs: { spec: 'pqk,nk->pqn', bShape: [n, k] }, operands: [tensorType('f32', [p, q, k]), packed.type] }, [], (_, y) => y);
    const wide = (shape: readonly number[], row: number): Slot => ({ type: tensorType('f32', shape), strides: [q * row, row, 1], length: p * q * row, offset: 2 });
    expectKernel(features, op, [wide([p, q, k], 19), rows(packed.type)], [a, packed.data], wide([p, q, n], 15), want);
  });
});

interface Conv {
  readonly x: readonly number[];
  readonly w: readonly number[];
  readonly strides?: readonly number[];
  readonly pads?: readonly number[];
  readonly dilations?: readonly number[];
  readonly groups?: number;
}

/** y[n,o,h] = Σ x[n,i,h·s+y·d-p] · w[o,i,y], over any number of spatial axes. */
function naiveConv(c: Required<Conv>, x: Float64Array, w: Float64Array): { readonly shape: number[]; readonly y: Float64Array } {
  const rank = c.x.length - 2;
  const spatial = c.x.slice(2).map((d, i) => Math.floor((d + c.pads[i]! + c.pads[rank + i]! - c.dilations[i]! * (c.w[i + 2]! - 1) - 1) / c.strides[i]!) + 1);
  const shape = [c.x[0]!, c.w[0]!, ...spatial];
  const y = new Float64Array(sizeOf(shape));
  const perGroup = c.w[0]! / c.groups;
  eachIndex(shape, ([n, o, ...at], to) => {
    const first = Math.floor(o! / perGroup) * c.w[1]!;
    eachIndex(c.w.slice(1), ([i, ...tap], from) => {
      const read = at.map((v, d) => v * c.strides[d]! + tap[d]! * c.dilations[d]! - c.pads[d]!);
      if (read.some((v, d) => v < 0 || v >= c.x[d + 2]!)) return;
      const flat = read.reduce((s, v, d) => s * c.x[d + 2]! + v, n! * c.x[1]! + first + i!);
      y[to]! += x[flat]! * w[o! * sizeOf(c.w.slice(1)) + from]!;
    });
  });
  return { shape, y };
}

const filled = (c: Conv): Required<Conv> => {
  const rank = c.x.length - 2;
  const all = (v: number, n = rank): number[] => new Array<number>(n).fill(v);
  return { strides: all(1), pads: all(0, 2 * rank), dilations: all(1), groups: 1, ...c };
};

function checkConv(features: (typeof featureSets)[number], algorithm: string, given: Conv, chosen: readonly Epilogue[], tolerance?: number, slices = false): void {
  const c = filled(given);
  const next = randomNumbers(sizeOf(c.x) + 7 * sizeOf(c.w));
  const x = randomArray(sizeOf(c.x), next);
  const w = randomArray(sizeOf(c.w), next);
  const { shape, y } = naiveConv(c, x, w);
  const packed = pack('packConv', tensorType('f32', c.w), w, { algorithm, groups: c.groups });
  const attrs = { algorithm, strides: c.strides, pads: c.pads, dilations: c.dilations, groups: c.groups, weightShape: c.w };
  for (const e of chosen) {
    const { types, data, want } = withEpilogue(e, shape, y, next);
    const op = fuse({ name: 'convPacked', attrs, operands: [tensorType('f32', c.x), packed.type] }, types, e.build);
    const layout = (t: TensorType, extra: number): Slot => (slices ? channelsLast(t, t.shape[1]! + extra, 3) : channelsLast(t));
    expectKernel(features, op, [layout(tensorType('f32', c.x), 5), rows(packed.type), ...slotsFor(types, (t) => layout(t, 9), shape.length)], [x, packed.data, ...data], layout(tensorType('f32', shape), 7), want, tolerance, y);
  }
}

const convs: readonly Conv[] = [
  { x: [1, 3, 9, 11], w: [8, 3, 3, 3], pads: [1, 1, 1, 1] },
  { x: [1, 3, 23, 19], w: [12, 3, 7, 7], pads: [3, 3, 3, 3], strides: [2, 2] },
  { x: [2, 5, 6, 7], w: [9, 5, 1, 1] },
  { x: [1, 16, 14, 14], w: [24, 16, 3, 3], pads: [1, 1, 1, 1] },
  { x: [1, 4, 8, 9], w: [6, 4, 1, 1], strides: [2, 2] },
  { x: [2, 6, 7, 8], w: [10, 3, 3, 2], groups: 2, pads: [1, 0, 0, 1], dilations: [2, 1] },
  { x: [1, 8, 5, 5], w: [8, 2, 3, 3], groups: 4, pads: [1, 1, 1, 1] },
  { x: [1, 6, 9, 9], w: [12, 1, 3, 3], groups: 6, pads: [1, 1, 1, 1], strides: [2, 2] },
  { x: [2, 4, 10], w: [7, 4, 3], pads: [2, 1], strides: [3] },
  { x: [1, 2, 5, 6, 7], w: [3, 2, 2, 3, 3], pads: [0, 1, 1, 1, 1, 1] },
  { x: [1, 1, 12, 12], w: [4, 1, 5, 5], pads: [2, 2, 2, 2] },
  { x: [1, 4, 6, 6], w: [4, 4, 3, 3], pads: [-1, 0, 2, -1] },
];

describe.each(featureSets)('direct convolution, %s', (features) => {
  test.each(convs)('$x by $w, strides $strides, pads $pads, dilations $dilations, groups $groups', (c) => {
    checkConv(features, 'direct', c, c.x.length === 4 ? epilogues : epilogues.slice(0, 3));
  });
  test('channel slices of wider tensors', () => {
    checkConv(features, 'direct', { x: [2, 5, 7, 7], w: [10, 5, 3, 3], pads: [1, 1, 1, 1] }, epilogues, undefined, true);
  });
});

const winogradConvs: readonly Conv[] = [
  { x: [1, 4, 4, 4], w: [4, 4, 3, 3], pads: [1, 1, 1, 1] },
  { x: [1, 8, 14, 14], w: [12, 8, 3, 3], pads: [1, 1, 1, 1] },
  { x: [2, 4, 7, 9], w: [8, 4, 3, 3], pads: [1, 0, 2, 1] },
  { x: [1, 12, 19, 21], w: [20, 12, 3, 3] },
  { x: [3, 4, 9, 6], w: [36, 4, 3, 3], pads: [1, 1, 1, 1] },
];
// F(2x2) is about as exact as a direct convolution; the bound of F(4x4) on rounding grows by the norms of its transforms, about 20 times.
describe.each(featureSets)('Winograd convolution, %s', (features) => {
  describe.each([['winograd2', 4e-6], ['winograd4', 4e-5]] as const)('%s', (algorithm, tolerance) => {
    test.each(winogradConvs)('$x by $w, pads $pads', (c) => checkConv(features, algorithm, c, epilogues, tolerance));
    test('channel slices of wider tensors', () => checkConv(features, algorithm, { x: [2, 8, 7, 7], w: [12, 8, 3, 3], pads: [1, 1, 1, 1] }, epilogues, tolerance, true));
  });
});

const depthwiseConvs: readonly Conv[] = [
  { x: [1, 8, 7, 7], w: [8, 1, 3, 3], pads: [1, 1, 1, 1], groups: 8 },
  { x: [1, 12, 15, 29], w: [12, 1, 3, 3], pads: [1, 1, 1, 1], strides: [2, 2], groups: 12 },
  { x: [2, 10, 9, 17], w: [10, 1, 5, 5], pads: [2, 2, 2, 2], groups: 10 },
  { x: [1, 5, 14, 13], w: [5, 1, 5, 5], pads: [1, 2, 3, 2], strides: [2, 1], groups: 5 },
  { x: [1, 7, 20, 20], w: [7, 1, 7, 7], pads: [3, 3, 3, 3], groups: 7 },
  { x: [1, 4, 12, 40], w: [4, 1, 3, 3], pads: [2, 2, 2, 2], dilations: [2, 2], groups: 4 },
  { x: [1, 6, 4, 3], w: [6, 1, 3, 3], pads: [3, 4, 3, 4], groups: 6 },
  { x: [2, 9, 31], w: [9, 1, 4], pads: [1, 2], strides: [3], groups: 9 },
  { x: [1, 3, 9, 9], w: [3, 1, 2, 3], pads: [-1, 0, 0, -2], groups: 3 },
];
describe.each(featureSets)('depthwise convolution, %s', (features) => {
  test.each(depthwiseConvs)('$x by $w, strides $strides, pads $pads, dilations $dilations', (c) => checkConv(features, 'depthwise', c, epilogues));
  test('channel slices of wider tensors', () => checkConv(features, 'depthwise', { x: [2, 6, 9, 9], w: [6, 1, 3, 3], pads: [1, 1, 1, 1], groups: 6 }, epilogues, undefined, true));
});

describe('convolutions of random shapes', () => {
  test.each(Array.from({ length: 40 }, (_, seed) => seed))('seed %i', (seed) => {
    const next = randomNumbers(seed * 7919 + 13);
    const pick = (lo: number, hi: number): number => lo + Math.floor(((next() + 1) / 2) * (hi - lo + 1));
    const features = featureSets[pick(0, 3)]!;
    const algorithm = (['direct', 'direct', 'depthwise', 'winograd2', 'winograd4'] as const)[pick(0, 4)]!;
    const fast = algorithm.startsWith('winograd');
    const kernel = fast ? [3, 3] : [pick(1, 5), pick(1, 5)];
    const groups = algorithm === 'depthwise' ? pick(2, 21) : algorithm === 'direct' ? pick(1, 3) : 1;
    const [fanIn, fanOut] = algorithm === 'depthwise' ? [1, 1] : fast ? [4 * pick(1, 6), 4 * pick(1, 9)] : [pick(1, 20), pick(1, 30)];
    const step = (): number[] => (fast ? [1, 1] : [pick(1, 3), pick(1, 3)]);
    const [strides, dilations] = [step(), step()];
    const reach = kernel.map((k, i) => (k - 1) * dilations[i]! + 1);
    const pads = [0, 1, 0, 1].map((axis) => pick(0, reach[axis]! - 1));
    const size = reach.map((r) => r + pick(0, 24));
    const c: Conv = { x: [pick(1, 3), groups * fanIn, ...size], w: [groups * fanOut, fanIn, ...kernel], strides, pads, dilations, groups };
    checkConv(features, algorithm, c, [epilogues[pick(0, epilogues.length - 1)]!], fast ? 4e-5 : undefined, pick(0, 1) === 1);
  });
});
