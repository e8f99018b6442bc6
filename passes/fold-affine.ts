import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { isMap } from '../ir/fused.ts';
import { num, nums, str } from '../ir/op.ts';
import { rewriteOps, type Facts } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { broadcastShapes, sameShape, sizeOf } from '../ir/type.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { padded, throughMove } from './rules/through.ts';

/**
 * Moves multiplications by fixed factors back into the weights of the convolution or contraction that they follow, and merges chains of fixed factors and
 * shifts into one of each: x * a + b after a conv becomes a conv with scaled weights and one addition. Goes through additions of fixed values, reshapes and
 * transposes, never through a value with several readers. "Fixed" is what depends on constants and never-updated state alone; fold-constants evaluates it.
 * Before a conv or contraction a factor per input channel moves into the weights too, and a shift where nothing is padded; a single factor before a
 * contraction of two varying values moves behind it. It changes rounding, so values that are rounded
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
/** Factors and shifts of up to this many elements are spelled out along axes that a reshape splits or joins. */
const spelledOut = 4096;

function sweepAffine(graph: Graph, target: Target): Graph {
  const rounded = valuesThatRound(graph);
  const fixed = new Map<Value, boolean>();
  const folded = rewriteOps(graph, (op, b, facts) => {
    if (op.results.some((r) => rounded.has(r))) return undefined;
    const walk: Walk = { b, facts, fixed: (v) => isFixed(v, facts, fixed) };
    if (op.name === 'conv') return beforeConv(op, walk);
    if (op.name === 'contract') return beforeContract(op, walk);
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
    case 'transpose':
    case 'reshape': {
      const inner = throughMove(s, op, b, spelledOut);
      return inner && movedBy(op, scaled(op.operands[0]!, inner, walk), b);
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

/** The reshape or transpose `move` of another value. */
const movedBy = (move: Op, v: Value | undefined, b: Builder): Value | undefined => v && b.one(move.name, [v], move.attrs);

/** A value that equals v + t with one addition less, or undefined. */
function shifted(v: Value, t: Value, walk: Walk): Value | undefined {
  const { b, facts } = walk;
  const op = facts.definition(v);
  if (!op || facts.readers(v) > 1) return undefined;
  if (op.name === 'transpose' || op.name === 'reshape') {
    const inner = throughMove(t, op, b, spelledOut);
    return inner && movedBy(op, shifted(op.operands[0]!, inner, walk), b);
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
    const factor = alongLetters(s, letters, own, w, b);
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
  const patch = b.broadcast(b.reshape(by, padded(by.type.shape, x.type.shape.length)), [1, x.type.shape[1]!, ...kernel]);
  const ones = kernel.map(() => 1);
  const shift = b.one('conv', [patch, w], { strides: ones, pads: [...kernel, ...kernel].map(() => 0), dilations: ones, groups: num(op.attrs, 'groups') });
  return [b.add(b.one('conv', [affine.x, w], op.attrs), shift)];
}

/** The same for contract(x * s, w) and contract(x + t, w) on either side, and contract(x * c, y) = contract(x, y) * c for a number c. */
function beforeContract(op: Op, walk: Walk): readonly Value[] | undefined {
  const { b, facts, fixed } = walk;
  const spec = str(op.attrs, 'spec');
  const [ins, out] = spec.split('->') as [string, string];
  const parts = ins.split(',');
  for (const at of [0, 1] as const) {
    const [x, w] = [op.operands[at]!, op.operands[1 - at]!];
    const inner = facts.definition(x);
    const affine = inner && facts.readers(x) <= 1 && !fixed(x) ? affineOf(inner, walk) : undefined;
    const by = affine?.by();
    if (!affine || !by) continue;
    const [own, other] = [parts[at]!, parts[1 - at]!];
    const letters = axesOf(by, x).map((a) => own[a]!);
    const rebuilt = (p: Value, q: Value): Value => b.contract(spec, ...(at === 0 ? [p, q] as const : [q, p] as const));
    if (affine.kind === 'scale') {
      if (letters.length === 0 && !fixed(w)) return [b.mul(rebuilt(affine.x, w), b.reshape(by, []))];
      if (fixed(w) && letters.every((l) => other.includes(l))) return [rebuilt(affine.x, b.mul(w, alongLetters(by, letters, other, w, b)))];
      continue;
    }
    // The shift alone, contracted with the weights: as long as it varies along summed axes only, one value per output channel.
    const summed = [...own].filter((l) => !out.includes(l));
    if (!fixed(w) || !letters.every((l) => summed.includes(l)) || !summed.every((l) => other.includes(l))) continue;
    const patch = b.broadcast(alongLetters(by, letters, summed.join(''), x, b, own), summed.map((l) => x.type.shape[own.indexOf(l)]!));
    const kept = [...out].filter((l) => other.includes(l));
    const shift = b.contract(`${summed.join('')},${other}->${kept.join('')}`, patch, w);
    const result = op.results[0]!.type.shape;
    return [b.add(rebuilt(affine.x, w), b.reshape(shift, result.map((d, i) => (kept.includes(out[i]!) ? d : 1))))];
  }
  return undefined;
}

/** `s`, which varies along `letters` (in its order), laid out for the axes `target`: 1 where it does not vary. `sized` has the sizes, by `axes`. */
function alongLetters(s: Value, letters: readonly string[], target: string, sized: Value, b: Builder, axes = target): Value {
  const size = (l: string): number => sized.type.shape[axes.indexOf(l)]!;
  const order = [...target].filter((l) => letters.includes(l));
  const dense = b.transpose(b.reshape(s, letters.map(size)), order.map((l) => letters.indexOf(l)));
  return b.reshape(dense, [...target].map((l) => (letters.includes(l) ? size(l) : 1)));
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
const axesOf = (s: Value, v: Value): number[] => padded(s.type.shape, v.type.shape.length).flatMap((d, i) => (d === 1 ? [] : [i]));

/** Whether p and q broadcast to no more elements than the larger has. */
function compact(p: Value, q: Value): boolean {
  const shape = broadcastShapes([p.type.shape, q.type.shape]);
  return shape !== undefined && sizeOf(shape) <= Math.max(sizeOf(p.type.shape), sizeOf(q.type.shape));
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
