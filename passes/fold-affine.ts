import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { isMap } from '../ir/fused.ts';
import { num, nums, str } from '../ir/op.ts';
import { rewriteOps, type Facts } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { broadcastShapes, sameShape, sizeOf } from '../ir/type.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';

/**
 * Moves multiplications by fixed factors back into the weights of the convolution or contraction that they follow, and merges chains of fixed factors and
 * shifts into one of each: x * a + b after a conv becomes a conv with scaled weights and one addition. Goes through additions of fixed values, reshapes and
 * transposes, never through a value with several readers. "Fixed" is what depends on constants and never-updated state alone; fold-constants evaluates it.
 * Before a conv a factor per input channel moves into the weights too, and a shift where nothing is padded. It changes rounding, so values that are rounded
 * to integers afterwards (quantised models) keep their order of operations.
 */
export function foldAffine(graph: Graph, target: Target): Graph {
  let current = graph;
  // What moves into one op can let the next one move: a scale and then a shift before a convolution.
  for (let sweep = 0; sweep < maxSweeps; sweep++) {
    const next = sweepAffine(current, target);
    if (next === current) break;
    current = next;
  }
  return current;
}

const maxSweeps = 8;

function sweepAffine(graph: Graph, target: Target): Graph {
  const rounded = valuesThatRound(graph);
  const fixed = new Map<Value, boolean>();
  const folded = rewriteOps(graph, (op, b, facts) => {
    if (op.results.some((r) => rounded.has(r))) return undefined;
    const walk: Walk = { b, facts, fixed: (v) => isFixed(v, facts, fixed) };
    if (op.name === 'conv') return beforeConv(op, walk);
    const affine = affineOf(op, walk);
    if (!affine) return undefined;
    const value = affine.kind === 'scale' ? scaled(affine.x, affine.by(), walk) : shifted(affine.x, affine.by(), walk);
    return value && [value];
  });
  return folded === graph ? graph : eliminateDeadCode(folded, target);
}

interface Walk {
  readonly b: Builder;
  readonly facts: Facts;
  /** Whether a value depends on constants and never-updated state alone. */
  fixed(v: Value): boolean;
}

function isFixed(v: Value, facts: Facts, known: Map<Value, boolean>): boolean {
  const before = known.get(v);
  if (before !== undefined) return before;
  const op = facts.definition(v);
  const fixed = facts.constant(v) !== undefined || (op !== undefined && op.operands.length > 0 && op.regions.length === 0 && op.operands.every((o) => isFixed(o, facts, known)));
  known.set(v, fixed);
  return fixed;
}

/** x * by or x + by, with `by` fixed and x of the result's shape. */
interface Affine { readonly kind: 'scale' | 'shift'; readonly x: Value; by(): Value }

function affineOf(op: Op, { b, fixed }: Walk): Affine | undefined {
  const [p, q] = op.operands;
  const type = op.results[0]!.type;
  if (!p || !q || (type.dtype !== 'f32' && type.dtype !== 'f64') || !['add', 'sub', 'mul', 'div'].includes(op.name)) return undefined;
  const swap = fixed(p) && (op.name === 'add' || op.name === 'mul');
  const [x, by] = swap ? [q, p] : [p, q];
  if (fixed(x) || !fixed(by) || !sameShape(x.type.shape, type.shape)) return undefined;
  switch (op.name) {
    case 'mul': return { kind: 'scale', x, by: () => by };
    case 'div': return { kind: 'scale', x, by: () => b.unary('recip', by) };
    case 'add': return { kind: 'shift', x, by: () => by };
    default: return { kind: 'shift', x, by: () => b.neg(by) };
  }
}

/** A value that equals v * s without multiplying v itself, or undefined. */
function scaled(v: Value, s: Value, walk: Walk): Value | undefined {
  const { b, facts, fixed } = walk;
  const op = facts.definition(v);
  if (!op || facts.readers(v) > 1) return undefined;
  switch (op.name) {
    case 'conv': {
      const [x, w] = op.operands as [Value, Value];
      const axes = axesOf(s, v);
      if (!fixed(w) || axes.some((a) => a !== 1)) return undefined;
      const factor = b.reshape(s, w.type.shape.map((d, i) => (i === 0 && axes.length > 0 ? d : 1)));
      return b.one('conv', [x, b.mul(w, factor)], op.attrs);
    }
    case 'convData': {
      const [x, w] = op.operands as [Value, Value];
      const axes = axesOf(s, v);
      if (!fixed(w) || axes.some((a) => a !== 1)) return undefined;
      return b.one('convData', [x, scaledInputs(w, axes.length > 0 ? s : undefined, s, num(op.attrs, 'groups'), b)], op.attrs);
    }
    case 'contract': return scaledContract(op, v, s, walk);
    case 'transpose': {
      const perm = nums(op.attrs, 'perm');
      const before = padded(s, perm.length);
      const back = perm.map((_, axis) => perm.indexOf(axis));
      const inner = scaled(op.operands[0]!, b.transpose(b.reshape(s, before), back), walk);
      return inner && b.transpose(inner, perm);
    }
    case 'reshape': {
      const inner = throughReshape(s, op.operands[0]!, v, b);
      const y = inner && scaled(op.operands[0]!, inner, walk);
      return y && b.reshape(y, v.type.shape);
    }
  }
  const affine = affineOf(op, walk);
  if (affine?.kind === 'scale') {
    if (!compact(affine.by(), s)) return undefined;
    const both = b.mul(affine.by(), s);
    return scaled(affine.x, both, walk) ?? b.mul(affine.x, both);
  }
  if (affine?.kind === 'shift' && compact(affine.by(), s)) {
    const y = scaled(affine.x, s, walk);
    return y && b.add(y, b.mul(affine.by(), s));
  }
  return undefined;
}

/** A value that equals v + t with one addition less, or undefined. */
function shifted(v: Value, t: Value, walk: Walk): Value | undefined {
  const { b, facts } = walk;
  const op = facts.definition(v);
  if (!op || facts.readers(v) > 1) return undefined;
  if (op.name === 'transpose') {
    const perm = nums(op.attrs, 'perm');
    const inner = shifted(op.operands[0]!, b.transpose(b.reshape(t, padded(t, perm.length)), perm.map((_, axis) => perm.indexOf(axis))), walk);
    return inner && b.transpose(inner, perm);
  }
  if (op.name === 'reshape') {
    const inner = throughReshape(t, op.operands[0]!, v, b);
    const y = inner && shifted(op.operands[0]!, inner, walk);
    return y && b.reshape(y, v.type.shape);
  }
  const affine = affineOf(op, walk);
  return affine?.kind === 'shift' && compact(affine.by(), t) ? b.add(affine.x, b.add(affine.by(), t)) : undefined;
}

/** Scales the fixed operand that has the axes along which s varies; else goes on into the operands. */
function scaledContract(op: Op, v: Value, s: Value, walk: Walk): Value | undefined {
  const { b, fixed } = walk;
  const spec = str(op.attrs, 'spec');
  const [ins, out] = spec.split('->') as [string, string];
  const letters = axesOf(s, v).map((a) => out[a]!);
  const parts = ins.split(',');
  for (const [i, w] of op.operands.entries()) {
    const own = parts[i]!;
    if (!letters.every((l) => own.includes(l))) continue;
    // The axes of s in the order of the result, then in the order of this operand.
    const order = [...own].filter((l) => letters.includes(l));
    const dense = b.reshape(s, letters.map((l) => w.type.shape[own.indexOf(l)]!));
    const factor = b.reshape(b.transpose(dense, order.map((l) => letters.indexOf(l))), [...own].map((l, axis) => (letters.includes(l) ? w.type.shape[axis]! : 1)));
    const replaced = fixed(w) ? b.mul(w, factor) : scaled(w, factor, walk);
    if (replaced) return b.one('contract', op.operands.with(i, replaced), { spec });
  }
  return undefined;
}

/** conv(x * s + t) = conv(x) with scaled weights + a constant. */
function beforeConv(op: Op, walk: Walk): readonly Value[] | undefined {
  const { b, facts, fixed } = walk;
  const [x, w] = op.operands as [Value, Value];
  const inner = facts.definition(x);
  if (!inner || facts.readers(x) > 1 || !fixed(w) || fixed(x)) return undefined;
  const affine = affineOf(inner, walk);
  const by = affine?.by();
  if (!affine || !by || axesOf(by, x).some((a) => a !== 1)) return undefined;
  if (affine.kind === 'scale') return b.op('conv', [affine.x, scaledInputs(w, axesOf(by, x).length > 0 ? by : undefined, by, num(op.attrs, 'groups'), b)], op.attrs);
  if (nums(op.attrs, 'pads').some((p) => p !== 0)) return undefined;
  const kernel = w.type.shape.slice(2);
  const patch = b.broadcast(b.reshape(by, padded(by, x.type.shape.length)), [1, x.type.shape[1]!, ...kernel]);
  const ones = kernel.map(() => 1);
  const shift = b.one('conv', [patch, w], { strides: ones, pads: [...kernel, ...kernel].map(() => 0), dilations: ones, groups: num(op.attrs, 'groups') });
  return [b.add(b.one('conv', [affine.x, w], op.attrs), shift)];
}

/**
 * w[(g o), i, kernel...] times a factor of channel (g, i): the input channels of a conv, the output channels of its data gradient. `perChannel` is undefined
 * where `s` is one number.
 */
function scaledInputs(w: Value, perChannel: Value | undefined, s: Value, groups: number, b: Builder): Value {
  const [o, i, ...kernel] = w.type.shape as [number, number, ...number[]];
  if (!perChannel) return b.mul(w, b.reshape(s, []));
  const split = b.reshape(w, [groups, o / groups, i, ...kernel]);
  return b.reshape(b.mul(split, b.reshape(perChannel, [groups, 1, i, ...kernel.map(() => 1)])), w.type.shape);
}

/** The axes of v along which s varies. */
const axesOf = (s: Value, v: Value): number[] => padded(s, v.type.shape.length).flatMap((d, i) => (d === 1 ? [] : [i]));
const padded = (s: Value, rank: number): number[] => [...new Array<number>(Math.max(0, rank - s.type.shape.length)).fill(1), ...s.type.shape];

/** Whether p and q broadcast to no more elements than the larger has. */
function compact(p: Value, q: Value): boolean {
  const shape = broadcastShapes([p.type.shape, q.type.shape]);
  return shape !== undefined && sizeOf(shape) <= Math.max(sizeOf(p.type.shape), sizeOf(q.type.shape));
}

/**
 * The value that means for x what s means for v = reshape(x), or undefined where that is no small tensor. Axes of both shapes fall into groups of equal
 * products; a group along which s varies is spelled out, the others stay 1.
 */
function throughReshape(s: Value, x: Value, v: Value, b: Builder): Value | undefined {
  const [from, to] = [x.type.shape, v.type.shape];
  if (sizeOf(to) === 0) return undefined;
  const sShape = padded(s, to.length);
  const full = [...sShape];
  const inner: number[] = [];
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    const [i0, j0] = [i, j];
    let [p, q] = [1, 1];
    do {
      if (p <= q && i < from.length) p *= from[i++]!;
      else if (j < to.length) q *= to[j++]!;
      else p *= from[i++]!;
    } while (p !== q);
    const varies = sShape.slice(j0, j).some((d) => d !== 1);
    for (let k = j0; k < j; k++) full[k] = varies ? to[k]! : 1;
    for (let k = i0; k < i; k++) inner.push(varies ? from[k]! : 1);
  }
  if (sizeOf(full) > Math.max(4096, 4 * sizeOf(sShape))) return undefined;
  return b.reshape(b.broadcast(b.reshape(s, sShape), full), inner);
}

/** Values that reach a rounding to integers through elementwise arithmetic alone. */
function valuesThatRound(graph: Graph): Set<Value> {
  const rounded = new Set<Value>();
  for (const op of graph.ops.toReversed()) {
    const rounds = ['round', 'floor', 'ceil', 'trunc'].includes(op.name) || (op.name === 'cast' && !['f64', 'f32'].includes(str(op.attrs, 'to')));
    if (rounds || (op.results.some((r) => rounded.has(r)) && (isMap(op) || ['reshape', 'transpose'].includes(op.name)))) op.operands.forEach((v) => rounded.add(v));
  }
  return rounded;
}
