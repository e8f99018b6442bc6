/** Softmax, cross-entropy and its gradient: one pass over the rows of logits, with the numbers of the plain formula. */
import { describe, expect, it } from 'vitest';
import { emitWasm } from '../backends/wasm/module.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { Builder } from '../ir/builder.ts';
import type { Graph, Op } from '../ir/graph.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { plan } from '../passes/plan.ts';
import { runPipeline } from '../passes/pipeline.ts';
import type { LossSpec } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { randomArray, randomNumbers } from './contract-harness.ts';
import { tensor } from './train-harness.ts';
import { byName, memoryFor, runHere } from './wasm-harness.ts';

type CrossEntropy = Extract<LossSpec, { readonly kind: 'crossEntropy' }>;

/** Logits of `shape`, classes along axis 1: what goes in times a weight for each class. */
function net(shape: readonly number[]): Graph {
  const b = new Builder('net');
  const w = b.state('w', { dtype: 'f32', shape: [shape[1]!] }, tensor([shape[1]!], new Array<number>(shape[1]!).fill(1), 'f32'));
  const x = b.input({ dtype: 'f32', shape }, 'x');
  return b.finish([{ name: 'logits', value: b.mul(x, b.reshape(w, shape.map((d, i) => (i === 1 ? d : 1)))) }]);
}

const compiled = (shape: readonly number[], loss: CrossEntropy, microBatch?: number): Graph =>
  runPipeline(trainingStep(net(shape), [], { loss, optimizer: { kind: 'sgd' }, gradients: true, ...(microBatch !== undefined && { microBatch }) }, wasmTarget, { verify: true }).graph, wasmTarget, { verify: true });

/** Loss and gradient of every logit by their formulas, in float64. `target(p, c)`: the share of class c at a position, times its weight; `count`: what the sum is divided by. */
function formula(x: Tensor, target: (position: number, c: number) => number, count: number): { readonly loss: number; readonly gradient: readonly number[] } {
  const [batch, classes, ...rest] = x.shape as [number, number, ...number[]];
  const inner = sizeOf(rest);
  const gradient = new Array<number>(x.data.length).fill(0);
  let loss = 0;
  for (let n = 0; n < batch; n++) {
    for (let i = 0; i < inner; i++) {
      const at = (c: number): number => (n * classes + c) * inner + i;
      const e = Array.from({ length: classes }, (_, c) => Math.exp(Number(x.data[at(c)])));
      const sum = e.reduce((s, v) => s + v, 0);
      const shares = e.map((_, c) => target(n * inner + i, c));
      const total = shares.reduce((s, v) => s + v, 0);
      e.forEach((v, c) => {
        loss -= (shares[c]! * Math.log(v / sum)) / count;
        gradient[at(c)] = ((v / sum) * total - shares[c]!) / count;
      });
    }
  }
  return { loss, gradient };
}

const weights = [1, 2, 0.5, 3, 1.5, 0.25, 1];
const options: readonly [string, Omit<CrossEntropy, 'kind'>][] = [
  ['class indices', {}],
  ['label smoothing', { labelSmoothing: 0.1 }],
  ['class weights', { classWeights: weights }],
  ['an ignored index', { ignoreIndex: -100 }],
  ['smoothing, weights and an ignored index', { labelSmoothing: 0.2, classWeights: weights, ignoreIndex: 3 }],
  ['probabilities', { target: 'probabilities' }],
  ['probabilities, smoothing and weights', { target: 'probabilities', labelSmoothing: 0.1, classWeights: weights }],
];

describe.each(options)('cross-entropy of %s', (_, given) => {
  const loss = { kind: 'crossEntropy', ...given } as const;

  it.each([[[6, 7]], [[4, 7, 3, 5]]])('of logits %s has the loss and the gradients of the formula', (shape) => {
    const [batch, classes, ...rest] = shape as [number, number, ...number[]];
    const positions = batch * sizeOf(rest);
    const x: Tensor = { dtype: 'f32', shape, data: Float32Array.from(randomArray(sizeOf(shape), randomNumbers(5)), (v) => 4 * v) };
    const labels = Array.from({ length: positions }, (_, p) => (loss.ignoreIndex !== undefined && p % 3 === 1 ? loss.ignoreIndex : (5 * p + 2) % classes));
    const soft = Float32Array.from(randomArray(sizeOf(shape), randomNumbers(9)), Math.abs);
    const probabilities = loss.target === 'probabilities';
    const y = probabilities ? { dtype: 'f32', shape, data: soft } as const : tensor([batch, ...rest], labels, 'i64');
    const smoothing = loss.labelSmoothing ?? 0;
    const weightOf = (c: number): number => loss.classWeights?.[c] ?? 1;
    const isCounted = (p: number): boolean => probabilities || loss.ignoreIndex === undefined || labels[p] !== loss.ignoreIndex;
    const inner = sizeOf(rest);
    const share = (p: number, c: number): number => (probabilities ? soft[(Math.floor(p / inner) * classes + c) * inner + (p % inner)]! : labels[p] === c ? 1 : 0);
    const count = probabilities ? positions : labels.reduce((n, c, p) => n + (isCounted(p) ? weightOf(c) : 0), 0);
    const want = formula(x, (p, c) => (isCounted(p) ? weightOf(c) * ((1 - smoothing) * share(p, c) + smoothing / classes) : 0), count);

    const program = plan(compiled(shape, loss), wasmTarget);
    const module = emitWasm(program, 'simd');
    const { memory, cells } = memoryFor(program, module, byName(program, { x, y, lr: tensor([], [0], 'f32') }));
    runHere(module.binary, memory);
    const got = new Map(program.graph.outputs.map((o) => [o.name, cells.read(o.value)]));
    expect(got.get('loss')!.data[0]).toBeCloseTo(want.loss, 4);
    // Of the weights that stand before the logits: Σ of the logits' gradients times what goes in.
    for (let c = 0; c < classes; c++) {
      let sum = 0;
      want.gradient.forEach((g, i) => (sum += Math.floor(i / inner) % classes === c ? g * Number(x.data[i]) : 0));
      expect(got.get('w.grad')!.data[c], `class ${c}`).toBeCloseTo(sum, 4);
    }
  });

  it('is one op over the rows, in a loop over micro-batches too', () => {
    for (const microBatch of [undefined, 2]) {
      const all = (graph: Graph): Op[] => graph.ops.flatMap((op) => [op, ...(op.name === 'fused' ? [] : op.regions.flatMap(all))]);
      const ops = all(compiled([6, 7], loss, microBatch));
      const exponentials = ops.filter((op) => op.regions.some((r) => r.ops.some((o) => o.name === 'exp')));
      expect(exponentials.map((op) => op.attrs['kind'])).toEqual(['row']);
      const inside = exponentials[0]!.regions[0]!.ops.map((o) => o.name);
      // The maximum, the logarithm of the sum, and the softmax that the gradient takes.
      expect(inside).toEqual(expect.arrayContaining(['reduceMax', 'exp', 'log', 'div']));

      expect(ops.some((op) => /^(gatherElements|scatter)/.test(op.name))).toBe(false);
    }
  });
});
