/** Update rules against closed forms: what they do where the gradient is constant, zero or known. Learning rates are powers of two, exact in f32. */
import { describe, expect, it } from 'vitest';
import type { OptimizerSpec } from '../passes/train/options.ts';
import { optimizerNamed } from '../passes/train/named-optimizers.ts';
import { linear, model, tensor, train, type Trained } from './train-harness.ts';

const w0 = [0.5, -2, 3];
const g = [0.3, -0.7, 1.1];
const rate = 2 ** -4;
const norm = (xs: readonly number[]): number => Math.hypot(...xs);

/** Steps on Σ w · x with a gradient that stays the same. */
const constant = (optimizer: OptimizerSpec, steps: number, gradient = g, weight = w0): Trained => train(linear([weight.length], weight), { optimizer }, steps, rate, () => ({ x: tensor([gradient.length], gradient) }));
const weights = (t: Trained): readonly number[] => t.states.at(-1)!.get('w')!;

function expectClose(got: readonly number[], want: readonly number[], digits = 12): void {
  expect(got.length).toBe(want.length);
  got.forEach((x, i) => expect(x, `element ${i}`).toBeCloseTo(want[i]!, digits));
}

describe('with a constant gradient', () => {
  const sum = (n: number, f: (t: number) => number): number => Array.from({ length: n }, (_, i) => f(i + 1)).reduce((a, b) => a + b, 0);
  const cases: readonly [string, OptimizerSpec, (t: number, i: number) => number][] = [
    ['SGD moves by the gradient', { kind: 'sgd' }, (_t, i) => g[i]!],
    ['momentum approaches 1 / (1 - m) times the gradient', { kind: 'sgd', momentum: 0.9 }, (t, i) => g[i]! * ((1 - 0.9 ** t) / 0.1)],
    ['Nesterov momentum is one step ahead', { kind: 'sgd', momentum: 0.9, nesterov: true }, (t, i) => g[i]! * ((1 - 0.9 ** (t + 1)) / 0.1)],
    ['dampening spares the first gradient', { kind: 'sgd', momentum: 0.5, dampening: 0.5 }, (_t, i) => g[i]!],
    ['Adam moves by the sign of the gradient', { kind: 'adam', eps: 0 }, (_t, i) => Math.sign(g[i]!)],
    ['AdamW without decay is Adam', { kind: 'adamw', eps: 0 }, (_t, i) => Math.sign(g[i]!)],
    ['Adagrad slows down with √t', { kind: 'adagrad', eps: 0 }, (t, i) => Math.sign(g[i]!) / Math.sqrt(t)],
    ['Adagrad divides the rate by 1 + (t - 1) · lrDecay', { kind: 'adagrad', eps: 0, lrDecay: 0.5 }, (t, i) => Math.sign(g[i]!) / Math.sqrt(t) / (1 + (t - 1) * 0.5)],
    ['RMSProp starts larger and tends to the sign', { kind: 'rmsprop', eps: 0, alpha: 0.9 }, (t, i) => Math.sign(g[i]!) / Math.sqrt(1 - 0.9 ** t)],
  ];
  it.each(cases)('%s', (_name, spec, step) => {
    for (const t of [1, 2, 5]) expectClose(weights(constant(spec, t)), w0.map((w, i) => w - rate * sum(t, (k) => step(k, i))), 9);
  });

  it('LARS moves by trust · |w| along the gradient', () => expectClose(weights(constant({ kind: 'lars', momentum: 0, trust: 0.02 }, 1)), w0.map((w, i) => w - (rate * 0.02 * norm(w0) * g[i]!) / (norm(g) + 1e-8))));
  it('LAMB moves by |w| · rate', () => {
    const after = weights(constant({ kind: 'lamb', eps: 0 }, 1));
    expect(norm(after.map((x, i) => x - w0[i]!))).toBeCloseTo(rate * norm(w0), 9);
  });
  it('the authors of GC correct the bias of the whole AdamW step', () => {
    const [c1, c2] = [0.1, 0.001];
    const want = w0.map((w, i) => w - ((rate * Math.sqrt(c2)) / c1) * (0.1 * w + (c1 * g[i]!) / (Math.sqrt(c2) * Math.abs(g[i]!))));
    expectClose(weights(constant({ kind: 'adamw', rule: 'gc-author', weightDecay: 0.1, eps: 0 }, 1)), want, 9);
  });
});

describe('weight decay without a gradient', () => {
  const zero = [0, 0, 0];
  it('of SGDW shrinks by rate · decay', () => expectClose(weights(constant({ kind: 'sgdw', weightDecay: 0.5 }, 3, zero)), w0.map((w) => w * (1 - rate * 0.5) ** 3)));
  it('of SGD passes through momentum', () => expectClose(weights(constant({ kind: 'sgd', weightDecay: 0.5 }, 2, zero)), w0.map((w) => w * (1 - rate * 0.5) ** 2)));
  it('of AdamW shrinks by rate · decay, unlike that of Adam', () => {
    expectClose(weights(constant({ kind: 'adamw', weightDecay: 0.5 }, 3, zero)), w0.map((w) => w * (1 - rate * 0.5) ** 3));
    expectClose(weights(constant({ kind: 'adam', weightDecay: 0.5, eps: 0 }, 1, zero)), w0.map((w) => w - rate * Math.sign(w)), 9);
  });
  it('leaves out what matches noDecay', () => expectClose(weights(constant({ kind: 'sgd', weightDecay: 0.5, noDecay: ['*w'] }, 2, zero)), w0));
});

describe('clipping', () => {
  it('by norm scales to the norm', () => expectClose(weights(constant({ kind: 'sgd', clipNorm: 0.5 }, 1)), w0.map((w, i) => w - (rate * 0.5 * g[i]!) / (norm(g) + 1e-6)), 7));
  it('by norm leaves smaller gradients alone', () => expectClose(weights(constant({ kind: 'sgd', clipNorm: 50 }, 1)), w0.map((w, i) => w - rate * g[i]!)));
  it('by value cuts elements', () => expectClose(weights(constant({ kind: 'sgd', clipValue: 0.5 }, 1)), [0.5 - rate * 0.3, -2 + rate * 0.5, 3 - rate * 0.5]));

  /** Rows of w are units; the gradient of row o is x[o]. */
  const rows = (w: readonly number[]): ReturnType<typeof model> => model((b, weight, input) => {
    const y = b.contract('nk,ok->no', input('x', [2, 2]), weight('w', [2, 2], w));
    const mask = b.constant(tensor([2, 2], [1, 0, 0, 1]));
    return b.reduce('reduceSum', b.mul(y, mask), [0, 1]);
  });
  it('adaptively gives the values of the paper’s rule', () => {
    const x = tensor([2, 2], [0.06, 0.08, 1e-4, 0]);
    const run = (exclude: readonly string[]): readonly number[] => weights(train(rows([3, 4, 1e-4, 0]), { optimizer: { kind: 'sgd', agc: { lambda: 0.01, exclude } } }, 1, 1, () => ({ x })));
    expectClose(run([]), [3 - 0.03, 4 - 0.04, 1e-4 - 1e-5, 0], 10);
    expectClose(run(['w']), [3 - 0.06, 4 - 0.08, 0, 0], 10);
  });
  it('adaptively spares the last linear layer unless told otherwise', () => {
    const x = tensor([2, 2], [6, 8, 1, 1]);
    expectClose(weights(train(rows([3, 4, 1, 0]), { optimizer: { kind: 'sgd', agc: { lambda: 0.01 } } }, 1, 1, () => ({ x }))), [-3, -4, 0, -1], 10);
  });
});

describe('gradient centralization', () => {
  const w = [1, 2, 6, -1, 0, 4];
  const net = model((b, weight, input) => b.reduce('reduceSum', b.mul(b.contract('nk,ok->no', input('x', [4, 3]), weight('w', [2, 3], w)), input('t', [4, 2])), [0, 1]));
  const inputs = (k: number): Record<string, ReturnType<typeof tensor>> => ({
    x: tensor([4, 3], Array.from({ length: 12 }, (_, i) => Math.sin(i + k))),
    t: tensor([4, 2], Array.from({ length: 8 }, (_, i) => Math.cos(2 * i + k))),
  });
  const means = (xs: readonly number[]): number[] => [(xs[0]! + xs[1]! + xs[2]!) / 3, (xs[3]! + xs[4]! + xs[5]!) / 3];

  it.each([['SGD_GC', { momentum: 0.9, weightDecay: 0.1 }], ['Adam_GC2', {}], ['AdamW_GC2', { weightDecay: 0.1 }]])('%s keeps the mean of each unit', (name, more) => {
    const after = train(net, { optimizer: { ...optimizerNamed(name), ...more } }, 5, rate, inputs);
    expectClose(means(weights(after)), means(w), 9);
    expect(weights(after)[0]).not.toBeCloseTo(w[0]!, 3);
  });
  it('of convolutions alone leaves a linear layer as it is', () => {
    const plain = weights(train(net, { optimizer: { kind: 'sgd' } }, 3, rate, inputs));
    expectClose(weights(train(net, { optimizer: { kind: 'sgd', gc: { convOnly: true } } }, 3, rate, inputs)), plain);
    expectClose(weights(train(net, { optimizer: { ...optimizerNamed('SGD_GCC'), kind: 'sgd' } }, 3, rate, inputs)), plain);
  });
  it('refuses names that nobody has given', () => expect(() => optimizerNamed('SGD_GX')).toThrow(/no optimizer "SGD_GX"/));
});

describe('around the rule', () => {
  it('a moving average follows the parameter', () => {
    const t = constant({ kind: 'sgd', ema: 0.75 }, 2);
    const [a, b] = [w0.map((w, i) => w - rate * g[i]!), w0.map((w, i) => w - 2 * rate * g[i]!)];
    expectClose(t.states.at(-1)!.get('w.average')!, w0.map((w, i) => 0.75 * (0.75 * w + 0.25 * a[i]!) + 0.25 * b[i]!));
  });
  it('SAM takes the gradient uphill: that of a·w²/2 at w + r·sign(w)', () => {
    const square = model((b, weight) => {
      const v = weight('w', [1], [2]);
      return b.reduce('reduceSum', b.mul(b.mul(v, v), 0.5 * 3), [0]);
    });
    const t = train(square, { optimizer: { kind: 'sgd', sam: 0.25 } }, 1, rate, () => ({}));
    expectClose(weights(t), [2 - rate * 3 * 2.25], 7);
    expectClose(t.outputs[0]!.get('w.grad')!, [6]);
    expectClose(t.outputs[0]!.get('loss')!, [6]);
  });
  it('frozen parameters stay', () => {
    const two = model((b, weight, input) => b.reduce('reduceSum', b.mul(b.add(weight('a.w', [2], [1, 2]), weight('b.w', [2], [3, 4])), input('x', [2])), [0]));
    const t = train(two, { optimizer: { kind: 'sgd' }, freeze: ['a.*'] }, 1, rate, () => ({ x: tensor([2], [1, 1]) }));
    expect([...t.outputs[0]!.keys()].filter((k) => k.endsWith('.grad'))).toEqual(['b.w.grad']);
  });
  it('refuses numbers that make no sense', () => expect(() => constant({ kind: 'sgd', momentum: 1.5 }, 1)).toThrow(/momentum is 1.5, expected a number from 0/));
});
