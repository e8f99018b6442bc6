/** Ops that read tensors of more bytes than all bindings of a shader hold: reductions in parts, and windows that kernels see by turns. */
import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { Unsupported } from '../ir/diagnostic.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Attrs, Graph, Value } from '../ir/graph.ts';
import type { DType, Tensor } from '../ir/type.ts';
import { wgslHalfTarget } from '../cli/driver/target.ts';
import { halfPrecision } from '../passes/half-precision.ts';
import { differenceInHalves } from './half-harness.ts';
import { difference, random } from './wasm-harness.ts';
import { compiled, gpu, halfGpu, onGpu, onHalfGpu, runOnGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

/** Eight bindings of a kilobyte: 2048 elements of f32. */
const gpuLimits = { maxStorageBufferBindingSize: 1024, maxBufferSize: 8192 };

interface Case { readonly graph: Graph; readonly inputs: Readonly<Record<string, Tensor>> }

/** A graph over inputs of these shapes. */
function over(shapes: Readonly<Record<string, readonly number[]>>, make: (b: Builder, x: Record<string, Value>) => readonly Value[], dtype: DType = 'f32', more: Readonly<Record<string, Tensor>> = {}): Case {
  const inputs = { ...Object.fromEntries(Object.entries(shapes).map(([name, shape], i) => [name, random(shape, i + 1, dtype)])), ...more };
  const b = new Builder('parts');
  const values = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, b.input({ dtype: t.dtype, shape: t.shape }, name)]));
  return { graph: b.finish(make(b, values).map((value, i) => ({ name: `y${i}`, value }))), inputs };
}
const opOf = (name: string, shapes: readonly (readonly number[])[], attrs: Attrs): (() => Case) => () => over(Object.fromEntries(shapes.map((s, i) => [`x${i}`, s])), (b, x) => b.op(name, Object.values(x), attrs));
const at: Tensor = { dtype: 'i32', shape: [9], data: Int32Array.of(0, 79, 31, -1, 30, 15, 44, 78, -80) };
const square = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 };

const cases: readonly (readonly [string, () => Case])[] = [
  ['a gather of rows', () => over({ x: [80, 40] }, (b, { x, at }) => [b.one('gather', [x!, at!], { axis: 0 })], 'f32', { at })],
  ['a gather of columns', () => over({ x: [40, 80] }, (b, { x, at }) => [b.one('gather', [x!, at!], { axis: 1 })], 'f32', { at })],
  ['a gather with ops after it', () => over({ x: [80, 40], y: [9, 40] }, (b, { x, y, at }) => [b.unary('relu', b.sub(b.one('gather', [x!, at!], { axis: 0 }), y!))], 'f32', { at })],
  ['a gather of numbers that are flags', () => over({ x: [80, 40] }, (b, { x, at }) => [b.one('gather', [b.one('gt', [x!, b.one('neg', [x!])]), at!], { axis: 0 })], 'f32', { at })],
  ['a reversal of both axes', opOf('slice', [[50, 50]], { starts: [49, 49], sizes: [50, 50], steps: [-1, -1] })],
  ['a transposition beside the tensor itself', () => over({ x: [50, 50] }, (b, { x }) => [b.add(b.mul(x!, x!), b.transpose(x!, [1, 0]))])],
  ['a reshape of two transposed tensors', () => over({ x: [50, 60], y: [50, 60] }, (b, { x, y }) => [b.reshape(b.add(b.transpose(x!, [1, 0]), b.transpose(y!, [1, 0])), [3, 1000])])],
  ['a broadcast', () => over({ x: [3000], y: [2, 3000] }, (b, { x, y }) => [b.add(x!, b.one('slice', [y!], { starts: [1, 2999], sizes: [2, 3000], steps: [-1, -1] }))])],
  ['an edge around a tensor, and another by mirrors', () => over({ x: [50, 51] }, (b, { x }) => [b.one('pad', [x!], { lo: [2, 3], hi: [1, 2], mode: 'constant', value: 7 }), b.one('pad', [x!], { lo: [2, 3], hi: [1, 2], mode: 'reflect', value: 0 })])],
  ['a product with a long sum', opOf('contract', [[3, 3000], [3000, 2]], { spec: 'mk,kn->mn' })],
  ['a product whose operands are both read along k', opOf('contract', [[30, 70], [31, 70]], { spec: 'mk,nk->mn' })],
  ['a product with itself and ops after it', () => over({ x: [35, 60], y: [35, 35] }, (b, { x, y }) => [b.unary('relu', b.add(b.one('contract', [x!, x!], { spec: 'mk,nk->mn' }), y!))])],
  ['a convolution of many channels', opOf('conv', [[1, 30, 12, 11], [5, 30, 3, 3]], square)],
  ['its weight gradient', opOf('convWeight', [[6, 5, 12, 11], [6, 4, 12, 11]], { ...square, kernel: [3, 3] })],
  ['sums, products and extremes of a whole tensor', () => over({ x: [55, 60] }, (b, { x }) => (['reduceSum', 'reduceMax', 'reduceMin'] as const).map((name) => b.reduce(name, x!, [0, 1])))],
  ['products of columns', () => over({ x: [60, 50] }, (b, { x }) => [b.reduce('reduceProd', b.add(b.mul(x!, 0.01), 1), [0])])],
  ['moments of a whole tensor', () => over({ x: [5, 7, 80] }, (b, { x }) => b.op('moments', [x!], { axes: [0, 1, 2] }))],
  ['a batch normalization over its samples', () => over({ x: [7, 5, 80] }, (b, { x }) => {
    const [mean, m2] = b.op('moments', [x!], { axes: [0, 2] });
    return [mean!, b.mul(b.sub(x!, b.reshape(mean!, [1, 5, 1])), b.unary('rsqrt', b.add(b.mul(b.reshape(m2!, [1, 5, 1]), 1 / 560), 1e-5)))];
  })],
  ['a softmax of one long line', () => over({ x: [1, 3000] }, (b, { x }) => {
    const e = b.unary('exp', b.sub(x!, b.reduce('reduceMax', x!, [1], true)));
    return [b.div(e, b.reduce('reduceSum', e, [1], true))];
  })],
];

describe.skipIf(!gpu)(onGpu('tensors of more than all bindings hold'), { timeout: 240_000 }, () => {
  test.each(cases)('%s', async (_, make) => {
    const { graph, inputs } = make();
    const artifact = await compiled(graph, true, { gpuLimits });
    expect(artifact.manifest.gpu!.limits.maxStorageBufferBindingSize).toBeLessThanOrEqual(1024);
    const got = await runOnGpu(graph, inputs, { gpuLimits });
    for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${difference(got.get(name)!, want, 16)}`).toBe(`${name}: undefined`);
  });

  test('sum f16 in f32 until all parts are joined', async () => {
    const { graph, inputs } = over({ x: [3, 2100], y: [2100, 2] }, (b, { x, y }) => [b.one('contract', [x!, y!], { spec: 'mk,kn->mn' }), b.reduce('reduceSum', x!, [0, 1])], 'f16');
    const got = await runOnGpu(graph, inputs, { gpuLimits });
    for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${differenceInHalves(got.get(name)!, want, 6300)}`).toBe(`${name}: undefined`);
  });
});

describe.skipIf(!halfGpu)(onHalfGpu('the same with f16 stored as such'), { timeout: 240_000 }, () => {
  test.each(['a gather with ops after it', 'a transposition beside the tensor itself', 'a product with a long sum', 'moments of a whole tensor'])('%s', async (which) => {
    const { graph: wide, inputs: given } = cases.find(([name]) => name === which)![1]();
    const [graph, inputs] = [halfPrecision(wide, wgslHalfTarget), given];
    const got = await runOnGpu(graph, inputs, { gpuLimits, f16: true });
    // Outputs are f32, of what was rounded to f16 before.
    for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${difference(got.get(name)!, want, 500)}`).toBe(`${name}: undefined`);
  });
});

describe('an op that no parts keep within the limits', () => {
  test.each([
    ['cumSum', opOf('cumSum', [[1, 3000]], { axis: 1, exclusive: false, reverse: false })],
    ['argMax', opOf('argMax', [[3000]], { axis: 0, last: false })],
  ])('is refused by name: %s', async (_, make) => {
    const error = await compiled(make().graph, true, { gpuLimits }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(Unsupported);
    expect(String(error)).toMatch(/tensors take \d+ bindings of at most 1024 bytes, and shaders have 8; .*--gpu-limit maxStorageBufferBindingSize/);
  });
});
