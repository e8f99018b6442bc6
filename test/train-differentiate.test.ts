/** Gradients of whole graphs against central differences, and what cannot be differentiated. */
import { describe, expect, it } from 'vitest';

import type { Graph, Value } from '../ir/graph.ts';
import type { LossSpec } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { testTarget } from './ir/target.ts';
import { checkGradients, linear, model, spread, tensor, train } from './train-harness.ts';

describe('gradients of graphs', () => {
  it('sum over all uses of a tied weight', () => {
    checkGradients(model((b, weight, input) => {
      const w = weight('w', [3, 3], spread(9));
      const h = b.unary('tanh', b.contract('nk,kh->nh', input('x', [2, 3]), w));
      const y = b.contract('nh,kh->nk', h, w);
      return b.reduce('reduceSum', b.mul(y, y), [0, 1]);
    }), { x: tensor([2, 3], spread(6)) });
  });
  it('sum over what a parameter is broadcast to', () => {
    checkGradients(model((b, weight, input) => {
      const y = b.mul(b.add(input('x', [2, 3, 4]), weight('bias', [3, 1], spread(3))), weight('block.gain', [], [0.7]));
      return b.reduce('reduceSum', b.mul(y, b.unary('sigmoid', y)), [0, 1, 2]);
    }), { x: tensor([2, 3, 4], spread(24)) });
  });
  it('pass a standardized, scaled, transposed weight', () => {
    checkGradients(model((b, weight, input) => {
      const w = weight('w', [3, 4], spread(12));
      const [m, m2] = b.op('moments', [w], { axes: [1] }) as [Value, Value];
      const column = (v: Value): Value => b.reshape(v, [3, 1]);
      const unit = b.mul(b.mul(b.sub(w, column(m)), b.unary('rsqrt', b.add(column(m2), 0.1))), weight('gain', [3, 1], [1, 2, 3]));
      const y = b.contract('nk,ko->no', input('x', [2, 4]), b.transpose(unit, [1, 0]));
      return b.reduce('reduceSum', b.mul(y, y), [0, 1]);
    }), { x: tensor([2, 4], spread(8)) });
  });
  it('pass convolution, batch statistics, relu and max pool', () => {
    checkGradients(model((b, weight, input) => {
      const c = b.one('conv', [input('x', [2, 2, 6, 6]), weight('w', [3, 2, 3, 3], spread(54, 0.5))], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1] });
      const [m, m2] = b.op('moments', [c], { axes: [0, 2, 3] }) as [Value, Value];
      const channel = (v: Value): Value => b.reshape(v, [1, 3, 1, 1]);
      const y = b.unary('relu', b.add(b.mul(b.mul(b.sub(c, channel(m)), b.unary('rsqrt', b.add(b.div(channel(m2), 72), 1e-3))), channel(weight('gain', [3], [1, 0.5, 2]))), channel(weight('bias', [3], [0.1, 0.2, -0.1]))));
      const [p] = b.op('maxPool', [y], { kernel: [2, 2], strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1] });
      return b.reduce('reduceSum', b.mul(p!, b.unary('tanh', p!)), [0, 1, 2, 3]);
    }), { x: tensor([2, 2, 6, 6], spread(144)) });
  });
});

it('values of gradients are named after their parameters', () => {
  const { step } = train(linear([2], [1, 2]), { optimizer: { kind: 'sgd' } }, 1, 0, () => ({ x: tensor([2], [3, 4]) }));
  expect(step.graph.outputs.find((o) => o.name === 'w.grad')?.value.name).toBe('w.grad');
});

describe('what has no gradient', () => {
  const step = (graph: Graph): unknown => trainingStep(graph, [], { loss: { kind: 'output', name: 'out' }, optimizer: { kind: 'sgd' } }, testTarget);
  it('is an error that names the op where nothing else leads to the parameter', () => {
    const graph = model((b, weight, input) => b.reduce('reduceSum', b.mul(b.unary('floor', weight('w', [2], [1.5, 2.5])), input('x', [2])), [0]));
    expect(() => step(graph)).toThrow(/gradient of "w" would have to pass op floor, which has none \(piecewise constant\); freeze "w"/);
  });
  it('adds nothing where the gradient has another way', () => {
    const graph = model((b, weight, input) => {
      const w = weight('w', [2], [1.5, 2.5]);
      return b.reduce('reduceSum', b.mul(b.sub(w, b.unary('floor', w)), input('x', [2])), [0]);
    });
    const { outputs } = train(graph, { optimizer: { kind: 'sgd' } }, 1, 1, () => ({ x: tensor([2], [3, 4]) }));
    expect(outputs[0]!.get('w.grad')).toEqual([3, 4]);
  });
  it('is not asked of parameters that the loss does not need', () => {
    const graph = model((b, weight, input) => {
      weight('unused', [1], [1]);
      return b.reduce('reduceSum', b.mul(weight('w', [2], [1, 2]), input('x', [2])), [0]);
    });
    const { outputs } = train(graph, { optimizer: { kind: 'sgd' } }, 1, 1, () => ({ x: tensor([2], [3, 4]) }));
    expect([...outputs[0]!.keys()]).toEqual(['out', 'loss', 'w.grad']);
  });
  it('is reported where there is nothing to train', () => {
    expect(() => step(model((_b, _weight, input) => input('x', [])))).toThrow(/no parameters to train/);
  });
});

describe('losses', () => {
  const x = [0.2, -1.3, 0.7, 2, 0.1, -0.4];
  const soft = (row: readonly number[]): number[] => row.map((v) => Math.log(Math.exp(v) / row.reduce((s, u) => s + Math.exp(u), 0)));
  const logp = [soft(x.slice(0, 3)), soft(x.slice(3))];
  const net = model((_b, weight) => weight('w', [2, 3], x));
  const value = (loss: LossSpec, y: ReturnType<typeof tensor>): { loss: number; grad: readonly number[] } => {
    const { outputs } = train(net, { optimizer: { kind: 'sgd' }, loss }, 1, 0, () => ({ y }));
    return { loss: outputs[0]!.get('loss')![0]!, grad: outputs[0]!.get('w.grad')! };
  };
  const ce = { kind: 'crossEntropy' } as const;
  const classes = tensor([2], [2, 0], 'i64');

  it('cross-entropy is the mean of -log p of the targets; its gradient is (p - target) / n', () => {
    const got = value(ce, classes);
    expect(got.loss).toBeCloseTo(-(logp[0]![2]! + logp[1]![0]!) / 2, 12);
    [...logp.flat()].forEach((l, i) => expect(got.grad[i]).toBeCloseTo((Math.exp(l) - (i === 2 || i === 3 ? 1 : 0)) / 2, 12));
  });
  it('smoothing mixes in the mean over classes', () => {
    const all = (row: readonly number[]): number => -row.reduce((s, v) => s + v, 0) / 3;
    expect(value({ ...ce, labelSmoothing: 0.1 }, classes).loss).toBeCloseTo((0.9 * -(logp[0]![2]! + logp[1]![0]!) + 0.1 * (all(logp[0]!) + all(logp[1]!))) / 2, 12);
  });
  it('class weights make a weighted mean', () => {
    expect(value({ ...ce, classWeights: [1, 2, 5] }, classes).loss).toBeCloseTo(-(5 * logp[0]![2]! + logp[1]![0]!) / 6, 12);
  });
  it('ignored targets count nothing, also in the divisor', () => {
    const got = value({ ...ce, ignoreIndex: -100 }, tensor([2], [2, -100], 'i64'));
    expect(got.loss).toBeCloseTo(-logp[0]![2]!, 12);
    expect(got.grad.slice(3)).toEqual([0, 0, 0]);
  });
  it('probabilities that are one-hot give the loss of the class', () => {
    expect(value({ ...ce, target: 'probabilities' }, tensor([2, 3], [0, 0, 1, 1, 0, 0])).loss).toBeCloseTo(value(ce, classes).loss, 12);
  });
  const y = [0, 1, 1, 0, 0.5, 0];
  const d = x.map((v, i) => v - y[i]!);
  it.each<[string, LossSpec, (e: number, v: number, t: number) => number, (e: number, v: number, t: number) => number]>([
    ['mse', { kind: 'mse' }, (e) => e * e, (e) => 2 * e],
    ['mae', { kind: 'mae' }, Math.abs, Math.sign],
    ['huber', { kind: 'huber', delta: 0.7 }, (e) => (Math.abs(e) <= 0.7 ? (e * e) / 2 : 0.7 * (Math.abs(e) - 0.35)), (e) => Math.max(-0.7, Math.min(0.7, e))],
    ['binary cross-entropy', { kind: 'binaryCrossEntropy' }, (_e, v, t) => Math.log(1 + Math.exp(v)) - v * t, (_e, v, t) => 1 / (1 + Math.exp(-v)) - t],
  ])('%s is a mean over elements', (_name, loss, f, slope) => {
    const got = value(loss, tensor([2, 3], y));
    expect(got.loss).toBeCloseTo(d.reduce((s, e, i) => s + f(e, x[i]!, y[i]!), 0) / 6, 12);
    d.forEach((e, i) => expect(got.grad[i]).toBeCloseTo(slope(e, x[i]!, y[i]!) / 6, 12));
  });
  it('binary cross-entropy has its slope at a logit of 0, and no overflow far out', () => {
    const far = model((_b, weight) => weight('w', [3], [0, 800, -800]));
    const { outputs } = train(far, { optimizer: { kind: 'sgd' }, loss: { kind: 'binaryCrossEntropy' } }, 1, 0, () => ({ y: tensor([3], [1, 0, 0]) }));
    expect(outputs[0]!.get('loss')![0]).toBeCloseTo((Math.LN2 + 800) / 3, 9);
    expect(outputs[0]!.get('w.grad')!.map((v) => v * 3)).toEqual([-0.5, 1, 0]);
  });
});
