/** Small graphs to train on the interpreter. */
import { expect } from 'vitest';
import { Builder, filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { dtypes, type DType, type Tensor } from '../ir/type.ts';
import type { TrainOptions } from '../passes/train/options.ts';
import { trainingStep, type TrainingStep } from '../passes/train/pipeline.ts';
import { testTarget } from './ir/target.ts';

/** A tensor of numbers in a dtype that stores them as they are. */
export function tensor(shape: readonly number[], xs: readonly number[], dtype: DType = 'f64'): Tensor {
  const data = new dtypes[dtype].array(xs.length);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) xs.forEach((x, i) => (data[i] = BigInt(x)));
  else data.set(xs);
  return { dtype, shape: [...shape], data };
}

/** A graph with one output, in f64, so that results can be compared to twelve digits. */
export function model(make: (b: Builder, weight: (name: string, shape: readonly number[], xs: readonly number[]) => Value, input: (name: string, shape: readonly number[], dtype?: DType) => Value) => Value, name = 'out'): Graph {
  const b = new Builder('model');
  const value = make(
    b,
    (n, shape, xs) => b.state(n, { dtype: 'f64', shape: [...shape] }, tensor(shape, xs)),
    (n, shape, dtype = 'f64') => b.input({ dtype, shape: [...shape] }, n),
  );
  return b.finish([{ name, value }]);
}

/** Σ w · x: the gradient of w is the input x. */
export const linear = (shape: readonly number[], w: readonly number[]): Graph =>
  model((b, weight, input) => b.reduce('reduceSum', b.mul(weight('w', shape, w), input('x', shape)), shape.map((_, i) => i)));

/** What a run of training steps leaves. */
export interface Trained {
  /** State by name, after each step. */
  readonly states: readonly ReadonlyMap<string, readonly number[]>[];
  readonly outputs: readonly ReadonlyMap<string, readonly number[]>[];
  readonly step: TrainingStep;
}

/** Trains a graph whose output `out` is the loss, or with the loss of the options. Inputs may differ from step to step. */
export function train(graph: Graph, options: Omit<TrainOptions, 'loss'> & { readonly loss?: TrainOptions['loss'] }, steps: number, rate: number, inputs: (k: number) => Readonly<Record<string, Tensor>>): Trained {
  const step = trainingStep(graph, [], { loss: { kind: 'output', name: 'out' }, gradients: true, ...options }, testTarget, { verify: true });
  const state = new Map(step.graph.state.map((s) => [s.value, s.init === 'zero' ? filled(s.value.type.dtype, s.value.type.shape, 0) : s.init]));
  const states: Map<string, number[]>[] = [];
  const outputs: Map<string, number[]>[] = [];
  for (let k = 0; k < steps; k++) {
    const result = evaluate(step.graph, { ...inputs(k), lr: filled('f32', [], rate) }, { state });
    for (const [value, t] of result.state) state.set(value, t);
    states.push(new Map(step.graph.state.map((s) => [s.name, numbers(state.get(s.value)!)])));
    outputs.push(new Map([...result.outputs].map(([name, t]) => [name, numbers(t)])));
  }
  return { states, outputs, step };
}

/** Checks every element of every gradient against central differences of the loss, the output `out`. */
export function checkGradients(graph: Graph, inputs: Readonly<Record<string, Tensor>>): void {
  const { outputs } = train(graph, { optimizer: { kind: 'sgd' } }, 1, 0, () => inputs);
  const loss = (state: ReadonlyMap<Value, Tensor>): number => evaluate(graph, inputs, { state }).outputs.get('out')!.data[0] as number;
  for (const { value, name, init } of graph.state) {
    if (init === 'zero') throw new Error('weights of these tests have values');
    const got = outputs[0]!.get(`${name}.grad`)!;
    const at = init.data as Float64Array;
    at.forEach((x, i) => {
      const h = 1e-5 * Math.max(1, Math.abs(x));
      const shifted = (d: number): number => loss(new Map([[value, { ...init, data: at.with(i, x + d) }]]));
      expect(got[i], `${name}[${i}]`).toBeCloseTo((shifted(h) - shifted(-h)) / (2 * h), 6);
    });
  }
}

/** n numbers between -scale and scale that follow no pattern. */
export const spread = (n: number, scale = 1, from = 1): number[] => Array.from({ length: n }, (_, i) => scale * Math.sin(from + 2.3 * i));

/** Elements as numbers. */
export const numbers = (t: Tensor): number[] => Array.from(t.data as ArrayLike<number | bigint>, Number);
