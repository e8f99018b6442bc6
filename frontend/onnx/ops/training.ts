/** The optimizers of ai.onnx.preview.training: one step for several tensors at once. */
import type { Builder } from '../../../ir/builder.ts';
import type { Value } from '../../../ir/graph.ts';
import type { LowerContext, LoweringTable } from '../lowering.ts';
import { range, refusal, row } from './helpers.ts';

/** Calls `step` for each optimized tensor with its row of inputs (X, G, …) and returns the outputs grouped by kind, as ONNX lists them. */
function forEachTensor(cx: LowerContext, kinds: number, step: (inputs: readonly Value[]) => readonly Value[]): Value[] {
  const count = (cx.node.inputs.length - 2) / kinds;
  if (!Number.isInteger(count)) cx.bad(`${cx.node.inputs.length} inputs: expected R, T and ${kinds} for each tensor`);
  const results = range(count).map((i) => step(range(kinds).map((k) => cx.input(2 + k * count + i))));
  return range(results[0]?.length ?? 0).flatMap((k) => results.map((r) => r[k]!));
}

const regularized = (b: Builder, x: Value, g: Value, norm: number): Value => (norm === 0 ? g : b.add(b.mul(x, norm), g));
/** The update count as a float of the learning rate's dtype. */
const count = (cx: LowerContext): Value => cx.b.cast(cx.input(1), cx.input(0).type.dtype);
const isLater = (cx: LowerContext): Value => cx.b.binary('gt', cx.input(1), 0);

function adagrad(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const rate = b.div(cx.input(0), b.add(b.mul(count(cx), node.attrs.float('decay_factor', 0)), 1));
  return forEachTensor(cx, 3, ([x, g, h]) => {
    const gradient = regularized(b, x!, g!, node.attrs.float('norm_coefficient', 0));
    const squares = b.add(h!, b.mul(gradient, gradient));
    return [b.sub(x!, b.div(b.mul(gradient, rate), b.add(b.unary('sqrt', squares), node.attrs.float('epsilon', 0)))), squares];
  });
}

function adam(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const { attrs } = node;
  const [alpha, beta] = [attrs.float('alpha', 0.9), attrs.float('beta', 0.999)];
  const remaining = (base: number): Value => b.sub(1, b.pow(base, count(cx)));
  const rate = b.select(isLater(cx), b.div(b.mul(cx.input(0), b.unary('sqrt', remaining(beta))), remaining(alpha)), cx.input(0));
  return forEachTensor(cx, 4, ([x, g, v, h]) => {
    const gradient = regularized(b, x!, g!, attrs.float('norm_coefficient', 0));
    const first = b.add(b.mul(v!, alpha), b.mul(gradient, 1 - alpha));
    const second = b.add(b.mul(h!, beta), b.mul(b.mul(gradient, gradient), 1 - beta));
    const next = b.sub(x!, b.div(b.mul(first, rate), b.add(b.unary('sqrt', second), attrs.float('epsilon', 0))));
    const post = attrs.float('norm_coefficient_post', 0);
    return [post === 0 ? next : b.mul(next, 1 - post), first, second];
  });
}

function momentum(cx: LowerContext): Value[] {
  const { b, node } = cx;
  const { attrs } = node;
  const mode = attrs.string('mode');
  if (mode !== 'standard' && mode !== 'nesterov') cx.bad(`mode is "${mode}": expected standard or nesterov`);
  const alpha = attrs.float('alpha');
  const scale = b.select(isLater(cx), b.scalar(attrs.float('beta'), cx.input(0).type.dtype), 1);
  return forEachTensor(cx, 3, ([x, g, v]) => {
    const gradient = regularized(b, x!, g!, attrs.float('norm_coefficient'));
    const velocity = b.add(b.mul(v!, alpha), b.mul(gradient, scale));
    const direction = mode === 'standard' ? velocity : b.add(gradient, b.mul(velocity, alpha));
    return [b.sub(x!, b.mul(direction, cx.input(0))), velocity];
  });
}

export const trainingOps: LoweringTable = {
  'ai.onnx.preview.training:Adagrad': [row(1, [3, Infinity], adagrad, [1, Infinity])],
  'ai.onnx.preview.training:Adam': [row(1, [3, Infinity], adam, [1, Infinity])],
  'ai.onnx.preview.training:Momentum': [row(1, [3, Infinity], momentum, [1, Infinity])],
  'ai.onnx.preview.training:Gradient': [refusal(1, 'gradients are made by the compiler when it trains a model, not by a node of the model')],
};
