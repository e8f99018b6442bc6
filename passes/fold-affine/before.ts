/** Factors and shifts before a convolution or contraction. */
import type { Op, Value } from '../../ir/graph.ts';
import { num, nums, str } from '../../ir/op.ts';
import { sizeOf } from '../../ir/type.ts';
import { padded, pastMove } from '../rules/through.ts';
import { affineOf, alongLetters, axesOf, scaledInputs, spelledOut, type Affine, type Walk } from './affine.ts';

/** conv(x * s + t) = conv(x) with scaled weights + a constant. */
export function beforeConv(op: Op, walk: Walk): readonly Value[] | undefined {
  const { b, fixed } = walk;
  const [x, w] = op.operands as [Value, Value];
  const common = walk.shared.get(x);
  const affine = fixed(w) ? lastAffine(x, walk, common !== undefined) : undefined;
  if (!affine || axesOf(affine.by, x).some((a) => a !== 1)) return undefined;
  const { by } = affine;
  if (affine.kind === 'scale') return b.op('conv', [affine.x, scaledInputs(w, axesOf(by, x).length > 0 ? by : undefined, by, num(op.attrs, 'groups'), b)], op.attrs);
  if (common === 'scale' || nums(op.attrs, 'pads').some((p) => p !== 0)) return undefined;
  const kernel = w.type.shape.slice(2);
  const patch = b.broadcast(b.reshape(by, padded(by.type.shape, x.type.shape.length)), [1, x.type.shape[1]!, ...kernel]);
  const ones = kernel.map(() => 1);
  const shift = b.one('conv', [patch, w], { strides: ones, pads: [...kernel, ...kernel].map(() => 0), dilations: ones, groups: num(op.attrs, 'groups') });
  return [b.add(b.one('conv', [affine.x, w], op.attrs), shift)];
}

/** The same for contract(x * s, w) and contract(x + t, w) on either side, and contract(x * c, y) = contract(x, y) * c for a number c. */
export function beforeContract(op: Op, walk: Walk): readonly Value[] | undefined {
  const { b, fixed } = walk;
  const spec = str(op.attrs, 'spec');
  const [ins, out] = spec.split('->') as [string, string];
  const parts = ins.split(',');
  for (const at of [0, 1] as const) {
    const [x, w] = [op.operands[at]!, op.operands[1 - at]!];
    const affine = lastAffine(x, walk);
    if (!affine) continue;
    const { by } = affine;
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

/** A value as x * by or x + by, by a fixed value that broadcasts to it. */
interface LastAffine extends Pick<Affine, 'kind' | 'x'> {
  readonly by: Value;
}

/** The factor or shift that a value ends with: the last op itself, or one that moves past what follows it. Values with several readers end with none, unless all of them take it (`shared`). */
function lastAffine(v: Value, walk: Walk, shared = false): LastAffine | undefined {
  const { b, facts, fixed } = walk;
  const op = facts.definition(v);
  if (!op || (facts.readers(v) > 1 && !shared) || fixed(v)) return undefined;
  const affine = affineOf(op, walk);
  if (affine) return { kind: affine.kind, x: affine.x, by: affine.by() };
  switch (op.name) {
    case 'reshape':
    case 'transpose': {
      const inner = lastAffine(op.operands[0]!, walk);
      const by = inner && pastMove(inner.by, op, b, spelledOut);
      return inner && by && { kind: inner.kind, x: b.one(op.name, [inner.x], op.attrs), by };
    }
    case 'reduceSum': return lastBeforeSum(op, walk);
    case 'add': {
      const shape = v.type.shape;
      for (const at of [0, 1] as const) {
        const [p, q] = [op.operands[at]!, op.operands[1 - at]!];
        const inner = p.type.shape.length === shape.length && p.type.shape.every((d, i) => d === shape[i]) ? lastAffine(p, walk) : undefined;
        // (x + t) + y = (x + y) + t; factors of x are none of y.
        if (inner?.kind === 'shift') return { kind: 'shift', x: b.add(inner.x, q), by: inner.by };
      }
      return undefined;
    }
    default: return undefined;
  }
}

/** Σ (x · s) = (Σ x) · s and Σ (x + t) = Σ x + count · t, where s and t are the same along the axes of the sum. */
function lastBeforeSum(op: Op, walk: Walk): LastAffine | undefined {
  const { b } = walk;
  const x = op.operands[0]!;
  const axes = nums(op.attrs, 'axes');
  const inner = lastAffine(x, walk);
  if (!inner || axesOf(inner.by, x).some((a) => axes.includes(a))) return undefined;
  const by = b.reshape(inner.by, padded(inner.by.type.shape, x.type.shape.length).filter((_, i) => !axes.includes(i)));
  const count = sizeOf(axes.map((a) => x.type.shape[a]!));
  return { kind: inner.kind, x: b.one('reduceSum', [inner.x], op.attrs), by: inner.kind === 'scale' ? by : b.mul(by, count) };
}
