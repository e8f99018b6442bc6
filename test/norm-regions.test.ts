/** Normalizations inside branches and loop bodies: rewritten, proved, linted, trained and exported like those of the graph itself. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compile, compileGraph } from '../cli/driver/compile.ts';
import { rewrittenOnnx } from '../cli/driver/export.ts';
import { openPeer } from '../cli/peers.ts';
import { importModel } from '../frontend/index.ts';
import { decodeModel } from '../frontend/onnx/decode.ts';
import { filled } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph } from '../ir/graph.ts';
import { closeRegions, openRegions, placedOps } from '../ir/regions.ts';
import type { Tensor } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { proofBatches, proveBatchIndependence } from '../passes/batch-independence.ts';
import { lintNorms } from '../passes/norm/lint-norms.ts';
import { measureNorms } from '../passes/norm/measure-norms.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms, type RewriteResult } from '../passes/norm/rewrite-norms.ts';
import { rebindBatch } from '../passes/train/rebind-batch.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { load, loadTrainer } from '../runtime/index.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { encodeModel, floats, int64s, node, raw, value, type TestGraph, type TestModel, type TestNode } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'norm-regions-'));
afterAll(() => rmSync(folder, { recursive: true }));

const bool = (b: boolean): Tensor => ({ dtype: 'bool', shape: [], data: Uint8Array.of(Number(b)) });
const [n, c, h] = [3, 4, 5];
const [gamma, beta, mean, variance] = [[1.2, -0.7, 0.5, 2], [0.3, 0.1, -0.5, 0], [0.1, -0.2, 0, 0.4], [0.5, 1, 2, 0.25]];
const x = spread(n * c * h, 2, 0.4);
const norm = (from: string, to: string, training: boolean, statistics = 'n'): TestNode =>
  node('BatchNormalization', [from, 'n.weight', 'n.bias', `${statistics}.mean`, `${statistics}.var`], training ? [to, `${to}.m`, `${to}.v`] : [to], training ? { training_mode: 1 } : {}, { name: 'bn' });
const weights = [floats('n.weight', [c], gamma), floats('n.bias', [c], beta), floats('n.mean', [c], mean), floats('n.var', [c], variance)];
const given = [value('x', 'f32', ['n', c, h])];
const branch = (nodes: readonly TestNode[], more: Partial<TestGraph> = {}): { readonly graph: TestGraph } => ({ graph: { nodes, outputs: [value(nodes.at(-1)!.outputs[0]!, 'f32')], ...more } });

/** relu(bn(x)) in the one branch, 2x in the other. */
const branching = (training: boolean, more: Partial<TestModel> = {}): Uint8Array => encodeModel({
  nodes: [node('If', ['cond'], ['y'], { then_branch: branch([norm('x', 'u', training), node('Relu', ['u'], ['r'])]), else_branch: branch([node('Add', ['x', 'x'], ['d'])]) }, { name: 'choice' })],
  initializers: weights, inputs: [value('cond', 'bool', []), ...given], outputs: [value('y', 'f32')], ...more,
});

const iterations = 3;
const body = (training: boolean): TestGraph => ({
  nodes: [norm('state', 'u', training), node('Relu', ['u'], ['r']), node('Add', ['r', 'state'], ['next']), node('Identity', ['going'], ['still'])],
  inputs: [value('i', 'i64', []), value('going', 'bool', []), value('state', 'f32', ['n', c, h])], outputs: [value('still', 'bool'), value('next', 'f32')],
});
/** Three times x + relu(bn(x)). */
const looping = (training: boolean): Uint8Array => encodeModel({
  nodes: [node('Loop', ['trips', 'true', 'x'], ['y'], { body: { graph: body(training) } }, { name: 'steps' })],
  initializers: [...weights, int64s('trips', [], [iterations]), raw('true', 'bool', [], Uint8Array.of(1))], inputs: given, outputs: [value('y', 'f32')],
});
/** The same loop in a branch. */
const nested = (training: boolean): Uint8Array => encodeModel({
  nodes: [node('If', ['cond'], ['y'], {
    then_branch: branch([node('Loop', ['trips', 'true', 'x'], ['z'], { body: { graph: body(training) } }, { name: 'steps' })]), else_branch: branch([node('Neg', ['x'], ['z2'])]),
  }, { name: 'choice' })],
  initializers: [...weights, int64s('trips', [], [iterations]), raw('true', 'bool', [], Uint8Array.of(1))], inputs: [value('cond', 'bool', []), ...given], outputs: [value('y', 'f32')],
});

/** Group norm with scale and shift, ReLU, and Proxy Norm (of quantiles taken from `proxy`) on request, in plain loops. */
function normalized(v: readonly number[], groups: number, proxy?: readonly { readonly mean: number; readonly variance: number }[]): number[] {
  const per = (c / groups) * h;
  return v.map((e, i) => {
    const k = Math.floor(i / h) % c;
    const group = v.slice(i - (i % per), i - (i % per) + per);
    const m = group.reduce((p, q) => p + q) / per;
    const s = group.reduce((p, q) => p + (q - m) ** 2, 0) / per;
    const r = Math.max((gamma[k]! * (e - m)) / Math.sqrt(s + 1e-3) + beta[k]!, 0);
    return proxy ? (r - proxy[k]!.mean) / Math.sqrt(proxy[k]!.variance + 0.03) : r;
  });
}
const frozen = (v: readonly number[]): number[] => v.map((e, i) => {
  const k = Math.floor(i / h) % c;
  return Math.max((gamma[k]! * (e - mean[k]!)) / Math.sqrt(variance[k]! + 1e-5) + beta[k]!, 0);
});
/** Moments of relu(γ z + β) for a standard normal z, by integration. */
const proxies = gamma.map((g, k) => {
  const [steps, reach] = [20000, 8];
  let [sum, squares] = [0, 0];
  for (let i = 0; i < steps; i++) {
    const z = -reach + (2 * reach * (i + 0.5)) / steps;
    const p = (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * ((2 * reach) / steps);
    const r = Math.max(g * z + beta[k]!, 0);
    sum += r * p;
    squares += r * r * p;
  }
  return { mean: sum, variance: squares - sum * sum };
});
const repeated = (f: (v: readonly number[]) => number[]): number[] => {
  let v = x;
  for (let i = 0; i < iterations; i++) v = f(v).map((r, k) => r + v[k]!);
  return v;
};

const rewrite = (bytes: Uint8Array, kind: string, inference = false): RewriteResult => {
  const result = rewriteNorms(importModel(bytes, { dims: { n }, inference }), parseNorm(kind), testTarget, { inference });
  verify(result.graph);
  return result;
};
const run = (graph: Graph, cond?: boolean): number[] => numbers(evaluate(graph, { x: f32([n, c, h], x), ...(cond !== undefined && { cond: bool(cond) }) }).outputs.get('y')!);
const close = (got: readonly number[], want: readonly number[], digits = 4): void => want.forEach((w, i) => expect(got[i]).toBeCloseTo(w, digits));
const regions = (graph: Graph): Graph[] => graph.ops.flatMap((op) => op.regions);

describe.each([false, true])('a batch normalization, training form: %s', (training) => {
  it.each([['group:2', 2], ['layer', 1], ['instance', 4]] as const)('in a branch becomes %s, and the other branch stays', (kind, groups) => {
    const { graph, rewritten, statistics } = rewrite(branching(training), kind);
    expect(rewritten.map((r) => r.node)).toEqual(['BatchNormalization(bn)']);
    close(run(graph, true), normalized(x, groups));
    close(run(graph, false), x.map((v) => 2 * v));
    expect(graph.state.map((s) => s.name)).toEqual(['n.weight', 'n.bias']);
    expect(statistics).toEqual([]);
  });

  it.each([['group:2', 2], ['layer', 1]] as const)('in a loop body becomes %s in every iteration', (kind, groups) => {
    close(run(rewrite(looping(training), kind).graph), repeated((v) => normalized(v, groups)));
    close(run(rewrite(nested(training), kind).graph, true), repeated((v) => normalized(v, groups)));
    close(run(rewrite(nested(training), kind).graph, false), x.map((v) => -v));
  });

  it('gets its proxy, whose parameters stand in the graph and whose moments are computed outside of the loop', () => {
    for (const [bytes, cond] of [[looping(training), undefined], [nested(training), true]] as const) {
      const { graph, rewritten } = rewrite(bytes, 'group:2+proxy');
      expect(rewritten[0]!.proxy).toEqual(['n.proxy_gamma', 'n.proxy_beta']);
      expect(graph.state.map((s) => s.name)).toEqual(['n.weight', 'n.bias', 'n.proxy_gamma', 'n.proxy_beta']);
      // 200 quantiles stand for the integral.
      close(run(graph, cond), repeated((v) => normalized(v, 2, proxies)), 1);
      const quantiles = placedOps(openRegions(graph)).filter(({ op }) => op.results.some((r) => r.type.shape[0] === 200));
      expect(quantiles.length).toBeGreaterThan(0);
      expect(quantiles.every(({ within }) => within.length === 0)).toBe(true);
    }
    close(run(rewrite(branching(training), 'group:2+proxy').graph, true), normalized(x, 2, proxies), 1);
  });

  it('becomes frozen, with the statistics that it has', () => {
    const { graph, statistics } = rewrite(looping(training), 'frozen');
    expect(statistics.map((s) => [s.state.name, s.next])).toEqual([['n.mean', undefined], ['n.var', undefined]]);
    close(run(graph), repeated(frozen));
    close(run(rewrite(branching(training), 'frozen').graph, true), frozen(x));
  });

  it('is rewritten once', () => {
    const once = rewrite(nested(training), 'group:2+proxy');
    expect(rewriteNorms(once, parseNorm('group:2+proxy'), testTarget)).toEqual({ ...once, rewritten: [], normalized: [] });
  });

  it.each(['batch+proxy', 'renorm', 'ghost:3', 'domains:2', 'virtual'])('is refused as %s, by name', (kind) => {
    const spec = kind === 'virtual' ? { ...parseNorm(kind), reference: f32([2, c, h], spread(2 * c * h)) } : parseNorm(kind);
    expect(() => rewriteNorms(importModel(looping(training), { dims: { n } }), spec, testTarget)).toThrow(/BatchNormalization\(bn\) stands in the body of Loop\(steps\), where (batch|renorm|ghost|domains|virtual).*frozen/);
  });
});

describe('a batch normalization whose scale changes with the iteration', () => {
  const table = [...gamma, ...gamma.map((g) => 2 * g), ...gamma.map((g) => -g)];
  const bytes = encodeModel({
    nodes: [node('Loop', ['trips', 'true', 'x'], ['y'], { body: { graph: {
      ...body(false),
      nodes: [node('Gather', ['scales', 'i'], ['scale'], { axis: 0 }), { ...norm('state', 'u', false), inputs: ['state', 'scale', 'n.bias', 'n.mean', 'n.var'] }, ...body(false).nodes.slice(1)],
    } } })],
    initializers: [...weights, floats('scales', [iterations, c], table), int64s('trips', [], [iterations]), raw('true', 'bool', [], Uint8Array.of(1))], inputs: given, outputs: [value('y', 'f32')],
  });
  it('keeps it, also where its proxy then has to be computed in the loop', () => {
    let v: readonly number[] = x;
    for (let i = 0; i < iterations; i++) {
      const own = normalized(v.map((e) => e), 1);
      v = own.map((_, k) => {
        const channel = Math.floor(k / h) % c;
        const sample = v.slice(k - (k % (c * h)), k - (k % (c * h)) + c * h);
        const m = sample.reduce((p, q) => p + q) / (c * h);
        const s = sample.reduce((p, q) => p + (q - m) ** 2, 0) / (c * h);
        return Math.max((table[i * c + channel]! * (v[k]! - m)) / Math.sqrt(s + 1e-3) + beta[channel]!, 0) + v[k]!;
      });
    }
    close(run(rewrite(bytes, 'layer').graph), v);
    const proxied = rewrite(bytes, 'layer+proxy').graph;
    expect(run(proxied).every(Number.isFinite)).toBe(true);
    expect(placedOps(openRegions(proxied)).some(({ op, within }) => within.length === 1 && op.results.some((r) => r.type.shape[0] === 200))).toBe(true);
  });
});

describe('the proof of batch independence', () => {
  const verdict = (bytes: Uint8Array, kind?: string): string => {
    const [a, b] = proofBatches.map((k) => importModel(bytes, { dims: { n: k } })).map((m) => (kind === undefined ? m : rewriteNorms(m, parseNorm(kind), testTarget)).graph);
    const found = proveBatchIndependence(a!, testTarget, b);
    return found.proved ? 'proved' : `${found.op.source.join()}: ${found.reason}`;
  };
  const scalarInput = { inputs: [value('cond', 'bool', []), ...given], initializers: [...weights, floats('limit', [], [0])] };
  const choosing = (then: readonly TestNode[], otherwise: readonly TestNode[], more: readonly TestNode[] = []): Uint8Array => encodeModel({
    ...scalarInput,
    nodes: [...more, node('If', ['cond'], ['y'], { then_branch: branch(then), else_branch: branch(otherwise) }, { name: 'choice' })],
    outputs: [value('y', 'f32')],
  });
  const shape = [node('Shape', ['x'], ['s'], { start: 0, end: 1 }), node('Cast', ['s'], ['count'], { to: 1 })];
  const same = [node('Neg', ['x'], ['d'])];

  it('names the batch normalization in a branch or body, and proves what it is rewritten to', () => {
    const bytes = choosing([norm('x', 'u', true), node('Relu', ['u'], ['r'])], same);
    expect(verdict(bytes)).toMatch(/^BatchNormalization\(bn\): it joins the samples of a batch/);
    expect(verdict(looping(true))).toMatch(/^BatchNormalization\(bn\): it joins the samples of a batch/);
    for (const kind of ['group:2+proxy', 'frozen', 'instance']) for (const b of [bytes, looping(true)]) expect(verdict(b, kind)).toBe('proved');
  });
  it('names a division by the number of samples in a branch, made there or outside', () => {
    expect(verdict(choosing([...shape, node('Div', ['x', 'count'], ['r'], {}, { name: 'here' })], same))).toMatch(/^Div\(here\): it computes with the number of samples/);
    expect(verdict(choosing([node('Div', ['x', 'count'], ['r'], {}, { name: 'here' })], same, shape))).toMatch(/^Div\(here\): it computes with the number of samples/);
    expect(verdict(choosing([node('Relu', ['x'], ['r'])], same, shape))).toBe('proved');
  });
  it('names what a loop body does with a number that it carries', () => {
    const loop = (of: string): Uint8Array => encodeModel({
      ...scalarInput, initializers: [int64s('trips', [], [3]), raw('true', 'bool', [], Uint8Array.of(1)), floats('one', [1], [1])],
      nodes: [...shape, node('Loop', ['trips', 'true', 'one', 'x'], ['factor', 'y'], { body: { graph: {
        nodes: [node('Mul', ['v', 'f'], ['w'], {}, { name: 'here' }), node('Add', ['f', of], ['g']), node('Identity', ['going'], ['still'])],
        inputs: [value('i', 'i64', []), value('going', 'bool', []), value('f', 'f32', [1]), value('v', 'f32', ['n', c, h])], outputs: [value('still', 'bool'), value('g', 'f32'), value('w', 'f32')],
      } } })],
      outputs: [value('y', 'f32')],
    });
    expect(verdict(loop('count'))).toMatch(/^Mul\(here\): it computes with the number of samples/);
    expect(verdict(loop('one'))).toBe('proved');
  });
  it('names a condition that depends on samples, a body that moves them, and branches that disagree', () => {
    const total = [node('ReduceMax', ['x'], ['top'], { keepdims: 0 }), node('Greater', ['top', 'limit'], ['high'])];
    const choice = (then: readonly TestNode[], otherwise: readonly TestNode[], cond = 'cond'): TestNode => node('If', [cond], ['y'], { then_branch: branch(then), else_branch: branch(otherwise) }, { name: 'choice' });
    expect(verdict(encodeModel({ ...scalarInput, nodes: [...total, choice([node('Relu', ['x'], ['r'])], same, 'high')], outputs: [value('y', 'f32')] }))).toMatch(/^ReduceMax\(.*\): it joins the samples/);
    const cum = choosing([node('CumSum', ['x', 'first'], ['r'], {}, { name: 'here' })], same, [node('Constant', [], ['first'], { value_int: 0 })]);
    expect(verdict(cum)).toMatch(/^CumSum\(here\): it scans along samples/);
    const square = (then: readonly TestNode[], otherwise: readonly TestNode[]): Uint8Array => encodeModel({
      inputs: [value('cond', 'bool', []), value('x', 'f32', [7, 7])], outputs: [value('y', 'f32')], initializers: [floats('limit', [], [0]), floats('fixed', [7, 7], spread(49)), floats('row', [1, 7], spread(7)), int64s('full', [2], [7, 7])],
      nodes: [choice(then, otherwise)],
    });
    const alone = (bytes: Uint8Array): string => {
      const found = proveBatchIndependence(importModel(bytes).graph, testTarget);
      return found.proved ? 'proved' : `${found.op.source.join()}: ${found.reason}`;
    };
    expect(alone(square([node('Relu', ['x'], ['r'])], [node('Transpose', ['x'], ['d'])]))).toBe('If(choice): its branches hold samples in different places of result 0');
    expect(alone(square([node('Relu', ['x'], ['r'])], [node('Neg', ['fixed'], ['d'])]))).toBe('If(choice): only one of its branches holds samples in result 0');
    expect(alone(square([node('Relu', ['x'], ['r'])], [node('Expand', ['row', 'full'], ['d'])]))).toBe('proved');
  });
});

describe('a model for one sample', () => {
  it('gets more, through its branches', () => {
    const bytes = encodeModel({
      nodes: [node('If', ['cond'], ['r'], { then_branch: branch([norm('x', 'u', false), node('Relu', ['u'], ['p'])]), else_branch: branch([node('Expand', ['row', 'full'], ['q'])]) }), node('Add', ['r', 'x'], ['y'])],
      initializers: [...weights, floats('row', [1, 1, h], spread(h)), int64s('full', [3], [1, c, h])], inputs: [value('cond', 'bool', []), value('x', 'f32', [1, c, h])], outputs: [value('y', 'f32')],
    });
    const { graph } = importModel(bytes);
    const larger = rebindBatch(graph, n);
    verify(larger);
    close(run(larger, true), frozen(x).map((v, i) => v + x[i]!));
    close(run(larger, false), x.map((v, i) => v + spread(h)[i % h]!));
    expect(proveBatchIndependence(graph, testTarget)).toEqual({ proved: true });
  });
});

describe('normalized weights', () => {
  it('are those that a branch reads, and a cosine is of its inputs too', () => {
    const [k, w] = [2, spread(2 * c, 1, 3)];
    const bytes = encodeModel({
      nodes: [node('If', ['cond'], ['y'], { then_branch: branch([node('Conv', ['x', 'w'], ['p'])]), else_branch: branch([node('Conv', ['x', 'v'], ['q'])]) })],
      initializers: [floats('w', [k, c, 1], w), floats('v', [k, c, 1], spread(k * c))], inputs: [value('cond', 'bool', []), ...given], outputs: [value('y', 'f32')],
    });
    const { graph } = rewriteNorms(importModel(bytes, { dims: { n } }), { kind: 'keep', weights: 'cosine' }, testTarget);
    verify(graph);
    const want = Array.from({ length: n * k * h }, (_, i) => {
      const [sample, out, at] = [Math.floor(i / (k * h)), Math.floor(i / h) % k, i % h];
      const [a, b] = [Array.from({ length: c }, (__, j) => x[(sample * c + j) * h + at]!), w.slice(out * c, out * c + c)];
      return a.reduce((sum, v, j) => sum + v * b[j]!, 0) / Math.hypot(...a) / Math.hypot(...b);
    });
    close(run(graph, true), want);
  });
});

describe('micro-batches', () => {
  it('of a model with a scalar input that chooses a branch: the gradient of the whole batch', () => {
    const bytes = encodeModel({
      nodes: [node('If', ['cond'], ['r'], { then_branch: branch([norm('x', 'u', true), node('Relu', ['u'], ['p'])]), else_branch: branch([node('Neg', ['x'], ['q'])]) }), node('ReduceMean', ['r', 'last'], ['m'], { keepdims: 0 }), node('Gemm', ['m', 'w'], ['logits'], { transB: 1 })],
      initializers: [...weights, int64s('last', [1], [2]), floats('w', [2, c], spread(2 * c))], inputs: [value('cond', 'bool', []), value('x', 'f32', ['n', c, h])], outputs: [value('logits', 'f32', ['n', 2])],
    });
    const model = rewriteNorms(importModel(bytes, { dims: { n: 6 } }), parseNorm('group:2+proxy'), testTarget);
    const inputs = { x: f32([6, c, h], spread(6 * c * h, 2, 0.4)), cond: bool(true), y: { dtype: 'i64' as const, shape: [6], data: BigInt64Array.of(0n, 1n, 0n, 1n, 1n, 0n) }, lr: f32([], [0.1]) };
    const gradients = (microBatch?: number): Map<string, number[]> => {
      const { graph } = trainingStep(model.graph, model.statistics, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd' }, gradients: true, ...(microBatch !== undefined && { microBatch }) }, testTarget, { verify: true });
      return new Map([...evaluate(graph, inputs).outputs].filter(([name]) => name.endsWith('.grad')).map(([name, t]) => [name, numbers(t)]));
    };
    const whole = gradients();
    expect([...whole.keys()]).toEqual(expect.arrayContaining(['n.weight.grad', 'n.bias.grad', 'n.proxy_gamma.grad', 'n.proxy_beta.grad', 'w.grad']));
    for (const microBatch of [1, 2, 3]) for (const [name, g] of gradients(microBatch)) close(g, whole.get(name)!, 5);
  });
});

describe('lint and measurement', () => {
  const rules = (bytes: Uint8Array): string[] => lintNorms(importModel(bytes, { dims: { n } })).map((f) => `${f.rule} ${f.nodes.join()}`);
  it('find norms in branches and bodies', () => {
    expect(rules(branching(true))).toEqual(['training-inference-mismatch BatchNormalization(bn)', 'lost-statistics BatchNormalization(bn)']);
    expect(rules(branching(false))).toEqual([]);
    expect(rules(looping(false))).toEqual(['shared-statistics BatchNormalization(bn)']);
    expect(rules(nested(true))).toEqual(['training-inference-mismatch BatchNormalization(bn)', 'lost-statistics BatchNormalization(bn)', 'shared-statistics BatchNormalization(bn)']);
  });
  it('say that norms there are not measured', () =>
    expect(measureNorms(importModel(looping(true), { dims: { n } }), testTarget)).toMatchObject({ norms: [], left: [{ node: 'BatchNormalization(bn)', why: 'stands in the body of Loop(steps)' }] }));
});

describe('training', () => {
  const options = { loss: { kind: 'meanSquares', target: 'y' }, optimizer: { kind: 'sgd' } } as never;
  it('refuses running statistics that no step could keep', () => {
    const { graph, statistics } = importModel(looping(true), { dims: { n } });
    expect(() => trainingStep(graph, statistics, options, testTarget)).toThrow(/BatchNormalization\(bn\) follows the batch in the body of Loop\(steps\), where a step cannot keep its running statistics "n.mean" and "n.var".*--norm frozen/);
  });
  it('takes the branch that each step draws', () => {
    const bytes = encodeModel({
      nodes: [
        node('RandomUniform', [], ['draw'], { shape: [1] }), node('Less', ['draw', 'half'], ['cond']),
        node('If', ['cond'], ['r'], { then_branch: branch([norm('x', 'u', true), node('Relu', ['u'], ['p'])]), else_branch: branch([node('Neg', ['x'], ['q'])]) }), node('ReduceMean', ['r', 'last'], ['m'], { keepdims: 0 }), node('Gemm', ['m', 'w'], ['logits'], { transB: 1 }),
      ],
      initializers: [...weights, floats('half', [], [0.5]), int64s('last', [1], [2]), floats('w', [2, c], spread(2 * c))], inputs: given, outputs: [value('logits', 'f32', ['n', 2])],
    });
    const model = rewriteNorms(importModel(bytes, { dims: { n }, seeded: true }), parseNorm('group:2'), testTarget);
    const { graph } = trainingStep(model.graph, model.statistics, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd' } }, testTarget, { verify: true });
    const state = new Map(graph.state.map((s) => [s.value, s.init === 'zero' ? filled(s.value.type.dtype, s.value.type.shape, 0) : s.init]));
    const w = spread(2 * c);
    const logits = (r: readonly number[]): number[] => Array.from({ length: n * 2 }, (_, i) => {
      const means = Array.from({ length: c }, (__, k) => r.slice((Math.floor(i / 2) * c + k) * h, (Math.floor(i / 2) * c + k + 1) * h).reduce((p, q) => p + q) / h);
      return means.reduce((sum, v, k) => sum + v * w[(i % 2) * c + k]!, 0);
    });
    const [then, otherwise] = [logits(normalized(x, 2)), logits(x.map((v) => -v))];
    const taken = Array.from({ length: 12 }, () => {
      const result = evaluate(graph, { x: f32([n, c, h], x), y: { dtype: 'i64', shape: [n], data: BigInt64Array.of(0n, 1n, 0n) }, lr: f32([], [0]) }, { state });
      for (const [v, t] of result.state) state.set(v, t);
      const got = numbers(result.outputs.get('logits')!);
      const first = Math.abs(got[0]! - then[0]!) < 1e-4;
      close(got, first ? then : otherwise);
      return first;
    });
    expect(new Set(taken).size).toBe(2);
  });
  it('does not take the running statistics of a region for parameters', () => {
    for (const bytes of [branching(false), nested(false)]) expect(importModel(bytes, { dims: { n } }).statistics.map((s) => [s.state.name, s.next])).toEqual([['n.mean', undefined], ['n.var', undefined]]);
  });
  it('keeps weights that a subgraph in a subgraph reads, and values made of them, as weights', () => {
    const bytes = encodeModel({
      nodes: [node('Neg', ['w'], ['minus']), node('If', ['cond'], ['y'], {
        then_branch: branch([node('If', ['cond'], ['z'], { then_branch: branch([node('Mul', ['x', 'minus'], ['p']), node('Add', ['p', 'w'], ['q'])]), else_branch: branch([node('Neg', ['x'], ['q2'])]) })]), else_branch: branch([node('Abs', ['x'], ['z2'])]),
      })],
      initializers: [floats('w', [3], [1, 2, 3])], inputs: [value('cond', 'bool', []), value('x', 'f32', [3])], outputs: [value('y', 'f32')],
    });
    const { graph } = importModel(bytes);
    const [w] = graph.state;
    const moved = evaluate(graph, { cond: bool(true), x: f32([3], [1, 1, 1]) }, { state: new Map([[w!.value, f32([3], [5, 6, 7])]]) });
    expect(numbers(moved.outputs.get('y')!)).toEqual([0, 0, 0]);
    expect(placedOps(openRegions(graph)).filter(({ op }) => op.name === 'constant' && op.results[0]!.type.dtype === 'f32')).toEqual([]);
  });
});

describe('exported', () => {
  const inOnnxruntime = async (bytes: Uint8Array, inputs: Parameters<Awaited<ReturnType<typeof openPeer>>['run']>[0]): Promise<number[]> => {
    const file = join(folder, 'model.onnx');
    writeFileSync(file, bytes);
    const peer = await openPeer('onnxruntime-node', file, 1);
    try {
      return numbers((await peer.run(inputs))['y']!);
    } finally {
      await peer.close();
    }
  };
  it.each(['group:2', 'layer+proxy', 'frozen', 'none'])('with %s, branches and loops keep their structure and onnxruntime computes what we do, for any number of samples', async (kind) => {
    for (const [bytes, conds] of [[branching(true), [true, false]], [nested(true), [true, false]], [looping(false), [undefined]]] as const) {
      const written = rewrittenOnnx(bytes, parseNorm(kind));
      const types = (b: Uint8Array): string[] => decodeModel(b, 'model', undefined).graph.nodes.map((v) => v.opType).filter((t) => t === 'If' || t === 'Loop');
      expect(types(written)).toEqual(types(bytes));
      for (const cond of conds) {
        for (const samples of [n, 1]) {
          const inputs = { x: f32([samples, c, h], x.slice(0, samples * c * h)), ...(cond !== undefined && { cond: bool(cond) }) };
          const { graph } = rewriteNorms(importModel(bytes, { dims: { n: samples }, inference: true }), parseNorm(kind), testTarget, { inference: true });
          close(await inOnnxruntime(written, inputs), numbers(evaluate(graph, inputs).outputs.get('y')!), 4);
        }
      }
    }
  });
  it('takes the number of samples from the input that has them, where a branch makes something for each', async () => {
    const bytes = encodeModel({
      nodes: [node('Shape', ['x'], ['shape']), node('If', ['cond'], ['y'], { then_branch: branch([norm('x', 'u', false)]), else_branch: branch([node('Expand', ['row', 'shape'], ['q'])]) })],
      initializers: [...weights, floats('row', [1, 1, h], spread(h))], inputs: [value('cond', 'bool', []), ...given], outputs: [value('y', 'f32')],
    });
    const written = rewrittenOnnx(bytes, parseNorm('layer'));
    for (const samples of [1, 3]) close(await inOnnxruntime(written, { x: f32([samples, c, h], x.slice(0, samples * c * h)), cond: bool(false) }), x.slice(0, samples * c * h).map((_, i) => spread(h)[i % h]!));
  });
  it('is not rewritten twice, and keeps its weights under their names', () => {
    const once = rewrittenOnnx(looping(true), parseNorm('layer+proxy'));
    expect(importModel(once, { dims: { n } }).graph.state.map((s) => s.name)).toEqual(expect.arrayContaining(['n.weight', 'n.bias', 'n.proxy_gamma', 'n.proxy_beta']));
    expect(rewrittenOnnx(once, parseNorm('layer+proxy'))).toHaveLength(rewrittenOnnx(once, undefined).length);
  });
});

describe('compiled', () => {
  it('runs as the interpreter does', async () => {
    for (const kind of ['group:2+proxy', 'frozen']) {
      await using model = await load(await compile(nested(true), { dims: { n }, features: ['simd'], norm: parseNorm(kind) }), { threads: 1 });
      const want = run(rewrite(nested(true), kind).graph, true);
      close(numbers((await model.run({ x: Float32Array.from(x), cond: Uint8Array.of(1) }))['y'] as never), want, 4);
    }
  });
  it.each(['If', 'Loop'])('folds a norm into the convolution before it in the region of %s, whose weights are packed while compiling', async (kind) => {
    const nodes = [node('Conv', ['s', 'w'], ['a'], { pads: [1, 1] }), norm('a', 'u', false), node('Relu', ['u'], ['r'])];
    const bytes = encodeModel({
      inputs: [value('cond', 'bool', []), ...given], outputs: [value('y', 'f32')], initializers: [...weights, floats('w', [c, c, 3], spread(3 * c * c)), int64s('trips', [], [2])],
      nodes: kind === 'If'
        ? [node('Neg', ['x'], ['s']), node('If', ['cond'], ['y'], { then_branch: branch(nodes), else_branch: branch([node('Abs', ['x'], ['d'])]) })]
        : [node('Loop', ['trips', 'cond', 'x'], ['y'], { body: { graph: { nodes: [...nodes, node('Identity', ['going'], ['still'])], inputs: [value('i', 'i64', []), value('going', 'bool', []), value('s', 'f32', ['n', c, h])], outputs: [value('still', 'bool'), value('r', 'f32')] } } })],
    });
    const { graph, imported } = compileGraph(bytes, { dims: { n } });
    const names = placedOps(graph).flatMap(({ op, within }) => (within.length > 0 ? [op.name, ...op.regions.flatMap((region) => region.ops.map((o) => o.name))] : []));
    expect(names).toContain('convPacked');
    for (const gone of ['packConv', 'rsqrt', 'mul']) expect(names).not.toContain(gone);
    expect(graph.state.filter((s) => s.init !== 'zero').reduce((sum, s) => sum + s.value.type.shape.reduce((p, d) => p * d, 1), 0)).toBeLessThan(2 * 3 * c * c);
    await using model = await load(await compile(bytes, { dims: { n }, features: ['simd'] }), { threads: 1 });
    for (const cond of [true, false]) close(numbers((await model.run({ x: Float32Array.from(x), cond: Uint8Array.of(Number(cond)) }))['y'] as never), run(imported.graph, cond), 4);
  });
  it('trains norms in a loop with their proxies, and writes them back', async () => {
    const model = encodeModel({
      nodes: [
        node('Loop', ['trips', 'true', 'x'], ['z'], { body: { graph: body(true) } }, { name: 'steps' }), node('ReduceMean', ['z', 'last'], ['p'], { keepdims: 0 }), node('Gemm', ['p', 'w'], ['logits'], { transB: 1 }),
      ],
      initializers: [...weights, int64s('trips', [], [iterations]), raw('true', 'bool', [], Uint8Array.of(1)), int64s('last', [1], [2]), floats('w', [2, c], spread(2 * c))], inputs: given, outputs: [value('logits', 'f32', ['n', 2])],
    });
    const artifact = await compile(model, { dims: { n }, features: ['simd'], norm: parseNorm('group:2+proxy'), train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'adam' } } });
    await using t = await loadTrainer(artifact, { threads: 1 });
    const losses: number[] = [];
    for (let k = 0; k < 8; k++) losses.push((await t.trainStep({ x: Float32Array.from(x), y: BigInt64Array.of(0n, 1n, 0n), lr: 0.05 })).loss);
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    await t.exportOnnx(artifact.rewritten!, join(folder, 'trained.onnx'));
    const moved = importModel(join(folder, 'trained.onnx'), { dims: { n } }).graph.state.filter((s) => s.name.includes('proxy')).map((s) => [s.name, numbers(s.init as never).some((v) => v !== 0)]);
    expect(moved).toEqual([['n.proxy_gamma', true], ['n.proxy_beta', true]]);
    const ours = numbers((await t.evaluate({ x: Float32Array.from(x) }))['logits'] as never);
    const peer = await openPeer('onnxruntime-node', join(folder, 'trained.onnx'), 1);
    const { logits } = await peer.run({ x: f32([n, c, h], x) });
    await peer.close();
    close(numbers(logits!), ours, 4);
  });
});

describe('open regions', () => {
  it('close to a graph that computes the same, whatever they read', () => {
    const { graph } = importModel(nested(true), { dims: { n } });
    const open = openRegions(graph);
    expect(openRegions(open)).toBe(open);
    for (const { op } of placedOps(open)) if (op.name === 'if' || op.name === 'loop') expect(op.operands).toHaveLength(op.name === 'if' ? 1 : 3);
    const again = closeRegions(open);
    verify(again);
    for (const cond of [true, false]) expect(run(again, cond)).toEqual(run(graph, cond));
    expect(regions(again)[0]!.inputs.map((v) => v.name)).toEqual(expect.arrayContaining(['x', 'n.weight', 'n.bias']));
  });
});
