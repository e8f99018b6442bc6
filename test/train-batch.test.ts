/** Samples of a batch: following them, giving a graph another batch size, and steps over micro-batches. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readCase } from '../bench/golden-case.ts';
import { onReference, runGolden } from '../bench/golden-run.ts';
import { importModel } from '../frontend/index.ts';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Graph, Value } from '../ir/graph.ts';
import { sizeOf } from '../ir/type.ts';
import { verify } from '../ir/verify.ts';
import { computeInParts } from '../passes/train/compute-in-parts.ts';
import { rebindBatch } from '../passes/train/rebind-batch.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { testTarget } from './ir/target.ts';
import { model, numbers, spread, tensor, train } from './train-harness.ts';

type Make = Parameters<typeof model>[0];

/** Runs a graph on as many samples as it takes: those of one sequence, so that sample i is the same whatever the batch. */
function rows(graph: Graph): number[] {
  const inputs = Object.fromEntries(graph.inputs.map((v) => [v.name!, tensor(v.type.shape, spread(sizeOf(v.type.shape)), v.type.dtype)]));
  return numbers(evaluate(graph, inputs).outputs.get('out')!);
}

const root = join(import.meta.dirname, '../../shared/goldens');
const absent = !existsSync(root);

/** Graphs for a batch of n beside other axes of size 4, whose samples do not meet. */
const independent: readonly [string, (n: number) => Make][] = [
  ['attention over 4 tokens with 4 heads', (n) => (b, weight, input) => {
    const x = input('x', [n, 4, 8]);
    const heads = (name: string): Value => b.transpose(b.reshape(b.contract('ntc,cd->ntd', x, weight(name, [8, 8], spread(64))), [n, 4, 4, 2]), [0, 2, 1, 3]);
    const scores = b.contract('nhtd,nhsd->nhts', heads('q'), heads('k'));
    const e = b.unary('exp', b.sub(scores, b.reduce('reduceMax', scores, [3], true)));
    const mixed = b.contract('nhts,nhsd->nhtd', b.div(e, b.reduce('reduceSum', e, [3], true)), heads('v'));
    return b.reshape(b.transpose(mixed, [0, 2, 1, 3]), [n, 4, 8]);
  }],
  ['tokens first, rows merged, heads beside samples', (n) => (b, weight, input) => {
    const rows = b.contract('mc,cd->md', b.reshape(b.transpose(input('x', [n, 4, 8]), [1, 0, 2]), [4 * n, 8]), weight('w', [8, 8], spread(64)));
    const heads = b.transpose(b.reshape(b.reshape(rows, [4, n, 8]), [4, n * 2, 4]), [1, 0, 2]);
    const y = b.contract('gtd,gsd->gts', heads, heads);
    return b.reshape(b.contract('gts,gsd->gtd', y, heads), [n, 2, 4, 4]);
  }],
  ['samples and tokens merged, then apart again', (n) => (b, weight, input) => b.reshape(b.contract('mc,cd->md', b.reshape(input('x', [n, 4, 4]), [4 * n, 4]), weight('w', [4, 4], spread(16))), [n, 4, 4])],
  ['group norm through a reshape to one row', (n) => (b, _weight, input) => {
    const x = b.reshape(input('x', [n, 4, 3]), [1, 2 * n, 6]);
    const [m] = b.op('moments', [x], { axes: [2] }) as [Value, Value];
    return b.reshape(b.sub(x, b.reshape(m, [1, 2 * n, 1])), [n, 4, 3]);
  }],
  ['a token that is expanded to the batch', (n) => (b, weight, input) => b.concat([b.broadcast(weight('cls', [1, 1, 4], spread(4)), [n, 1, 4]), input('x', [n, 4, 4])], 1)],
  ['a mask that is the same for all samples', (n) => (b, _weight, input) => b.add(input('x', [n, 4]), b.constant(tensor([n, 4], Array.from({ length: 4 * n }, (_, i) => i % 4))))],
  ['a loop over time with a state of zeros', (n) => (b, weight, input) => {
    const r = new Builder('body');
    const i = r.input({ dtype: 'i64', shape: [] });
    const h = r.input({ dtype: 'f64', shape: [n, 4] });
    const [x, w] = [r.input({ dtype: 'f64', shape: [4, n, 4] }), r.input({ dtype: 'f64', shape: [4, 4] })];
    const next = r.unary('tanh', r.add(r.contract('nk,kh->nh', h, w), r.one('gather', [x, i], { axis: 0 })));
    const region = r.finish([r.scalar(1, 'bool'), next].map((value, k) => ({ name: `r${k}`, value })));
    return b.op('loop', [b.scalar(4, 'i64'), b.scalar(1, 'bool'), b.zeros({ dtype: 'f64', shape: [n, 4] }), b.transpose(input('x', [n, 4, 4]), [1, 0, 2]), weight('w', [4, 4], spread(16))], { trips: 4, carried: 1, scans: 0 }, [region])[0]!;
  }],
];

/** Graphs that no other batch size can be given. */
const mixing: readonly [string, Make, RegExp][] = [
  ['a table with a row for each sample', (b, weight, input) => b.add(input('x', [4, 3]), weight('t', [4, 3], spread(12))), /"t" \(f64\[4,3\]\) differs from sample to sample/],
  ['samples in reverse', (b, _weight, input) => b.slice(input('x', [4, 3]), [3, 0], [4, 3], [-1, 1]), /op slice mixes the samples of a batch: it shifts, reverses/],
  ['a cumulative sum', (b, _weight, input) => b.one('cumSum', [input('x', [4, 3])], { axis: 0 }), /op cumSum mixes the samples of a batch: it scans along samples/],
  ['similarity of samples', (b, _weight, input) => b.contract('nk,mk->nm', input('x', [4, 3]), input('z', [4, 3])), /it pairs samples with samples/],
  ['an axis that cuts through samples', (b, _weight, input) => b.reshape(input('x', [4, 6]), [3, 8]), /op reshape mixes the samples of a batch/],
  ['the number of the best sample', (b, _weight, input) => b.one('argMax', [input('x', [4, 3])], { axis: 0 }), /op argMax mixes the samples of a batch: it numbers samples/],
  ['samples that are numbered', (b, _weight, input) => b.mul(input('x', [4, 3]), b.reshape(b.one('iota', [], { shape: [4], axis: 0, dtype: 'f64' }), [4, 1])), /differs from sample to sample/],
];

describe('another batch size', () => {
  it.each(independent)('%s', (_name, make) => {
    const full = rows(model(make(4)));
    for (const batch of [1, 2, 3]) {
      const graph = rebindBatch(model(make(4)), batch);
      verify(graph);
      expect(graph.inputs[0]!.type.shape[0]).toBe(batch);
      expect(rows(graph)).toEqual(full.slice(0, (full.length / 4) * batch));
    }
    expect(rows(rebindBatch(rebindBatch(model(make(4)), 6), 2))).toEqual(full.slice(0, full.length / 2));
  });
  it.each(independent)('of a graph for one sample: %s', (_name, make) => {
    const graph = rebindBatch(model(make(1)), 4);
    verify(graph);
    expect(rows(graph)).toEqual(rows(model(make(4))));
    expect(rows(rebindBatch(graph, 3))).toEqual(rows(model(make(3))));
  });
  it('samples of two rows have another batch size, but no place when they are merged from one', () => {
    const two = (n: number): Graph => model((b, _weight, input) => b.reshape(input('x', [n, 6]), [2 * n, 3]));
    expect(rows(rebindBatch(two(4), 3))).toEqual(rows(two(3)));
    expect(() => rebindBatch(two(1), 3)).toThrow(/samples of the output "out" do not stand on its first axis/);
  });
  it.each(mixing)('is refused for %s', (_name, make, message) => expect(() => rebindBatch(model(make), 2)).toThrow(message));
  it.skipIf(absent).each(['mlp-sgd', 'convnet-gc-sgd', 'resnet-gn-adam', 'transformer-adamw', 'nfnet-agc', 'unet-mse'])(absent ? '%s (skipped: ../shared/goldens is not there)' : 'gives each sample of the golden %s the numbers that it has in a part of the batch', async (name) => {
    const c = await readCase(join(root, name));
    const { shape, dtype, data } = c.data.get('x')!;
    const [batch, ...sample] = shape as [number, ...number[]];
    const size = sizeOf(sample);
    const { graph } = importModel(c.model, { shapes: { x: [batch, ...sample] } });
    const [x] = graph.inputs;
    const of = (g: Graph, from: number, n: number): number[][] => [...evaluate(g, { [x!.name!]: { dtype, shape: [n, ...sample], data: data.slice(from * size, (from + n) * size) } }).outputs.values()].map(numbers);
    const whole = of(graph, 0, batch);
    const part = rebindBatch(graph, 1);
    for (let i = 0; i < batch; i++) {
      of(part, i, 1).forEach((xs, k) => xs.forEach((v, at) => expect(v, `sample ${i}`).toBeCloseTo(whole[k]![i * xs.length + at]!, 5)));
    }
  });
  it('keeps means over samples means', () => {
    const graph = model((b, _weight, input) => {
      const x = input('x', [4, 3]);
      const [m, m2] = b.op('moments', [x], { axes: [0] }) as [Value, Value];
      return b.add(b.mul(b.sub(x, m), b.unary('rsqrt', b.div(m2, 4))), b.div(b.reduce('reduceSum', x, [0]), 4));
    });
    const xs = [[1, 2], [3, 5], [-2, 7]].map((c) => c);
    const out = evaluate(rebindBatch(graph, 2), { x: tensor([2, 3], [1, 3, -2, 2, 5, 7]) }).outputs.get('out')!;
    xs.forEach(([p, q], k) => {
      const mean = (p! + q!) / 2;
      expect(out.data[k]).toBeCloseTo((p! - mean) / (Math.abs(p! - q!) / 2) + mean, 12);
    });
  });
});

describe('parts of a batch', () => {
  it.each(independent)('give the numbers of the whole: %s', (_, make) => {
    const whole = model(make(4));
    const parts = computeInParts(whole, 2);
    verify(parts);
    expect(parts.ops.some((op) => op.name === 'loop')).toBe(true);
    expect(rows(parts)).toEqual(rows(whole));
  });
  it.each(mixing)('are refused where samples meet: %s', (_, make, message) => expect(() => computeInParts(model(make), 2)).toThrow(message));
  it('have to divide it', () => expect(() => computeInParts(model(independent[0]![1](4)), 3)).toThrow(/a batch of 4 does not divide into parts of 3/));
});

describe('micro-batches', () => {
  const optimizer = { kind: 'sgd', momentum: 0.9, clipNorm: 0.1 } as const;
  const loss = { kind: 'crossEntropy', ignoreIndex: 1, labelSmoothing: 0.1 } as const;
  const inputs = { x: tensor([6, 4], spread(24)), y: tensor([6], [0, 2, 1, 1, 2, 0], 'i64') };
  const both = (graph: Graph, more = {}): { whole: ReturnType<typeof train>; parts: ReturnType<typeof train> } => ({
    whole: train(graph, { optimizer, loss }, 3, 0.25, () => inputs),
    parts: train(graph, { optimizer, loss, microBatch: 2, ...more }, 3, 0.25, () => inputs),
  });
  function expectSame(a: ReadonlyMap<string, readonly number[]>, b: ReadonlyMap<string, readonly number[]>): void {
    expect([...b.keys()].sort()).toEqual([...a.keys()].sort());
    for (const [name, xs] of a) xs.forEach((x, i) => expect(b.get(name)![i], `${name}[${i}]`).toBeCloseTo(x, 9));
  }

  it('add up to the whole batch, with dropout and what depends on parameters alone', () => {
    const graph = model((b, weight, input) => {
      const w = weight('w', [4, 3], spread(12));
      const [m] = b.op('moments', [w], { axes: [0] }) as [Value, Value];
      const y = b.contract('nk,ko->no', b.unary('tanh', input('x', [6, 4])), b.mul(b.sub(w, m), weight('gain', [3], [1, 2, 0.5])));
      const keep = b.binary('ge', b.one('randomUniform', [b.scalar(7n, 'i64')], { shape: [6, 3], stream: 3 }), 0.5);
      return b.select(keep, b.mul(b.add(y, weight('bias', [3], [0.1, 0, 0])), 2), 0);
    });
    const { whole, parts } = both(graph);
    whole.outputs.forEach((o, k) => expectSame(o, parts.outputs[k]!));
    whole.states.forEach((s, k) => expectSame(s, parts.states[k]!));
    expect(parts.step.graph.ops.filter((op) => op.name === 'loop')).toHaveLength(1);
  });

  const batchNorm = (): Graph => model((b, weight, input) => {
    const y = b.contract('nk,ko->no', input('x', [6, 4]), weight('w', [4, 3], spread(12)));
    const [m, m2] = b.op('moments', [y], { axes: [0] }) as [Value, Value];
    return b.mul(b.sub(y, m), b.unary('rsqrt', b.add(b.div(m2, 6), 1e-3)));
  });
  it('of a batch norm are refused by its name, and differ where they are allowed', () => {
    expect(() => both(batchNorm())).toThrow(/op moments joins the samples of a batch/);
    const { whole, parts } = both(batchNorm(), { joinWithinMicroBatch: true });
    expect(Math.abs(whole.outputs[0]!.get('loss')![0]! - parts.outputs[0]!.get('loss')![0]!)).toBeGreaterThan(1e-3);
  });
  it('have to divide the batch', () => expect(() => train(batchNorm(), { optimizer, loss, microBatch: 4, joinWithinMicroBatch: true }, 1, 1, () => inputs)).toThrow(/a batch of 6 does not divide into micro-batches of 4/));

  it.skipIf(absent).each(['transformer-adamw', 'nfnet-agc', 'unet-mse'])(absent ? '%s (skipped: ../shared/goldens is not there)' : 'give the numbers of the golden %s', async (name) => {
    const c = await readCase(join(root, name));
    const imported = importModel(c.model, { shapes: { x: c.data.get('x')!.shape } });
    const step = trainingStep(imported.graph, imported.statistics, { loss: c.loss, optimizer: c.optimizer, gradients: true, microBatch: 2 }, testTarget, { verify: true });
    expect((await runGolden(c, () => onReference(step))).problems).toEqual([]);
  });
});
