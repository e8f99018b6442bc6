/** Gives the weights of convolutions and linear layers a normalization of their own. */
import { Builder, filled } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, State, Value } from '../../ir/graph.ts';
import { num, nums, str } from '../../ir/op.ts';
import { closeRegions, openRegions, placedOps } from '../../ir/regions.ts';
import { sizeOf, type Tensor } from '../../ir/type.ts';
import { gainName, knownWeightNorms } from './known-weight-norms.ts';
import { parameterValues } from './structure.ts';
import { inferUnits, unitSize, type Unit } from '../train/units.ts';

/**
 * `standardize` (Qiao et al., arXiv 1903.10520): each unit with mean 0 and variance 1. `scaled` (Brock et al., arXiv 2102.06171): divided by √fan-in too, times a gain. `weight` (Salimans and
 * Kingma, arXiv 1602.07868): a direction of length 1 times a gain. `cosine` (Luo et al., arXiv 1702.05870): the cosine of weight and input.
 */
export type WeightNorm = 'standardize' | 'scaled' | 'weight' | 'cosine';
export const weightNorms: readonly WeightNorm[] = ['standardize', 'scaled', 'weight', 'cosine'];

/** Added to the variance of `standardize`; smallest variance · fan-in of `scaled`; smallest length of `weight` and `cosine`. */
const epsilons: Readonly<Record<WeightNorm, number>> = { standardize: 1e-5, scaled: 1e-4, weight: 1e-12, cosine: 1e-8 };

export interface NormalizedWeight {
  readonly name: string;
  /** The name of the gain, where there is one. */
  readonly gain: string | undefined;
}

/**
 * Normalizes weights of convolutions (and of linear layers for `weight` and `cosine`) before they are used; a unit is what makes one output feature, as the graph uses it. Gains are new
 * parameters `NAME.gain`, shaped to broadcast to the weight: 1 for `scaled`, the lengths of the weights for `weight`, so that the function stays what it was. Weights that have the normalization already
 * stay as they are. A model without such weights is a UserError.
 */
export function normalizeWeights(graph: Graph, kind: WeightNorm): { readonly graph: Graph; readonly weights: readonly NormalizedWeight[] } {
  const { units } = inferUnits(graph);
  const known = knownWeightNorms(openRegions(graph));
  const fitting = graph.state.flatMap((s): (readonly [State, Unit])[] => {
    const unit = units.get(s.name);
    return unit && s.value.type.shape.length > 0 && (unit.kind === 'convolution' || kind === 'weight' || kind === 'cosine') && s.init !== 'zero' && !['inputs', 'gain'].includes(known(s) ?? '') ? [[s, unit]] : [];
  });
  const wanted = new Map(fitting.filter(([s]) => known(s) !== kind));
  if (wanted.size === 0 && fitting.length > 0) return { graph, weights: [] };
  if (wanted.size === 0) throw new UserError(`the model has no weights of convolutions${kind === 'weight' || kind === 'cosine' ? ' or linear layers' : ''} to normalize (${kind})`);
  const b = new Builder(graph.name);
  const added: State[] = [];
  const weights: NormalizedWeight[] = [];
  const map = new Map<Value, Value>();
  for (const [state, unit] of wanted) {
    const gain = gainOf(state, unit, kind, graph);
    if (gain) added.push(gain);
    weights.push({ name: state.name, gain: gain?.name });
    map.set(state.value, b.reshape(normalized(b, b.reshape(state.value, unit.shape), unit, kind, gain && b.reshape(gain.value, keptShape(unit))), state.value.type.shape));
  }
  const at = (v: Value): Value => map.get(v) ?? v;
  const outputsOf = (g: Graph): Graph['outputs'] => g.outputs.map((o) => ({ name: o.name, value: at(o.value) }));
  const open = openRegions(graph);
  const parameters = parameterValues(open);
  const fromWeight = movedWeights(open, new Set(map.keys()));
  rewrite(b, open.ops);
  return {
    graph: closeRegions({ ...open, ops: b.ops, state: [...graph.state, ...added], outputs: outputsOf(open), updates: open.updates.map((u) => ({ state: u.state, value: at(u.value) })) }),
    weights,
  };

  function rewrite(into: Builder, ops: readonly Op[]): void {
    for (const op of ops) {
      into.source = op.source;
      const moved: Op = op.regions.length > 0 || op.operands.some((v) => map.has(v)) ? { ...op, operands: op.operands.map(at), regions: op.regions.map(region) } : op;
      into.append(moved);
      if (kind !== 'cosine' || (op.name !== 'conv' && op.name !== 'contract')) continue;
      const side = op.operands.findIndex((v) => fromWeight.has(v));
      if (side >= 0 && !op.operands.every((v) => parameters.has(v))) map.set(op.results[0]!, into.mul(op.results[0]!, inputLengths(into, moved, side)));
    }
  }

  function region(g: Graph): Graph {
    const inner = new Builder(g.name);
    rewrite(inner, g.ops);
    return { ...g, ops: inner.ops, outputs: outputsOf(g) };
  }
}

const keptShape = (unit: Unit): number[] => unit.shape.map((d, i) => (unit.axes.includes(i) ? 1 : d));

/** w, viewed by its units, with each of them normalized. */
function normalized(b: Builder, w: Value, unit: Unit, kind: WeightNorm, gain: Value | undefined): Value {
  const kept = keptShape(unit);
  const axes = [...unit.axes];
  const epsilon = epsilons[kind];
  if (kind === 'weight' || kind === 'cosine') {
    const direction = b.div(w, b.max(b.unary('sqrt', b.reshape(b.reduce('reduceSum', b.mul(w, w), axes), kept)), epsilon));
    return gain ? b.mul(direction, gain) : direction;
  }
  const [mean, m2] = b.op('moments', [w], { axes }) as [Value, Value];
  const centred = b.sub(w, b.reshape(mean, kept));
  // Σ (w - mean)² is variance · fan-in.
  if (kind === 'scaled') return b.mul(centred, b.mul(b.unary('rsqrt', b.max(b.reshape(m2, kept), epsilon)), gain!));
  return b.mul(centred, b.unary('rsqrt', b.add(b.div(b.reshape(m2, kept), unitSize(unit)), epsilon)));
}

function gainOf({ name, value, init }: State, unit: Unit, kind: WeightNorm, graph: Graph): State | undefined {
  if (kind !== 'scaled' && kind !== 'weight') return undefined;
  const own = gainName(name);
  if (graph.state.some((s) => s.name === own)) throw new UserError(`the normalization of "${name}" needs a parameter "${own}", but the model has a weight of that name: rename the weight`);
  const shape = unit.shape.length === value.type.shape.length ? keptShape(unit) : [sizeOf(keptShape(unit))];
  const ones = filled(value.type.dtype, shape, 1);
  const start = kind === 'scaled' ? ones : lengths(init as Tensor, unit, ones);
  return { name: own, value: { type: { dtype: value.type.dtype, shape }, name: own }, init: start };
}

/** The length of each unit. */
function lengths(w: Tensor, unit: Unit, out: Tensor): Tensor {
  const squares = new Float64Array(out.data.length);
  const data = w.data as Float32Array | Float64Array;
  for (let i = 0; i < data.length; i++) {
    let rest = i;
    let at = 0;
    let stride = 1;
    for (let a = unit.shape.length - 1; a >= 0; a--) {
      const index = rest % unit.shape[a]!;
      rest = Math.floor(rest / unit.shape[a]!);
      if (unit.axes.includes(a)) continue;
      at += index * stride;
      stride *= unit.shape[a]!;
    }
    squares[at]! += data[i]! ** 2;
  }
  squares.forEach((s, i) => (out.data[i] = Math.sqrt(s)));
  return out;
}

/** Values that are a weight, moved or not. */
function movedWeights(graph: Graph, weights: ReadonlySet<Value>): Set<Value> {
  const found = new Set(weights);
  for (const { op } of placedOps(graph)) if (['reshape', 'transpose'].includes(op.name) && found.has(op.operands[0]!)) found.add(op.results[0]!);
  return found;
}

/** 1 / |x| of the part of the input that each element of a convolution or contraction reads, shaped to broadcast to the result. */
function inputLengths(b: Builder, op: Op, weightSide: number): Value {
  const x = op.operands[1 - weightSide]!;
  const squares = b.mul(x, x);
  const inverse = (sums: Value): Value => b.unary('recip', b.max(b.unary('sqrt', sums), epsilons.cosine));
  const result = op.results[0]!.type.shape;
  if (op.name === 'conv') {
    const groups = num(op.attrs, 'groups');
    const [outputs, ...kernel] = op.operands[1]!.type.shape as [number, ...number[]];
    const ones = b.broadcast(b.scalar(1, x.type.dtype), [groups, ...kernel]);
    const sums = inverse(b.one('conv', [squares, ones], { strides: nums(op.attrs, 'strides'), pads: nums(op.attrs, 'pads'), dilations: nums(op.attrs, 'dilations'), groups }));
    const [n, , ...space] = result as [number, number, ...number[]];
    return b.reshape(b.broadcast(b.reshape(sums, [n, groups, 1, ...space]), [n, groups, outputs / groups, ...space]), result);
  }
  const [ins, out] = str(op.attrs, 'spec').split('->') as [string, string];
  const own = ins.split(',')[1 - weightSide]!;
  const summed = [...own].flatMap((l, i) => (out.includes(l) ? [] : [i]));
  const left = [...own].filter((l) => out.includes(l));
  const sums = b.reduce('reduceSum', squares, summed);
  const ordered = [...out].filter((l) => left.includes(l));
  const turned = b.transpose(sums, ordered.map((l) => left.indexOf(l)));
  return b.reshape(inverse(turned), result.map((d, i) => (left.includes(out[i]!) ? d : 1)));
}
