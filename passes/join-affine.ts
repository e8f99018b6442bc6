import type { Builder } from '../ir/builder.ts';
import { isMap } from '../ir/fused.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { rewriteOps, type Facts } from '../ir/rewrite.ts';
import { broadcastShapes, isFloat, sameShape, sizeOf } from '../ir/type.ts';
import { padded, throughMove } from './rules/through.ts';

/** A value as a base to which operations by small tensors are applied in order; each small tensor has the rank of the base, or less. */
interface Chain {
  readonly base: Value;
  readonly steps: readonly Step[];
}
type Step = { readonly by: 'add' | 'sub' | 'mul'; readonly small: Value } | { readonly by: 'neg' };

/** Ops that are worth joining, and how much larger the base is than a scale or shift. */
const fewestSteps = 3;
const smallShare = 16;

/**
 * Rewrites chains of three and more additions and multiplications by small tensors, such as the ((x - mean) · 1/σ) · γ + β of a norm over groups or the batch, as one x · a + b with a and b
 * computed apart: one pass over x after its statistics. Before differentiation, the gradients of all of a norm's small tensors thereby come out of two sums, Σ dy and Σ dy·x; after it, dx is one multiply-add for each of dy and x. A base that is
 * a reshape (channels cut into groups) is taken before it. Norms over the last axis keep their form: there γ varies where the statistics do not, and a would be as large as x.
 */
export function joinAffine(graph: Graph): Graph {
  const chains = new Map<Value, Chain>();
  /** Reshapes of what was computed before them. */
  const moved = new Set<Value>();
  return rewriteOps(graph, (op, b, facts) => {
    const chain = chainOf(op, chains, facts);
    if (!chain) {
      const carried = beforeReshape(op, b, facts, moved);
      if (carried) moved.add(carried);
      return carried && [carried];
    }
    if (chain.steps.length < fewestSteps) {
      const carried = beforeReshape(op, b, facts, moved);
      if (carried) moved.add(carried);
      chains.set(carried ?? op.results[0]!, chain);
      return carried && [carried];
    }
    const joined = spelledOut(chain, b, facts);
    chains.set(joined, chain);
    if (facts.definition(chain.base)?.name === 'reshape') moved.add(joined);
    return [joined];
  });
}

/** An elementwise op on what was computed before a reshape, too: reshapes of one shape on both sides meet there. */
function beforeReshape(op: Op, b: Builder, facts: Facts, moved: ReadonlySet<Value>): Value | undefined {
  const result = op.results[0]!;
  if (!isMap(op) || !op.operands.some((v) => moved.has(v))) return undefined;
  const move = facts.definition(op.operands.find((v) => moved.has(v))!)!;
  if (move.name !== 'reshape' || !sameShape(move.results[0]!.type.shape, result.type.shape)) return undefined;
  const from = move.operands[0]!.type.shape;
  const limit = sizeOf(from) / smallShare;
  const inner = op.operands.map((v) => {
    const own = facts.definition(v);
    if (own?.name === 'reshape' && sameShape(v.type.shape, result.type.shape) && sameShape(own.operands[0]!.type.shape, from)) return own.operands[0]!;
    return sameShape(v.type.shape, result.type.shape) ? undefined : throughMove(v, move, b, limit);
  });
  if (inner.includes(undefined)) return undefined;
  return b.reshape(b.one(op.name, inner as Value[], op.attrs), result.type.shape);
}

/** The chain that ends with an op; undefined where it is none, or where its scale and shift would not be small. */
function chainOf(op: Op, chains: ReadonlyMap<Value, Chain>, facts: Facts): Chain | undefined {
  const result = op.results[0];
  if (!result || !isFloat(result.type.dtype)) return undefined;
  const { shape } = result.type;
  const whole = (v: Value): boolean => sameShape(v.type.shape, shape);
  const follow = (x: Value, step: Step): Chain | undefined => {
    const before = chains.get(x) ?? { base: x, steps: [] };
    const chain = { base: before.base, steps: [...before.steps, step] };
    const span = broadcastShapes(chain.steps.flatMap((s) => (s.by === 'neg' ? [] : [s.small.type.shape]))) ?? shape;
    return smallShare * sizeOf(span) <= sizeOf(shape) ? chain : undefined;
  };
  const [p, q] = op.operands.map((v) => unbroadcast(v, facts)) as [Value, Value];
  switch (op.name) {
    case 'neg': return whole(p) ? follow(p, { by: 'neg' }) : undefined;
    case 'sub': return whole(p) ? follow(p, { by: 'sub', small: q }) : undefined;
    case 'add':
    case 'mul': return whole(p) ? follow(p, { by: op.name, small: q }) : whole(q) ? follow(q, { by: op.name, small: p }) : undefined;
    default: return undefined;
  }
}

/** What a value repeats, where it is a broadcast. */
function unbroadcast(v: Value, facts: Facts): Value {
  const op = facts.definition(v);
  return op?.name === 'broadcast' ? op.operands[0]! : v;
}

/** base · scale + shift, before the reshape that the base is where it is one. */
function spelledOut({ base, steps }: Chain, b: Builder, facts: Facts): Value {
  let [scale, shift]: (Value | undefined)[] = [];
  for (const s of steps) {
    if (s.by === 'neg') {
      scale = scale ? b.neg(scale) : b.scalar(-1, base.type.dtype);
      shift &&= b.neg(shift);
      continue;
    }
    const small = b.reshape(s.small, padded(s.small.type.shape, base.type.shape.length));
    if (s.by === 'mul') {
      scale = scale ? b.mul(scale, small) : small;
      shift &&= b.mul(shift, small);
    } else if (s.by === 'add') shift = shift ? b.add(shift, small) : small;
    else shift = shift ? b.sub(shift, small) : b.neg(small);
  }
  const apply = (x: Value, a: Value | undefined, c: Value | undefined): Value => {
    const scaled = a ? b.mul(x, a) : x;
    return c ? b.add(scaled, c) : scaled;
  };
  const move = facts.definition(base);
  if (move?.name !== 'reshape') return apply(base, scale, shift);
  const limit = sizeOf(base.type.shape) / smallShare;
  const before = [scale, shift].map((v) => v && throughMove(v, move, b, limit));
  if ([scale, shift].some((v, i) => v && !before[i])) return apply(base, scale, shift);
  return b.reshape(apply(move.operands[0]!, before[0], before[1]), base.type.shape);
}
