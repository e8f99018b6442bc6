/** A batch normalization of a small tensor, and what becomes of it by plain loops. */
import { expect } from 'vitest';
import { importModel } from '../frontend/index.ts';
import { evaluate } from '../ir/evaluate.ts';
import { erf } from '../ir/ops/elementwise/special.ts';
import { verify } from '../ir/verify.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms, type RewriteResult } from '../passes/norm/rewrite-norms.ts';
import { testTarget } from './ir/target.ts';
import { f32 } from './lowering-harness.ts';
import { encodeModel, floats, node, value, type TestNode } from './onnx-encode.ts';
import { numbers, spread } from './train-harness.ts';

export const [n, c, h] = [3, 4, 5];
const size = n * c * h;
export const gamma = [1.2, -0.7, 0.5, 2];
export const beta = [0.3, 0.1, -0.5, 0];
export const mean = [0.1, -0.2, 0, 0.4];
export const variance = [0.5, 1, 2, 0.25];
const slope = [0.1, 0.25, -0.3, 0.5];
export const x = spread(size, 2, 0.4);

/** x -> BatchNormalization "bn" -> the given nodes -> y. */
export function batchNormModel(after: readonly TestNode[], { training = false, epsilon = 1e-5, opset = 21 } = {}): Uint8Array {
  const outputs = training ? ['u', 'm', 'v'] : ['u'];
  return encodeModel({
    opsets: { '': opset },
    nodes: [node('BatchNormalization', ['x', 'n.weight', 'n.bias', 'n.mean', 'n.var'], outputs, { epsilon: { float: epsilon }, ...(training && { training_mode: 1 }) }, { name: 'bn' }), ...after],
    initializers: [floats('n.weight', [c], gamma), floats('n.bias', [c], beta), floats('n.mean', [c], mean), floats('n.var', [c], variance), floats('slope', [c, 1], slope), floats('half', [], [0.5]), floats('one', [], [1]), floats('root', [], [Math.SQRT2]), floats('lo', [], [-0.5]), floats('hi', [], [0.75])],
    inputs: [value('x', 'f32', ['n', c, h])],
    outputs: [value('y', 'f32')],
  });
}

/** An activation as ONNX nodes from u to y, and as a function of value and channel. */
export const activations: Readonly<Record<string, { readonly nodes: readonly TestNode[]; readonly f: (u: number, channel: number) => number }>> = {
  relu: { nodes: [node('Relu', ['u'], ['y'])], f: (u) => Math.max(u, 0) },
  silu: { nodes: [node('Sigmoid', ['u'], ['s']), node('Mul', ['u', 's'], ['y'])], f: (u) => u / (1 + Math.exp(-u)) },
  gelu: { nodes: [node('Div', ['u', 'root'], ['a']), node('Erf', ['a'], ['b']), node('Add', ['b', 'one'], ['d']), node('Mul', ['u', 'd'], ['e']), node('Mul', ['e', 'half'], ['y'])], f: (u) => 0.5 * u * (1 + erf(u / Math.SQRT2)) },
  hardSwish: { nodes: [node('HardSwish', ['u'], ['y'])], f: (u) => u * Math.min(Math.max(u / 6 + 0.5, 0), 1) },
  clip: { nodes: [node('Clip', ['u', 'lo', 'hi'], ['y'])], f: (u) => Math.min(Math.max(u, -0.5), 0.75) },
  pRelu: { nodes: [node('PRelu', ['u', 'slope'], ['y'])], f: (u, k) => (u < 0 ? slope[k]! * u : u) },
};

/** Normal quantiles by Newton's method on the distribution function. */
function quantile(p: number): number {
  let z = 0;
  for (let i = 0; i < 100; i++) z -= (0.5 * (1 + erf(z / Math.SQRT2)) - p) / Math.max(Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI), 0.05);
  return z;
}

export interface Wanted { readonly groups: number; readonly epsilon?: number; readonly f?: (u: number, channel: number) => number; readonly proxy?: boolean; readonly samples?: number; readonly gamma?: readonly number[]; readonly beta?: readonly number[] }

/** What becomes of `x`: group norm, affine, activation and Proxy Norm with a proxy of mean 0 and deviation 1. */
export function expected({ groups, epsilon = 1e-3, f = (u) => u, proxy = false, samples = 200, gamma: scale = gamma, beta: shift = beta }: Wanted): number[] {
  const per = (c / groups) * h;
  return x.map((v, i) => {
    const channel = Math.floor(i / h) % c;
    const from = i - (i % per);
    const group = x.slice(from, from + per);
    const m = group.reduce((a, b) => a + b) / per;
    const s = group.reduce((a, b) => a + (b - m) ** 2, 0) / per;
    const out = f((scale[channel]! * (v - m)) / Math.sqrt(s + epsilon) + shift[channel]!, channel);
    if (!proxy) return out;
    const values = Array.from({ length: samples }, (_, k) => f(scale[channel]! * quantile((k + 0.5) / samples) + shift[channel]!, channel));
    const centre = values.reduce((a, b) => a + b) / samples;
    const spreadOf = values.reduce((a, b) => a + (b - centre) ** 2, 0) / samples;
    return (out - centre) / Math.sqrt(spreadOf + 0.03);
  });
}

/** The model with rewritten norms, verified, for `n` samples. */
export const rewrite = (bytes: Uint8Array, norm: string): RewriteResult => {
  const result = rewriteNorms(importModel(bytes, { dims: { n } }), parseNorm(norm), testTarget);
  verify(result.graph);
  return result;
};
/** Its output for `x`. */
export const outputOf = ({ graph }: Pick<RewriteResult, 'graph'>): number[] => numbers(evaluate(graph, { x: f32([n, c, h], x) }).outputs.get('y')!);
export const close = (got: readonly number[], want: readonly number[]): void => want.forEach((w, i) => expect(got[i]).toBeCloseTo(w, 5));
