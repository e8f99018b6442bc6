/** Proxy Norm's moments against the values that methods for it give, and against closed forms. */
import { describe, expect, it } from 'vitest';
import { Builder } from '../ir/builder.ts';
import { evaluate } from '../ir/evaluate.ts';
import type { Value } from '../ir/graph.ts';
import { gaussianQuantiles, proxyMoments } from '../passes/norm/proxy.ts';
import { numbers, tensor } from './train-harness.ts';

type Activation = (b: Builder, u: Value) => Value;
const activations: Readonly<Record<string, Activation>> = {
  identity: (b, u) => b.mul(u, 1),
  relu: (b, u) => b.unary('relu', u),
  silu: (b, u) => b.mul(u, b.unary('sigmoid', u)),
  gelu: (b, u) => b.mul(b.mul(u, b.add(b.unary('erf', b.div(u, Math.SQRT2)), 1)), 0.5),
  tanh: (b, u) => b.unary('tanh', u),
};

/** Mean and scale for one channel, computed in f64. */
function proxy(activation: string, [gamma, beta, proxyGamma, proxyBeta]: readonly [number, number, number, number], samples = 200): { readonly mean: number; readonly scale: number } {
  const b = new Builder('proxy');
  const one = (x: number): Value => b.constant(tensor([1], [x]));
  const { mean, scale } = proxyMoments(b, { gamma: one(gamma), beta: one(beta), proxyGamma: one(proxyGamma), proxyBeta: one(proxyBeta), samples, epsilon: 0.03 }, 4, (u) => activations[activation]!(b, u));
  const { outputs } = evaluate(b.finish([{ name: 'm', value: mean }, { name: 's', value: scale }]), {});
  return { mean: numbers(outputs.get('m')!)[0]!, scale: numbers(outputs.get('s')!)[0]! };
}

describe('proxy moments', () => {
  // activation, (γ, β, γ̃, β̃), samples, mean, variance, scale
  it.each([
    ['identity', [1, 0, 0, 0], 200, 0, 0.993596224, 0.988406659],
    ['relu', [1, 0, 0, 0], 200, 0.398451173, 0.338034774, 1.648373304],
    ['silu', [1, 0, 0, 0], 200, 0.206048365, 0.31000364, 1.714976672],
    ['gelu', [1, 0, 0, 0], 200, 0.281594782, 0.342705357, 1.63801239],
    ['tanh', [1, 0, 0, 0], 200, 0, 0.394282285, 1.535226826],
    ['relu', [1.3, -0.4, 0.1, 0.2], 200, 0.502515206, 0.613387093, 1.246705364],
    ['silu', [1.3, -0.4, 0.1, 0.2], 200, 0.301451159, 0.599534707, 1.260347084],
    ['relu', [0.5, 1, -0.2, -0.3], 200, 0.852211631, 0.15475217, 2.326511618],
    ['silu', [0.5, 1, -0.2, -0.3], 200, 0.622795299, 0.118332419, 2.596461935],
    ['relu', [-0.8, 0.25, 0, 0], 200, 0.459213417, 0.300287938, 1.740017609],
    ['silu', [-0.8, 0.25, 0, 0], 200, 0.276831996, 0.256178953, 1.869309248],
    ['relu', [1, 0, 0, 0], 256, 0.398565233, 0.338637175, 1.647025926],
  ] as const)('%s at %j with %i samples', (activation, at, samples, mean, variance, scale) => {
    const got = proxy(activation, at, samples);
    expect(got.mean).toBeCloseTo(mean, 8);
    expect(got.scale).toBeCloseTo(scale, 8);
    expect(1 / got.scale ** 2 - 0.03).toBeCloseTo(variance, 8);
  });

  it('approaches the Gaussian integral: ReLU of a standard normal', () => {
    const { mean, scale } = proxy('relu', [1, 0, 0, 0], 20000);
    expect(mean).toBeCloseTo(1 / Math.sqrt(2 * Math.PI), 4);
    expect(1 / scale ** 2 - 0.03).toBeCloseTo(0.5 - 1 / (2 * Math.PI), 4);
  });

  it('of a dead channel is bounded by its epsilon', () => expect(proxy('relu', [0.1, -3, 0, 0]).scale).toBeCloseTo(1 / Math.sqrt(0.03), 6));
});

describe('Gaussian quantiles', () => {
  it.each([[200, 2.80703377], [256, 2.88563491]])('the largest of %i', (count, z) => expect(numbers(gaussianQuantiles(count, 1)).at(-1)).toBeCloseTo(z, 8));
  it('of four samples', () => expect(numbers(gaussianQuantiles(4, 2)).map((z) => Number(z.toFixed(8)))).toEqual([-1.15034938, -0.31863936, 0.31863936, 1.15034938]));
  it('need two samples', () => expect(() => gaussianQuantiles(1, 1)).toThrow(/at least 2/));
});
