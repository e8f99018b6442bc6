/** Loss scaling and mixed precision: what a factor leaves as it is, when an automatic one changes, what f16 storage keeps and loses. */
import { describe, expect, it } from 'vitest';
import { compile } from '../cli/driver/compile.ts';
import { filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { parseGraph } from '../ir/parse.ts';
import type { TrainOptions } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { loadTrainer } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { linear, numbers, spread, tensor, train, type Trained } from './train-harness.ts';

const rate = 2 ** -4;
const w0 = [0.5, -2, 3];
/** Steps on Σ w · x, whose gradient is x. */
const steps = (xs: readonly (readonly number[])[], options: Partial<TrainOptions>): Trained => train(linear([3], w0), { optimizer: { kind: 'sgd', momentum: 0.5 }, ...options }, xs.length, rate, (k) => ({ x: tensor([3], xs[k]!) }));
const history = (t: Trained, name: string): (readonly number[])[] => t.states.map((s) => s.get(name)!);
const g = [0.3, -0.7, 1.1];
/** Finite as it is, infinite times 8: so is the gradient of a scaled loss. */
const poison = [1e308, 0, 0];

/** A perceptron of two layers in f32, and the sum of its squared outputs times a factor, if one is given. */
const layers = (factor?: number): Graph => parseGraph(`graph @layers(%x: f32[8,4]) state(%w1: f32[4,6] = "w1", %b1: f32[6] = "b1", %w2: f32[6,2] = "w2") {
  %h = contract %x, %w1 {spec="mk,kn->mn"} : f32[8,6]
  %a = add %h, %b1 : f32[8,6]
  %r = tanh %a : f32[8,6]
  %y = contract %r, %w2 {spec="mk,kn->mn"} : f32[8,2]
${factor === undefined ? '  return "y" = %y }' : `  %q = mul %y, %y : f32[8,2]
  %s = reduceSum %q {axes=[0,1]} : f32[]
  %k = constant {value=f32[](${factor})} : f32[]
  %l = mul %s, %k : f32[]
  return "y" = %y, "tiny" = %l }`}`, new Map(([['w1', [4, 6]], ['b1', [6]], ['w2', [6, 2]]] as const).map(([name, shape]) => [name, { ...tensor(shape, spread(shape.reduce((a, b) => a * b, 1), 0.7, name.length), 'f32') }])));
const batch = { x: tensor([8, 4], spread(32, 1, 3), 'f32'), y: tensor([8, 2], spread(16, 0.5, 7), 'f32') };

function gradients(options: Partial<TrainOptions>, factor?: number): Map<string, number[]> {
  const { graph } = trainingStep(layers(factor), [], { loss: { kind: 'mse' }, optimizer: { kind: 'sgd' }, gradients: true, ...options }, testTarget, { verify: true });
  const { outputs } = evaluate(graph, { ...batch, lr: filled('f32', [], rate) });
  return new Map([...outputs].filter(([name]) => name.endsWith('.grad')).map(([name, t]) => [name, numbers(t)]));
}

function expectNear(got: ReadonlyMap<string, readonly number[]>, want: ReadonlyMap<string, readonly number[]>, relative: number): void {
  expect([...got.keys()]).toEqual([...want.keys()]);
  for (const [name, list] of want) {
    const most = Math.max(...list.map(Math.abs));
    expect(most).toBeGreaterThan(0);
    list.forEach((x, i) => expect(Math.abs(got.get(name)![i]! - x) / most, `${name}[${i}]`).toBeLessThan(relative));
  }
}

describe('a static loss scale', () => {
  it.each([1024, 1000, 2 ** -10])('of %d leaves loss, gradients and updates as they are', (factor) => {
    const [plain, scaled] = [steps([g, g, g], {}), steps([g, g, g], { lossScale: { kind: 'static', factor } })];
    for (const [k, s] of plain.states.entries()) for (const [name, want] of s) scaled.states[k]!.get(name)!.forEach((x, i) => expect(x).toBeCloseTo(want[i]!, 12));
    expectNear(gradients({ lossScale: { kind: 'static', factor } }), gradients({}), 1e-6);
    expectNear(gradients({ lossScale: { kind: 'static', factor }, microBatch: 2 }), gradients({}), 1e-6);
  });

  it('has to be a positive number', () => expect(() => gradients({ lossScale: { kind: 'static', factor: -2 } })).toThrow(/loss scale is -2, expected a positive number/));
});

describe('an automatic loss scale', () => {
  const auto = { lossScale: { kind: 'auto', initial: 4, every: 2 } } as const;
  it('doubles after so many good steps, halves at a gradient that overflows, and skips that step', () => {
    const t = steps([g, g, poison, g, g], auto);
    expect(history(t, 'train.lossScale')).toEqual([[4], [8], [4], [4], [8]]);
    expect(history(t, 'train.goodSteps')).toEqual([[1], [0], [0], [1], [0]]);
    for (const name of ['w', 'w.momentum', 'train.step'].filter((n) => t.states[0]!.has(n))) expect(t.states[2]!.get(name)).toEqual(t.states[1]!.get(name));
    expect(history(t, 'train.step')).toEqual([[1], [2], [2], [3], [4]]);
    // The steps that count are those of training without the poisoned one.
    const plain = steps([g, g, g, g], {});
    t.states.at(-1)!.get('w')!.forEach((x, i) => expect(x).toBeCloseTo(plain.states.at(-1)!.get('w')![i]!, 12));
    expect(t.outputs[2]!.get('loss')![0]).toBeLessThan(Infinity);
  });

  it('halves where the loss is not a number', () => {
    const t = steps([g, [NaN, 0, 0]], auto);
    expect(history(t, 'train.lossScale')).toEqual([[4], [2]]);
    expect(t.states[1]!.get('w')).toEqual(t.states[0]!.get('w'));
  });

  it('stays between 1 and 2^24', () => {
    expect(history(steps([poison, [NaN, 0, 0], [NaN, 0, 0], [NaN, 0, 0]], auto), 'train.lossScale')).toEqual([[2], [1], [1], [1]]);
    expect(history(steps([g, g], { lossScale: { kind: 'auto', initial: 2 ** 23, every: 1 } }), 'train.lossScale')).toEqual([[2 ** 24], [2 ** 24]]);
  });

  it('judges the second gradients of SAM', () => {
    const t = steps([g, poison], { ...auto, optimizer: { kind: 'sgd', sam: 0.1 } });
    expect(history(t, 'train.lossScale')).toEqual([[4], [2]]);
    expect(t.states[1]!.get('w')).toEqual(t.states[0]!.get('w'));
  });
});

describe('mixed precision', () => {
  it('stores what lies between in f16, parameters and moments in f32', () => {
    const { graph } = trainingStep(layers(), [], { loss: { kind: 'mse' }, optimizer: { kind: 'adam' }, precision: 'mixed' }, testTarget, { verify: true });
    expect(new Set(graph.state.filter((s) => s.name !== 'train.step').map((s) => s.value.type.dtype))).toEqual(new Set(['f32']));
    const products = graph.ops.filter((op) => op.name === 'contract');
    expect(products.length).toBeGreaterThanOrEqual(5);
    expect(new Set(products.map((op) => op.results[0]!.type.dtype))).toEqual(new Set(['f16']));
  });

  it('gives the gradients of f32 but for the rounding of f16', () => expectNear(gradients({ precision: 'mixed' }), gradients({}), 8 * 2 ** -11));

  it('loses gradients below what f16 holds, unless the loss is scaled', () => {
    // Cotangents of the outputs are about 2^-26, the smallest f16 is 2^-24.
    const tiny = { loss: { kind: 'output', name: 'tiny' } } as const;
    const factor = 2 ** -27;
    const lost = gradients({ ...tiny, precision: 'mixed' }, factor);
    expect(lost.get('w1.grad')!.every((x) => x === 0)).toBe(true);
    expectNear(gradients({ ...tiny, precision: 'mixed', lossScale: { kind: 'static', factor: 2 ** 27 } }, factor), gradients(tiny, factor), 8 * 2 ** -11);
  });
});

describe('as WebAssembly', () => {
  const model = encodeModel({
    name: 'tiny', nodes: [node('MatMul', ['x', 'w'], ['h']), node('Relu', ['h'], ['a']), node('MatMul', ['a', 'v'], ['z'])],
    inputs: [value('x', 'f32', [4, 3])], outputs: [value('z', 'f32', [4, 2])],
    initializers: [floats('w', [3, 5], spread(15, 0.5)), floats('v', [5, 2], spread(10, 0.5, 2))],
  });
  const x = Float32Array.from(spread(12)), y = Float32Array.from(spread(8, 1, 5));
  const run = async (options: Partial<TrainOptions>, ys: readonly Float32Array[]): Promise<{ losses: number[]; steps: number; state: Record<string, number[]> }> => {
    await using t = await loadTrainer(await compile(model, { features: ['simd'], train: { loss: { kind: 'mse' }, optimizer: { kind: 'sgd', momentum: 0.9 }, ...options } }), { threads: 1 });
    const losses: number[] = [];
    for (const target of ys) losses.push((await t.trainStep({ x, y: target, lr: 0.1 })).loss);
    const { state } = await t.checkpoint();
    return { losses, steps: t.step, state: Object.fromEntries([...state].map(([name, s]) => [name, numbers(s)])) };
  };

  it('a scale leaves the losses of a training as they are', async () => {
    const ys = [y, y, y, y];
    const plain = await run({}, ys);
    for (const lossScale of [{ kind: 'static', factor: 1024 }, { kind: 'auto' }] as const) {
      const scaled = await run({ lossScale }, ys);
      scaled.losses.forEach((l, i) => expect(l).toBeCloseTo(plain.losses[i]!, 6));
      for (const name of ['w', 'v']) scaled.state[name]!.forEach((v, i) => expect(v).toBeCloseTo(plain.state[name]![i]!, 6));
    }
  });

  it('an automatic scale skips a step whose gradients overflow', async () => {
    // Targets of 1e18 have a loss of about 1e36 and gradients of about 1e18: finite, but not times 2^100.
    const far = y.map((v) => 1e18 * v);
    const [plain, t] = [await run({}, [y, y]), await run({ lossScale: { kind: 'auto', initial: 2 ** 100 } }, [y, far, y])];
    expect(t.state['train.lossScale']).toEqual([2 ** 99]);
    expect(t.state['train.goodSteps']).toEqual([1]);
    expect(t.state['train.step']).toEqual([2]);
    expect(t.steps).toBe(2);
    for (const name of ['w', 'v', 'w.momentum']) t.state[name]!.forEach((v, i) => expect(v).toBeCloseTo(plain.state[name]![i]!, 6));
  });

  it('mixed precision trains as f32 does, to the rounding of f16', async () => {
    const ys = [y, y, y, y];
    const [plain, mixed] = [await run({}, ys), await run({ precision: 'mixed', lossScale: { kind: 'auto' } }, ys)];
    mixed.losses.forEach((l, i) => expect(Math.abs(l / plain.losses[i]! - 1)).toBeLessThan(8 * 2 ** -11));
    expect(mixed.losses[3]).toBeLessThan(mixed.losses[0]!);
  });
});
