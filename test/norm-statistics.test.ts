/** Norms that differ in whose statistics they use, against plain loops: batch renormalization, ghost, virtual and per-domain batch norm. */
import { describe, expect, it } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { proveBatchIndependence } from '../passes/batch-independence.ts';
import { parseNorm, showNorm, type NormSpec } from '../passes/norm/options.ts';
import { rewriteNorms, type RewriteResult } from '../passes/norm/rewrite-norms.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { encodeModel, floats, node, value } from './onnx-encode.ts';
import { numbers, spread, tensor } from './train-harness.ts';

const [n, c, h] = [6, 3, 4];
const gamma = [1.2, -0.7, 0.5];
const beta = [0.3, 0.1, -0.5];
const runningMean = [0.3, -0.2, 0];
const runningVariance = [0.02, 1, 3];
const epsilon = 1e-5;
const gain = [1.5, -1, 0.8];
const x = spread(n * c * h, 2, 0.4);

/** x · gain -> batch norm -> y. */
const model = encodeModel({
  nodes: [node('Mul', ['x', 'gain'], ['a']), node('BatchNormalization', ['a', 'n.weight', 'n.bias', 'n.mean', 'n.var'], ['y', 'm', 'v'], { epsilon: { float: epsilon }, training_mode: 1, momentum: { float: 0.75 } }, { name: 'bn' })],
  initializers: [floats('gain', [1, c, 1], gain), floats('n.weight', [c], gamma), floats('n.bias', [c], beta), floats('n.mean', [c], runningMean), floats('n.var', [c], runningVariance)],
  inputs: [value('x', 'f32', ['n', c, h])],
  outputs: [value('y', 'f32')],
});
const rewrite = (spec: NormSpec, inference = false): RewriteResult => {
  const result = rewriteNorms(importModel(model, { dims: { n }, inference }), spec, testTarget, { inference });
  verify(result.graph);
  return result;
};
const outputs = (r: RewriteResult, more: Readonly<Record<string, Tensor>> = {}, data = x): { readonly y: number[]; readonly next: number[][] } => {
  const graph = { ...r.graph, outputs: [...r.graph.outputs, ...r.statistics.flatMap((s) => (s.next ? [{ name: s.state.name!, value: s.next }] : []))] };
  const got = evaluate(graph, { x: f32([n, c, h], data), ...more }).outputs;
  return { y: numbers(got.get('y')!), next: r.statistics.flatMap((s) => (s.next ? [numbers(got.get(s.state.name!)!)] : [])) };
};
const close = (got: readonly number[], want: readonly number[], digits = 4): void => {
  expect(got).toHaveLength(want.length);
  want.forEach((v, i) => expect(got[i]).toBeCloseTo(v, digits));
};

const channelOf = (i: number): number => Math.floor(i / h) % c;
const sampleOf = (i: number): number => Math.floor(i / (c * h));
const a = (scale = gain): number[] => x.map((v, i) => v * scale[channelOf(i)]!);
interface Stats { readonly mean: number; readonly variance: number }
function statsOf(values: readonly number[]): Stats {
  const mean = values.reduce((p, q) => p + q, 0) / values.length;
  return { mean, variance: values.reduce((p, q) => p + (q - mean) ** 2, 0) / values.length };
}
/** Statistics of a channel over the samples that are wanted. */
const over = (k: number, samples: (s: number) => boolean, data = a()): Stats => statsOf(data.filter((_, i) => channelOf(i) === k && samples(sampleOf(i))));
const affine = (normal: readonly number[]): number[] => normal.map((v, i) => v * gamma[channelOf(i)]! + beta[channelOf(i)]!);

describe('batch renormalization', () => {
  const corrections = (k: number, [scaleLimit, shiftLimit]: readonly [number, number], { mean, variance }: Stats): { r: number; d: number } => {
    const s = Math.sqrt(runningVariance[k]! + epsilon);
    return { r: Math.min(Math.max(Math.sqrt(variance + epsilon) / s, 1 / scaleLimit), scaleLimit), d: Math.min(Math.max((mean - runningMean[k]!) / s, -shiftLimit), shiftLimit) };
  };
  it.each([[[3, 5]], [[1.5, 0.25]], [[100, 100]]] as const)('with limits %j', (limits) => {
    const got = outputs(rewrite({ kind: 'renorm', limits }));
    close(got.y, affine(a().map((v, i) => {
      const s = over(channelOf(i), () => true);
      const { r, d } = corrections(channelOf(i), limits, s);
      return ((v - s.mean) / Math.sqrt(s.variance + epsilon)) * r + d;
    })));
    close(got.next[0]!, runningMean.map((m, k) => 0.75 * m + 0.25 * over(k, () => true).mean));
    close(got.next[1]!, runningVariance.map((v, k) => 0.75 * v + 0.25 * over(k, () => true).variance));
  });
  it('with limits 1 and 0 is batch norm', () => close(outputs(rewrite(parseNorm('renorm:1,0'))).y, outputs(rewrite({ kind: 'batch' })).y, 6));
  it('without limits is normalization by the running statistics', () => close(outputs(rewrite({ kind: 'renorm', limits: [1e6, 1e6] })).y, outputs(rewrite({ kind: 'frozen' }, true)).y, 3));

  it('lets no gradient through its corrections', () => {
    const spec: NormSpec = { kind: 'renorm', limits: [1.5, 0.25] };
    const { graph, statistics } = rewrite(spec);
    const target = spread(n * c * h, 1, 3);
    const step = trainingStep(graph, statistics, { loss: { kind: 'mse' }, optimizer: { kind: 'sgd' }, gradients: true }, testTarget, { verify: true });
    const got = numbers(evaluate(step.graph, { x: f32([n, c, h], x), y: f32([n, c, h], target), lr: filled('f32', [], 0) }).outputs.get('gain.grad')!);
    const fixed = gain.map((_, k) => corrections(k, [1.5, 0.25], over(k, () => true)));
    const loss = (scale: readonly number[]): number => {
      const data = x.map((v, i) => v * scale[channelOf(i)]!);
      const y = affine(data.map((v, i) => {
        const s = over(channelOf(i), () => true, data);
        return ((v - s.mean) / Math.sqrt(s.variance + epsilon)) * fixed[channelOf(i)]!.r + fixed[channelOf(i)]!.d;
      }));
      return y.reduce((sum, v, i) => sum + (v - target[i]!) ** 2, 0) / y.length;
    };
    const numeric = gain.map((_, k) => (loss(gain.with(k, gain[k]! + 1e-3)) - loss(gain.with(k, gain[k]! - 1e-3))) / 2e-3);
    close(got, numeric, 4);
  });
  it('is by running statistics in inference', () => close(outputs(rewrite({ kind: 'renorm' }, true)).y, outputs(rewrite({ kind: 'frozen' }, true)).y, 6));
});

describe('ghost batch norm', () => {
  it.each([1, 2, 3, 6])('over parts of %i samples', (size) => {
    const got = outputs(rewrite({ kind: 'ghost', size }));
    const part = (i: number) => (s: number): boolean => Math.floor(s / size) === Math.floor(sampleOf(i) / size);
    close(got.y, affine(a().map((v, i) => {
      const s = over(channelOf(i), part(i));
      return (v - s.mean) / Math.sqrt(s.variance + epsilon);
    })));
    const parts = Array.from({ length: n / size }, (_, p) => (s: number): boolean => Math.floor(s / size) === p);
    const average = (f: (s: Stats) => number, k: number): number => parts.reduce((sum, p) => sum + f(over(k, p)), 0) / parts.length;
    close(got.next[0]!, runningMean.map((m, k) => 0.75 * m + 0.25 * average((s) => s.mean, k)));
    close(got.next[1]!, runningVariance.map((v, k) => 0.75 * v + 0.25 * average((s) => s.variance, k)));
  });
  it('needs a divisor of the batch', () => expect(() => rewrite({ kind: 'ghost', size: 4 })).toThrow(/a batch of 6 does not divide into parts of 4 samples/));
});

describe('virtual batch norm', () => {
  const reference = tensor([5, c, h], spread(5 * c * h, 1.5, 9), 'f32');
  it.each([false, true])('uses the reference batch and the sample itself, in inference: %s', (inference) => {
    const got = outputs(rewrite({ kind: 'virtual', reference }, inference));
    const fixed = numbers(reference).map((v, i) => v * gain[channelOf(i)]!);
    close(got.y, affine(a().map((v, i) => {
      const own = a().filter((_, j) => channelOf(j) === channelOf(i) && sampleOf(j) === sampleOf(i));
      const s = statsOf([...own, ...fixed.filter((_, j) => channelOf(j) === channelOf(i))]);
      return (v - s.mean) / Math.sqrt(s.variance + epsilon);
    })));
  });
  it('is batch-independent, proved', () => expect(proveBatchIndependence(rewrite({ kind: 'virtual', reference }).graph, testTarget)).toEqual({ proved: true }));
  it('refuses a missing reference batch, and one of another shape', () => {
    expect(() => rewrite({ kind: 'virtual' })).toThrow(/needs a reference batch/);
    expect(() => rewrite({ kind: 'virtual', reference: tensor([5, c], spread(15), 'f32') })).toThrow(/the reference batch is f32\[5,3\]: expected at least two samples like f32\[6,3,4\]/);
  });
});

describe('statistics by domain', () => {
  const domains = [0, 1, 1, 0, 1, 0];
  const domain = tensor([n], domains, 'i64');
  const start = (values: readonly number[]): number[] => [...values, ...values, ...values];
  it('are those of the samples of the same domain; a domain that the batch lacks keeps its own', () => {
    const r = rewrite({ kind: 'domains', size: 3 });
    const got = outputs(r, { domain });
    close(got.y, affine(a().map((v, i) => {
      const s = over(channelOf(i), (t) => domains[t] === domains[sampleOf(i)]);
      return (v - s.mean) / Math.sqrt(s.variance + epsilon);
    })));
    expect(r.statistics.map((s) => [s.state.name, s.state.type.shape])).toEqual([['n.domain_mean', [3, c]], ['n.domain_var', [3, c]]]);
    const moved = (old: readonly number[], now: (k: number, d: number) => number): number[] => start(old).map((v, i) => (i >= 2 * c ? v : 0.75 * v + 0.25 * now(i % c, Math.floor(i / c))));
    close(got.next[0]!, moved(runningMean, (k, d) => over(k, (t) => domains[t] === d).mean));
    close(got.next[1]!, moved(runningVariance, (k, d) => over(k, (t) => domains[t] === d).variance));
  });
  it('are the running ones of its domain in inference', () => {
    const { graph } = rewrite({ kind: 'domains', size: 2 }, true);
    const [means, variances] = [spread(2 * c), spread(2 * c, 0.5, 4).map((v) => v + 1)];
    const state = new Map(graph.state.flatMap((s) => (s.name === 'n.domain_mean' ? [[s.value, tensor([2, c], means, 'f32')] as const] : s.name === 'n.domain_var' ? [[s.value, tensor([2, c], variances, 'f32')] as const] : [])));
    const got = numbers(evaluate(graph, { x: f32([n, c, h], x), domain }, { state }).outputs.get('y')!);
    close(got, affine(a().map((v, i) => {
      const at = domains[sampleOf(i)]! * c + channelOf(i);
      return (v - means[at]!) / Math.sqrt(variances[at]! + epsilon);
    })));
  });
});

describe('names', () => {
  it.each(['renorm', 'renorm:3,5', 'ghost:32', 'virtual', 'domains:2', 'ghost:4+proxy'])('%s', (name) => expect(showNorm(parseNorm(name))).toBe(name));
  it.each([['ghost', /needs a number, as in ghost:32/], ['virtual+proxy', /virtual takes no \+proxy/], ['renorm:0.5,1', /a bound of the scale of at least 1/], ['renorm:3', /as in renorm:3,5/], ['keep', /unknown normalization "keep"/]])('"%s" is refused', (name, message) => expect(() => parseNorm(name)).toThrow(message));
});
