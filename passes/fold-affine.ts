import type { Builder } from '../ir/builder.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { isMap } from '../ir/fused.ts';
import { num, str } from '../ir/op.ts';
import { rewriteOps } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { affineOf, alongLetters, axesOf, compact, scaledInputs, spelledOut, type Walk } from './fold-affine/affine.ts';
import { beforeContract, beforeConv } from './fold-affine/before.ts';
import { fixedCaptures, isFixed } from './fixed-values.ts';
import { sharedByConvolutions } from './fold-affine/shared.ts';
import { throughMove } from './rules/through.ts';

/**
 * Moves multiplications by fixed factors back into the weights of the convolution or contraction that they follow, and merges chains of fixed factors and
 * shifts into one of each: x * a + b after a conv becomes a conv with scaled weights and one addition. Goes through additions of fixed values, reshapes and
 * transposes, never through a value with several readers unless all of them are convolutions that take it. "Fixed" is what depends on constants and never-updated state alone; fold-constants evaluates it.
 * Before a conv or contraction a factor per input channel moves into the weights too, and a shift where nothing is padded (where something is, the border differs and the shift stays): past
 * reshapes, transposes and sums over positions, a shift past additions of other values too. A single factor before a contraction of two varying values moves behind it. It changes rounding, so values that are rounded
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
  const fixed = fixedCaptures(graph);
  const shared = sharedByConvolutions(graph);
  const folded = rewriteOps(graph, (op, b, facts) => {
    if (op.results.some((r) => rounded.has(r))) return undefined;
    const walk: Walk = { b, facts, fixed: (v) => isFixed(v, facts, fixed), shared };
    if (op.name === 'conv') return beforeConv(op, walk);
    if (op.name === 'contract') return beforeContract(op, walk);
    const affine = affineOf(op, walk);
    if (!affine) return undefined;
    const value = affine.kind === 'scale' ? scaled(affine.x, affine.by(), walk) : shifted(affine.x, affine.by(), walk);
    return value && [value];
  });
  return folded === graph ? graph : eliminateDeadCode(folded, target);
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

/** Values that reach a rounding to integers through elementwise arithmetic alone. */
function valuesThatRound(graph: Graph): Set<Value> {
  const rounded = new Set<Value>();
  for (const op of graph.ops.toReversed()) {
    const rounds = ['round', 'floor', 'ceil', 'trunc'].includes(op.name) || (op.name === 'cast' && !['f64', 'f32'].includes(str(op.attrs, 'to')));
    if (rounds || (op.results.some((r) => rounded.has(r)) && (isMap(op) || ['reshape', 'transpose'].includes(op.name)))) op.operands.forEach((v) => rounded.add(v));
  }
  return rounded;
}
