import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Attrs, Graph } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { difference } from './wasm-harness.ts';
import { gpu, numbers, onGpu, runOnGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

/** Compares every output with the interpreter's. */
async function agrees(graph: Graph, inputs: Readonly<Record<string, Tensor>>, slack = 4): Promise<void> {
  const got = await runOnGpu(graph, inputs);
  for (const [name, want] of evaluate(graph, inputs).outputs) expect(`${name}: ${difference(got.get(name)!, want, slack)}`).toBe(`${name}: undefined`);
}

/** One op over float inputs of these shapes. */
function opOf(name: string, shapes: readonly (readonly number[])[], attrs: Attrs = {}): { graph: Graph; inputs: Record<string, Tensor> } {
  const b = new Builder(name);
  const results = b.op(name, shapes.map((shape, i) => b.input({ dtype: 'f32', shape }, `x${i}`)), attrs);
  return { graph: b.finish(results.map((value, i) => ({ name: `y${i}`, value }))), inputs: Object.fromEntries(shapes.map((s, i) => [`x${i}`, numbers(s)])) };
}
const check = (name: string, shapes: readonly (readonly number[])[], attrs: Attrs = {}, slack = 4): Promise<void> => {
  const { graph, inputs } = opOf(name, shapes, attrs);
  return agrees(graph, inputs, slack);
};

describe.skipIf(!gpu)(onGpu('products'), { timeout: 60_000 }, () => {
  // Sums are added in another order than plain loops add them.
  test.each([[64, 64, 64], [65, 63, 17], [8, 200, 40], [20, 70, 5], [129, 131, 33]])('of %i by %i with %i terms, by tiles', async (m, n, k) => {
    const [a, b] = [numbers([m, k]), numbers([k, n])];
    const want = Float32Array.from({ length: m * n }, (_, i) => {
      let sum = 0;
      for (let t = 0; t < k; t++) sum += a.data[Math.floor(i / n) * k + t]! as number * (b.data[t * n + (i % n)]! as number);
      return sum;
    });
    const { graph } = opOf('contract', [[m, k], [k, n]], { spec: 'mk,kn->mn' });
    const got = await runOnGpu(graph, { x0: a, x1: b });
    expect(difference(got.get('y0')!, { dtype: 'f32', shape: [m, n], data: want }, 8)).toBeUndefined();
  });

  test('with blocks of 8 by 8 sums', () => check('contract', [[1300, 9], [9, 1300]], { spec: 'mk,kn->mn' }));
  test('with operands in any order of axes, in batches', () => check('contract', [[3, 40, 30], [2, 3, 50, 30]], { spec: 'bmk,abnk->anbm' }, 8));
  test('of one row, whose long sums are shared', () => check('contract', [[1, 500], [500, 37]], { spec: 'mk,kn->mn' }, 8));
  test('without summed axes', () => check('contract', [[6], [7]], { spec: 'm,n->nm' }));

  test.each([
    ['plain', [2, 6, 9, 11], [16, 6, 3, 3], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 }],
    ['strided and cropped', [2, 6, 12, 11], [7, 6, 3, 2], { strides: [2, 3], pads: [-1, 2, 0, 1], dilations: [1, 2], groups: 1 }],
    ['grouped', [1, 12, 7, 7], [24, 4, 3, 3], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 3 }],
    ['depthwise', [1, 10, 8, 8], [10, 1, 5, 5], { strides: [2, 2], pads: [2, 2, 2, 2], dilations: [1, 1], groups: 10 }],
    ['of three axes', [1, 3, 5, 6, 7], [8, 3, 2, 3, 2], { strides: [1, 2, 1], pads: [0, 1, 1, 1, 1, 0], dilations: [1, 1, 2], groups: 1 }],
  ] as const)('as convolutions, %s, and their gradients', async (_, x, w, attrs) => {
    const { graph } = opOf('conv', [x, w], attrs);
    const y = graph.outputs[0]!.value.type.shape;
    await check('conv', [x, w], attrs, 8);
    await check('convWeight', [x, y], { ...attrs, kernel: w.slice(2) }, 16);
    await check('convData', [y, w], { ...attrs, size: x.slice(2) }, 8);
  });

  test('with elementwise ops after them', async () => {
    const b = new Builder('fused');
    const [x, w, bias, skip] = [b.input({ dtype: 'f32', shape: [2, 8, 10, 10] }, 'x'), b.input({ dtype: 'f32', shape: [20, 8, 3, 3] }, 'w'), b.input({ dtype: 'f32', shape: [20, 1, 1] }, 'bias'), b.input({ dtype: 'f32', shape: [2, 20, 10, 10] }, 'skip')];
    const y = b.unary('relu', b.add(b.add(b.one('conv', [x, w], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 }), bias), skip));
    await agrees(b.finish([{ name: 'y', value: y }]), { x: numbers([2, 8, 10, 10]), w: numbers([20, 8, 3, 3]), bias: numbers([20, 1, 1]), skip: numbers([2, 20, 10, 10]) }, 8);
  });
});

describe.skipIf(!gpu)(onGpu('rows'), { timeout: 60_000 }, () => {
  // One invocation a row, a workgroup of 64, one of 256; along the last axis and others.
  test.each([[[5, 7], [1]], [[70, 130], [1]], [[3, 5000], [1]], [[130, 70], [0]], [[4, 6, 50, 3], [0, 2]], [[8200, 34], [1]]] as const)('of %j along %j reduce to sums, extremes and moments', async (shape, axes) => {
    for (const name of ['reduceSum', 'reduceMax', 'reduceMin', 'moments']) await check(name, [shape], { axes }, 16);
  });

  test('of a softmax and of a norm are one kernel', async () => {
    const b = new Builder('rows');
    const x = b.input({ dtype: 'f32', shape: [6, 200] }, 'x');
    const e = b.unary('exp', b.sub(x, b.reduce('reduceMax', x, [1], true)));
    const [mean, m2] = b.op('moments', [x], { axes: [1] });
    const norm = b.mul(b.sub(x, b.reshape(mean!, [6, 1])), b.unary('rsqrt', b.add(b.mul(b.reshape(m2!, [6, 1]), 1 / 200), 1e-5)));
    await agrees(b.finish([{ name: 'softmax', value: b.div(e, b.reduce('reduceSum', e, [1], true)) }, { name: 'norm', value: norm }]), { x: numbers([6, 200]) }, 8);
  });

  test('more than one line of workgroups holds', async () => {
    const [rows, length] = [131200, 33];
    const x: Tensor = { dtype: 'f32', shape: [rows, length], data: Float32Array.from({ length: rows * length }, (_, i) => (i * 31) % 17) };
    const { graph } = opOf('reduceSum', [[rows, length]], { axes: [1] });
    const got = (await runOnGpu(graph, { x0: x })).get('y0')!.data as Float32Array;
    for (let i = 0; i < rows; i++) {
      let sum = 0;
      for (let k = 0; k < length; k++) sum += x.data[i * length + k]! as number;
      if (got[i] !== sum) throw new Error(`row ${i} is ${got[i]}, expected ${sum}`);
    }
  });

  test('hold NaN and infinities', async () => {
    const x: Tensor = { dtype: 'f32', shape: [3, 100], data: numbers([3, 100]).data };
    x.data[20] = NaN;
    x.data[150] = -Infinity;
    x.data[250] = Infinity;
    for (const name of ['reduceMax', 'reduceMin', 'reduceSum']) await agrees(opOf(name, [[3, 100]], { axes: [1] }).graph, { x0: x }, 8);
  });
});

describe.skipIf(!gpu)(onGpu('other families'), { timeout: 60_000 }, () => {
  const elementwise = ['exp', 'expm1', 'sin', 'cos', 'tan', 'asin', 'acos', 'atan', 'sinh', 'cosh', 'tanh', 'asinh', 'erf', 'sigmoid', 'floor', 'ceil', 'round', 'trunc', 'relu', 'abs', 'neg', 'sign', 'recip'];
  test.each(elementwise)('%s', (name) => check(name, [[3, 333]], {}, 8));

  test.each(['exp', 'log', 'log1p', 'tanh', 'erf', 'sigmoid', 'sqrt', 'rsqrt', 'atan', 'sinh', 'asinh', 'relu'])('%s of what is far out, zero and not finite', async (name) => {
    const data = Float32Array.of(0, -0, 1, -1, 1e-4, -1e-4, 12, -12, 80, -80, 1e20, -1e20, Infinity, -Infinity, NaN);
    const { graph } = opOf(name, [[15]]);
    const got = (await runOnGpu(graph, { x0: { dtype: 'f32', shape: [15], data } })).get('y0')!.data as Float32Array;
    const want = evaluate(graph, { x0: { dtype: 'f32', shape: [15], data } }).outputs.get('y0')!.data as Float32Array;
    want.forEach((y, i) => {
      if (Number.isFinite(y) && Number.isFinite(got[i])) expect(Math.abs(got[i]! - y), `${name}(${data[i]}) is ${got[i]}`).toBeLessThanOrEqual(1e-7 + 2e-5 * Math.abs(y));
      else expect(got[i], `${name}(${data[i]})`).toBe(y);
    });
  });

  test('sorting, with ties and NaN', async () => {
    const x: Tensor = { dtype: 'f32', shape: [4, 9], data: Float32Array.from({ length: 36 }, (_, i) => (i % 11 === 3 ? NaN : (i * 7) % 5)) };
    for (const largest of [true, false]) await agrees(opOf('topK', [[4, 9]], { axis: 1, k: 6, largest, sorted: true }).graph, { x0: x });
  });

  test('running sums and products', async () => {
    for (const exclusive of [true, false]) for (const reverse of [true, false]) for (const name of ['cumSum', 'cumProd']) await check(name, [[3, 8, 5]], { axis: 1, exclusive, reverse }, 8);
  });

  test('pools and their gradients', async () => {
    const pool = { kernel: [3, 2], strides: [2, 1], pads: [1, 0, 1, 1], dilations: [1, 2] };
    const { graph } = opOf('sumPool', [[2, 3, 9, 8]], pool);
    await check('sumPool', [[2, 3, 9, 8]], pool);
    await check('maxPool', [[2, 3, 9, 8]], pool);
    await check('sumPoolGrad', [graph.outputs[0]!.value.type.shape], { ...pool, size: [9, 8] });
  });

  test('random numbers are those of the counter', async () => {
    for (const name of ['randomUniform', 'randomNormal']) {
      const b = new Builder(name);
      const y = b.one(name, [b.input({ dtype: 'i64', shape: [] }, 'seed')], { shape: [3, 70], dtype: 'f32', stream: 5 });
      for (const seed of [7n, -3n]) await agrees(b.finish([{ name: 'y', value: y }]), { seed: { dtype: 'i64', shape: [], data: BigInt64Array.of(seed) } }, 8);
    }
  });

  test('small floats are rounded after every op, integers wrap', async () => {
    for (const dtype of ['f16', 'bf16'] as const) {
      const b = new Builder(dtype);
      const x = b.cast(b.input({ dtype: 'f32', shape: [500] }, 'x'), dtype);
      await agrees(b.finish([{ name: 'y', value: b.cast(b.mul(b.add(x, 0.3), x), 'f32') }]), { x: numbers([500]) }, 1e-3);
    }
    const b = new Builder('i8');
    const x = b.input({ dtype: 'i8', shape: [256] }, 'x');
    await agrees(b.finish([{ name: 'y', value: b.mul(b.add(x, 100), 3) }]), { x: { dtype: 'i8', shape: [256], data: Int8Array.from({ length: 256 }, (_, i) => i - 128) } });
  });

  test('loops of known length', async () => {
    const body = new Builder('body');
    const index = body.input({ dtype: 'i64', shape: [] });
    const state = body.input({ dtype: 'f32', shape: [3] });
    const x = body.input({ dtype: 'f32', shape: [3] });
    const next = body.add(body.mul(state, 0.5), body.add(x, body.cast(index, 'f32')));
    const inner = body.finish([{ name: 'go', value: body.scalar(1, 'bool') }, { name: 's', value: next }, { name: 'row', value: body.neg(next) }]);
    const b = new Builder('loop');
    const [init, given] = [b.input({ dtype: 'f32', shape: [3] }, 'init'), b.input({ dtype: 'f32', shape: [3] }, 'x')];
    const [last, rows] = b.op('loop', [b.scalar(6n, 'i64'), b.scalar(1, 'bool'), init, given], { trips: 6, carried: 1, scans: 1 }, [inner]);
    await agrees(b.finish([{ name: 'last', value: last! }, { name: 'rows', value: rows! }]), { init: numbers([3]), x: numbers([3]) });
  });

  test('more operands than a shader binds', async () => {
    const b = new Builder('many');
    const names = Array.from({ length: 11 }, (_, i) => `x${i}`);
    const y = names.map((name) => b.input({ dtype: 'f32', shape: [50] }, name)).reduce((s, x) => b.add(b.mul(s, 0.5), x));
    await agrees(b.finish([{ name: 'y', value: y }]), Object.fromEntries(names.map((n) => [n, numbers([50])])));
  });
});
