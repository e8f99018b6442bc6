/** What f16 shaders compute, op by op, on an adapter with shader-f16, against the interpreter, which rounds where they round. */
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Attrs, Graph, Value } from '../ir/graph.ts';
import { decodeFloat, encodeFloat, toRef } from '../ir/number.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { load } from '../runtime/index.ts';
import type { AxesCase } from './axes-harness.ts';
import { contractionAxesCases } from './axes-cases/contraction.ts';
import { indexingAxesCases } from './axes-cases/indexing.ts';
import { movementAxesCases } from './axes-cases/movement.ts';
import { reductionAxesCases } from './axes-cases/reduction.ts';
import { sequenceAxesCases } from './axes-cases/sequence.ts';
import { windowAxesCases } from './axes-cases/window.ts';
import { differenceInHalves } from './half-harness.ts';
import { random } from './wasm-harness.ts';
import { compiled, gpu, halfGpu, onHalfGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

type Inputs = Readonly<Record<string, Tensor>>;

/** Runs a graph with f16 stored as such and compares all outputs. `terms`: most numbers that an element adds up. */
async function agrees(graph: Graph, inputs: Inputs, terms = 0, gpuLimits?: NonNullable<Parameters<typeof compiled>[2]>['gpuLimits']): Promise<void> {
  const artifact = await compiled(graph, true, { f16: true, ...(gpuLimits && { gpuLimits }) });
  expect(Object.values(artifact.shaders!).some((s) => s.startsWith('// ') && s.includes('enable f16;'))).toBe(true);
  await using session = await load(artifact, { gpu: gpu! });
  const got = await session.run(inputs);
  for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${differenceInHalves(got[name]!, want, terms)}`).toBe(`${name}: undefined`);
}

/** All 65536 numbers that f16 has, infinities and NaN among them. */
const all: Tensor = { dtype: 'f16', shape: [65536], data: Uint16Array.from({ length: 65536 }, (_, i) => i) };
/** Numbers that bring out the edges: zeroes, the smallest and largest normal numbers, halves of the last place, infinities, NaN; an odd number of them. */
const edges: Tensor = halves([0, -0, 1, -1, 0.5, 2, -3, 1.0009765625, 0.99951171875, 2047, 2048, -2049, 2 ** -14, -(2 ** -14), 65504, -65504, 65472, 256, 255.875, 0.333251953125, 1e-3, Infinity, -Infinity, NaN, 7.5, -7.5, 10, 0.1, -0.7, 100, 12.25, -4, 3.140625]);

function halves(xs: readonly number[], shape: readonly number[] = [xs.length]): Tensor {
  return { dtype: 'f16', shape, data: Uint16Array.from(xs, (x) => encodeFloat('f16', x)) };
}
const half = (shape: readonly number[], salt: number): Tensor => random(shape, salt, 'f16');

/** A graph of inputs and of what `make` gives of them, by name. */
function graphOf(name: string, inputs: Inputs, make: (b: Builder, x: Record<string, Value>) => Readonly<Record<string, Value>>): Graph {
  const b = new Builder(name);
  const values = Object.fromEntries(Object.entries(inputs).map(([n, t]) => [n, b.input({ dtype: t.dtype, shape: t.shape }, n)]));
  return b.finish(Object.entries(make(b, values)).map(([n, value]) => ({ name: n, value })));
}

describe.skipIf(!halfGpu)(onHalfGpu('elementwise ops in f16'), { timeout: 120_000 }, () => {
  test.each([
    [['neg', 'abs', 'sign', 'relu', 'floor', 'ceil', 'round', 'trunc', 'isNaN', 'isInf']],
    [['exp', 'expm1', 'log', 'log1p', 'sqrt', 'rsqrt', 'recip', 'sigmoid', 'erf']],
    [['asin', 'acos', 'atan', 'sinh', 'cosh', 'tanh', 'asinh', 'acosh', 'atanh']],
  ])('of one operand give what the interpreter gives, for all numbers: %j', (names) =>
    agrees(graphOf('unary', { x: all }, (b, { x }) => Object.fromEntries(names.map((n) => [n, b.one(n, [x!])]))), { x: all }));

  test('of angles do, where these are not so large that f32 has no digits left', async () => {
    const x: Tensor = { ...all, data: Uint16Array.from({ length: 65536 }, (_, bits) => (Math.abs(decodeFloat('f16', bits)) <= 512 ? bits : 0)) };
    await agrees(graphOf('angles', { x }, (b, { x }) => ({ sin: b.one('sin', [x!]), cos: b.one('cos', [x!]), tan: b.one('tan', [x!]) })), { x });
  });

  test('of two operands do, for pairs of all edges', () => {
    const [rows, columns] = [{ ...edges, shape: [edges.shape[0]!, 1] }, edges];
    const names = ['add', 'sub', 'mul', 'div', 'min', 'max', 'eq', 'ne', 'lt', 'le', 'gt', 'ge', 'atan2'];
    return agrees(graphOf('binary', { rows, columns }, (b, { rows, columns }) => Object.fromEntries(names.map((n) => [n, b.one(n, [rows!, columns!])]))), { rows, columns });
  });

  test('that divide with a rest, raise to powers, choose and clamp do', () => {
    const x = half([7, 33], 1);
    const y = { ...half([33], 2), data: Uint16Array.from(half([33], 2).data as Uint16Array, (bits) => ((bits & 0x7fff) < 0x2000 ? 0x3c00 : bits)) };
    return agrees(graphOf('more', { x, y }, (b, { x, y }) => ({
      mod: b.one('mod', [x!, y!]), fmod: b.one('fmod', [x!, y!]), pow: b.one('pow', [b.one('abs', [x!]), y!]),
      select: b.one('select', [b.one('gt', [x!, y!]), x!, y!]), clamp: b.one('clamp', [x!, b.one('neg', [b.one('abs', [y!])]), b.one('abs', [y!])]),
    })), { x, y });
  });

  test('of a fused chain keep at least the digits of f16 between them', async () => {
    const x = halves([2048, 1, 1, 3, 0.1]);
    const graph = graphOf('chain', { x }, (b, { x }) => ({ y: b.sub(b.add(x!, 1.5), x!), z: b.mul(b.mul(x!, 300), 300) }));
    await using session = await load(await compiled(graph, true, { f16: true }), { gpu: gpu! });
    const { y, z } = await session.run({ x });
    // Of 2049.5 f16 has 2050 left; drivers that compute f16 in f32 (Mesa's) keep 2049.5.
    expect([1.5, 2]).toContain(toRef(y!).data[0]);
    expect([...toRef(z!).data.slice(0, 4)]).toEqual([Infinity, Infinity, Infinity, Infinity]);
  });

  test('cast from and to every type', () => {
    const [f, i, u, flags] = [random([41], 3, 'f32'), random([41], 4, 'i32'), { ...random([41], 5, 'u8'), data: Uint8Array.from({ length: 41 }, (_, k) => 6 * k) }, { dtype: 'bool' as const, shape: [41], data: Uint8Array.from({ length: 41 }, (_, k) => k % 2) }];
    return agrees(graphOf('casts', { f, i, u, flags, edges }, (b, { f, i, u, flags, edges: x }) => ({
      f: b.cast(f!, 'f16'), i: b.cast(b.mul(i!, 1111), 'f16'), u: b.cast(u!, 'f16'), flags: b.cast(flags!, 'f16'),
      toF: b.cast(x!, 'f32'), toI: b.cast(x!, 'i32'), toI8: b.one('cast', [x!], { to: 'i8', saturate: true }), toBf: b.cast(x!, 'bf16'), toBool: b.cast(x!, 'bool'), bits: b.one('bitcast', [x!], { to: 'u16' }),
      back: b.one('bitcast', [b.one('bitcast', [x!], { to: 'i16' })], { to: 'f16' }),
    })), { f, i, u, flags, edges });
  });

  test('round f32 half to even', () => {
    const x: Tensor = { dtype: 'f32', shape: [9], data: Float32Array.of(1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20, 2049, 2051, -2049, 65503, 2 ** -14 * (1 + 2 ** -11), 1e-3) };
    return agrees(graphOf('rounding', { x }, (b, { x }) => ({ y: b.cast(x!, 'f16') })), { x });
  });
});

/** The float operands of a case in f16; integers and flags as they are. */
const asHalves = (t: Tensor): Tensor => (t.dtype === 'f64' || t.dtype === 'f32' ? halves(Array.from(t.data as Float64Array, Number), t.shape) : t);
/** Types of random numbers in f16 where a case names a wider one. */
const inHalf = (attrs: Attrs): Attrs => (typeof attrs['dtype'] === 'string' && attrs['dtype'].startsWith('f') ? { ...attrs, dtype: 'f16' } : attrs);

const families: readonly (readonly [string, readonly AxesCase[]])[] = [
  ['moves', movementAxesCases], ['reductions', reductionAxesCases], ['products and convolutions', contractionAxesCases], ['pools and resampling', windowAxesCases], ['gathers and scatters', indexingAxesCases], ['scans, sorts and random numbers', sequenceAxesCases],
];
const each = 6;

describe.skipIf(!halfGpu)(onHalfGpu('families of ops in f16'), { timeout: 240_000 }, () => {
  const cases = families.flatMap(([family, list]) => list.map((c) => [`${family}: ${c.op}${c.note === undefined ? '' : `, ${c.note}`}`, c] as const));
  test.each(cases)('%s', async (_, c) => {
    const instances = fc.sample(c.instance, { numRuns: each, seed: 3 });
    const operands = instances.map((i) => i.operands.map(asHalves));
    const inputs = Object.fromEntries(operands.flatMap((list, k) => list.map((t, i) => [`x${k}_${i}`, t])));
    const graph = graphOf(c.op, inputs, (b, x) => Object.fromEntries(instances.flatMap(({ attrs = {} }, k) =>
      b.op(c.op, operands[k]!.map((_, i) => x[`x${k}_${i}`]!), inHalf(attrs)).map((r, j) => [`y${k}_${j}`, r]))));
    if (!graph.outputs.some((o) => o.value.type.dtype === 'f16') && !Object.values(inputs).some((t) => t.dtype === 'f16')) return;
    await agrees(graph, inputs, Math.max(...operands.flat().map((t) => sizeOf(t.shape))));
  });
});

describe.skipIf(!halfGpu)(onHalfGpu('larger tensors in f16'), { timeout: 240_000 }, () => {
  const square = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 };
  /** Each form of a product: tiles of 4 by 4 and 8 by 8 sums whose panels are f16 and end within them, shared sums, columns, depthwise convolutions, both gradients. */
  const products: readonly (readonly [string, readonly (readonly number[])[], Attrs, number])[] = [
    ['contract', [[65, 63], [63, 17]], { spec: 'mk,kn->mn' }, 63], ['contract', [[64, 64], [64, 64]], { spec: 'mk,kn->mn' }, 64], ['contract', [[1300, 9], [9, 1300]], { spec: 'mk,kn->mn' }, 9],
    ['contract', [[7, 31], [9, 31]], { spec: 'mk,nk->mn' }, 31], ['contract', [[3, 40, 29], [2, 3, 51, 29]], { spec: 'bmk,abnk->anbm' }, 29], ['contract', [[1, 501], [501, 37]], { spec: 'mk,kn->mn' }, 501],
    ['conv', [[2, 5, 9, 11], [13, 5, 3, 3]], square, 45], ['conv', [[1, 9, 8, 7], [9, 1, 5, 5]], { strides: [2, 1], pads: [2, 2, 2, 2], dilations: [1, 1], groups: 9 }, 25],
    ['conv', [[1, 12, 7, 7], [24, 4, 3, 3]], { ...square, groups: 3 }, 36], ['convWeight', [[2, 6, 9, 11], [2, 15, 9, 11]], { ...square, kernel: [3, 3] }, 198], ['convData', [[2, 16, 9, 11], [16, 5, 3, 3]], { ...square, size: [9, 11] }, 144],
  ];
  test.each(products)('%s of %j %j', (op, shapes, attrs, terms) => {
    const inputs = Object.fromEntries(shapes.map((s, i) => [`x${i}`, half(s, i + 1)]));
    return agrees(graphOf(op, inputs, (b, x) => ({ y: b.one(op, shapes.map((_, i) => x[`x${i}`]!), attrs) })), inputs, terms);
  });

  test('products that leave the range of f16 are infinite, and sums that leave and come back are not, as they are f32', async () => {
    const [a, c] = [halves([300, 300, 300, 300, -300, 300, 1, 0], [2, 4]), halves([300, 300, 300, -299], [4, 1])];
    const graph = graphOf('overflow', { a, c }, (b, x) => ({ y: b.one('contract', [x['a']!, x['c']!], { spec: 'mk,kn->mn' }) }));
    await agrees(graph, { a, c }, 4);
    expect([...toRef(evaluate(graph, { a, c }).outputs.get('y')!).data]).toEqual([Infinity, 300]);
  });

  test.each([[[5, 7], [1]], [[70, 131], [1]], [[3, 5001], [1]], [[131, 70], [0]], [[4, 6, 51, 3], [0, 2]], [[8201, 33], [1]]] as const)('rows of %j along %j', (shape, axes) => {
    const x = half(shape, 6);
    const terms = sizeOf(axes.map((a) => shape[a]!));
    return agrees(graphOf('rows', { x }, (b, { x }) => ({ sum: b.reduce('reduceSum', x!, [...axes]), most: b.reduce('reduceMax', x!, [...axes]), least: b.reduce('reduceMin', x!, [...axes]), wide: b.reduce('reduceSum', b.cast(x!, 'f32'), [...axes]), mean: b.op('moments', [x!], { axes })[0]! })), { x }, terms);
  });

  test('a softmax and a norm of odd rows, reduced in f32', () => {
    const x = half([6, 201], 8);
    return agrees(graphOf('softmax', { x }, (b, { x }) => {
      const wide = b.cast(x!, 'f32');
      const e = b.unary('exp', b.sub(wide, b.reduce('reduceMax', wide, [1], true)));
      const [mean, m2] = b.op('moments', [wide], { axes: [1] });
      const norm = b.mul(b.sub(wide, b.reshape(mean!, [6, 1])), b.unary('rsqrt', b.add(b.mul(b.reshape(m2!, [6, 1]), 1 / 201), 1e-5)));
      return { softmax: b.cast(b.div(e, b.reduce('reduceSum', e, [1], true)), 'f16'), norm: b.cast(norm, 'f16') };
    }), { x }, 201);
  });

  test.each([[[3, 40]], [[3, 501]], [[2, 5000]]])('sorts and running sums of lines of %j', (shape) => {
    const x = half(shape, 9);
    return agrees(graphOf('lines', { x }, (b, { x }) => {
      const [values, places] = b.op('topK', [x!], { axis: 1, k: 17, largest: true, sorted: true });
      return { values: values!, places: places!, sums: b.one('cumSum', [b.mul(x!, 0.0625)], { axis: 1, exclusive: false, reverse: true }) };
    }), { x }, shape[1]);
  });

  test('tensors of odd lengths beside each other, bound in words that they share with others, in pages and in slices', async () => {
    const inputs = { x: half([61, 83], 10), w: half([24, 1, 3, 3], 11), image: half([1, 12, 19, 19], 12), at: { dtype: 'i32' as const, shape: [7], data: Int32Array.of(0, 60, 31, -1, 30, 15, 44) } };
    const graph = graphOf('odd', inputs, (b, { x, w, image, at }) => ({
      one: b.one('slice', [x!], { starts: [0, 0], sizes: [1, 1], steps: [1, 1] }), three: b.one('slice', [x!], { starts: [1, 5], sizes: [1, 3], steps: [1, 1] }),
      map: b.unary('relu', b.sub(b.mul(x!, x!), b.one('slice', [x!], { starts: [60, 82], sizes: [61, 83], steps: [-1, -1] }))), turned: b.transpose(b.add(x!, x!), [1, 0]),
      sums: b.reduce('reduceSum', x!, [1]), most: b.reduce('reduceMax', x!, [0]), product: b.one('contract', [x!, x!], { spec: 'mk,nk->mn' }), flags: b.one('gt', [x!, b.one('neg', [x!])]),
      depthwise: b.one('conv', [image!, w!], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 12 }), gathered: b.one('gather', [x!, at!], { axis: 0 }), joined: b.one('concat', [x!, b.unary('neg', x!)], { axis: 1 }),
    }));
    await agrees(graph, inputs, 83);
    await agrees(graph, inputs, 83, { maxStorageBufferBindingSize: 8192, maxBufferSize: 16384 });
    await agrees(graph, inputs, 83, { maxStorageBuffersPerShaderStage: 2 });
    const alone = graphOf('shared words', { x: inputs.x }, (b, { x }) => ({ y: b.add(x!, x!), z: b.cast(x!, 'f32') }));
    await agrees(alone, { x: inputs.x }, 0, { maxStorageBuffersPerShaderStage: 1 });
  });
});
