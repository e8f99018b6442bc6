/**
 * Matches batch normalizations by their arithmetic, in whatever order and with whatever ops it is spelled: a value is expanded to a sum of products of x, parameters, statistics of the batch and
 * deviations √(variance + ε), and compared with x·s - mean·s + bias, where s is a scale over a deviation.
 */
import type { Op, Value } from '../../ir/graph.ts';
import { sameShape, sizeOf } from '../../ir/type.ts';
import type { BatchNorm } from './find-norms.ts';
import type { BatchStatistic, Structure } from './structure.ts';

export type MatchedNorm = Omit<BatchNorm, 'within'>;

/** √(variance + ε). */
interface Deviation {
  readonly variance: Value | BatchStatistic;
  readonly epsilon: number;
}

/** A factor: x, a parameter, a statistic or a deviation. Equal ones are one object. */
type Atom = Value | BatchStatistic | Deviation;

/** A product of atoms with whole powers, and a sign. */
interface Term {
  readonly sign: 1 | -1;
  readonly powers: ReadonlyMap<Atom, number>;
}

/** Longer sums are no normalization. */
const mostTerms = 8;
/** Ops between x and the result, at most. */
const depth = 12;

/** Ops whose results are sums or products of their operands' terms. */
const arithmetic: ReadonlySet<string> = new Set(['add', 'sub', 'neg', 'mul', 'div', 'recip', 'cast', 'reshape', 'broadcast']);
const ends: ReadonlySet<string> = new Set(['add', 'sub', 'mul', 'div']);

/** Values that are made of a root by sums and products: only they can be normalized. */
export function valuesWithRoots(s: Structure): Set<Value> {
  const found = new Set<Value>();
  for (const { op } of s.placed) {
    if (rootPower(s, op) !== undefined || (arithmetic.has(op.name) && op.operands.some((v) => found.has(v)))) op.results.forEach((r) => found.add(r));
  }
  return found;
}

/** The batch normalization whose result an op gives; undefined where it gives none. `rooted`: what valuesWithRoots found. */
export function matchNorm(s: Structure, last: Op, rooted: ReadonlySet<Value>): MatchedNorm | undefined {
  const y = last.results[0]!;
  if (!ends.has(last.name) || !rooted.has(y) || y.type.shape.length < 2 || s.parameters.has(y)) return undefined;
  for (const x of dataBehind(s, y)) {
    const expansion = new Expansion(s, x, y);
    const terms = expansion.terms(y, 1);
    const found = terms && matchTerms(s, terms, x, y.type.shape[1]!);
    if (found) return { ...found, last, x, y, batch: found.form === 'training' ? expansion.batch() : undefined };
  }
  return undefined;
}

/** Data of the shape of y that sums and products lead from to y, the nearest first. */
function dataBehind(s: Structure, y: Value): Value[] {
  const found: Value[] = [];
  let front = [y];
  for (let i = 0; i < depth && front.length > 0; i++) {
    const next = front.flatMap((v) => {
      const op = s.def(v);
      return op && ['add', 'sub', 'mul', 'div', 'neg', 'cast'].includes(op.name) ? op.operands.filter((o) => sameShape(o.type.shape, y.type.shape) && !s.parameters.has(o) && !s.statistic(o)) : [];
    });
    front = [...new Set(next)].filter((v) => !found.includes(v));
    found.push(...front);
  }
  return found;
}

/** Expands values to sums of products, x being known. */
class Expansion {
  readonly #s: Structure;
  readonly #x: Value;
  readonly #y: Value;
  #meanValue: Value | undefined;
  #varianceValue: Value | undefined;
  readonly #mean: BatchStatistic;
  readonly #batchVariance: BatchStatistic;
  readonly #deviations: Deviation[] = [];
  /** How many values are looked at, at most. */
  #left = 200;

  constructor(s: Structure, x: Value, y: Value) {
    this.#s = s;
    this.#x = x;
    this.#y = y;
    this.#mean = { kind: 'mean', of: x };
    this.#batchVariance = { kind: 'variance', of: x };
  }

  /** The statistics of the batch that were met. */
  batch(): MatchedNorm['batch'] {
    return this.#meanValue && this.#varianceValue && { mean: this.#meanValue, variance: this.#varianceValue };
  }

  /** The terms of a value whose channels are on the given axis; undefined where it is not made of x and of one number a channel. */
  terms(v: Value, axis: number): readonly Term[] | undefined {
    const s = this.#s;
    if (v === this.#x) return [termOf(v)];
    if (--this.#left < 0) return undefined;
    const data = sameShape(v.type.shape, this.#y.type.shape) && !s.parameters.has(v);
    if (!data && !alongAxis(v, axis, this.#y.type.shape[1]!) && s.def(v)?.name !== 'broadcast') return undefined;
    const stat = s.statistic(v);
    if (stat) {
      if (stat.of !== s.uncast(this.#x) || stat.kind !== 'mean') return undefined;
      this.#meanValue = s.peel(v);
      return [termOf(this.#mean)];
    }
    const whole = this.#expanded(v, axis);
    if (!s.parameters.has(v)) return whole;
    // A parameter that is a sum counts as one, unless the sum is of what normalizes.
    return whole && (whole.length === 1 || whole.some((t) => this.#hasDeviation(t))) ? whole : [this.#leaf(v)];
  }

  #leaf(v: Value): Term {
    const number = this.#s.number(v);
    return number === 1 || number === -1 ? { sign: number, powers: new Map() } : termOf(this.#s.peel(v));
  }

  #expanded(v: Value, axis: number): readonly Term[] | undefined {
    const s = this.#s;
    const op = s.def(v);
    if (!op) return s.parameters.has(v) ? [this.#leaf(v)] : undefined;
    const root = rootPower(s, op);
    if (root !== undefined) {
      const deviation = this.#deviation(op.operands[0]!);
      return deviation ? [{ sign: 1, powers: new Map([[deviation, root]]) }] : this.#opaque(v);
    }
    if (!arithmetic.has(op.name)) return this.#opaque(v);
    const parts: (readonly Term[])[] = [];
    for (const o of op.operands) {
      const part = this.terms(o, op.name === 'reshape' ? movedAxis(o) : axis - (v.type.shape.length - o.type.shape.length));
      if (!part) return this.#opaque(v);
      parts.push(part);
    }
    return combined(op, parts) ?? this.#opaque(v);
  }

  /** A parameter of which no more is known. */
  readonly #opaque = (v: Value): readonly Term[] | undefined => (this.#s.parameters.has(v) ? [this.#leaf(v)] : undefined);

  /** √(variance + ε), the ε on either side, or left out. */
  #deviation(inside: Value): Deviation | undefined {
    const s = this.#s;
    const bare = s.peel(inside);
    const op = s.def(bare);
    if (op?.name === 'add') {
      for (const [variance, other] of [[op.operands[0]!, op.operands[1]!], [op.operands[1]!, op.operands[0]!]] as const) {
        const epsilon = s.number(other);
        const known = epsilon !== undefined && this.#variance(variance);
        if (known) return this.#one(known, epsilon);
      }
    }
    const plain = this.#variance(bare);
    return plain && this.#one(plain, 0);
  }

  #variance(v: Value): Value | BatchStatistic | undefined {
    const stat = this.#s.statistic(v);
    if (stat) {
      if (stat.of !== this.#s.uncast(this.#x) || stat.kind !== 'variance') return undefined;
      this.#varianceValue = this.#s.peel(v);
      return this.#batchVariance;
    }
    // What is computed of weights is no running statistic: moments of a proxy, or of a weight that is normalized itself.
    return this.#s.isKept(v) ? this.#s.peel(v) : undefined;
  }

  #one(variance: Value | BatchStatistic, epsilon: number): Deviation {
    const before = this.#deviations.find((d) => d.variance === variance && d.epsilon === epsilon);
    if (before) return before;
    const made = { variance, epsilon };
    this.#deviations.push(made);
    return made;
  }

  readonly #hasDeviation = ({ powers }: Term): boolean => [...powers.keys()].some(isDeviation);
}

/** x·s - mean·s + bias, in any order. */
function matchTerms(s: Structure, terms: readonly Term[], x: Value, channels: number): Pick<MatchedNorm, 'form' | 'scale' | 'bias' | 'epsilon' | 'running'> | undefined {
  const [own, ...more] = terms.filter((t) => t.powers.has(x));
  if (!own || more.length > 0 || own.sign !== 1 || own.powers.get(x) !== 1) return undefined;
  const deviations = [...own.powers.keys()].filter(isDeviation);
  const [deviation] = deviations;
  if (deviations.length !== 1 || own.powers.get(deviation!) !== -1) return undefined;
  const scale = [...own.powers.keys()].filter((a): a is Value => a !== x && a !== deviation && isValue(a));
  if (scale.length !== own.powers.size - 2 || scale.some((v) => own.powers.get(v) !== 1 || !fits(v, channels))) return undefined;
  const rest = terms.filter((t) => t !== own);
  const [centre, ...others] = rest.filter((t) => t.powers.has(deviation!));
  const [shift, ...shifts] = rest.filter((t) => !t.powers.has(deviation!));
  if (!centre || others.length > 0 || shifts.length > 0 || centre.sign !== -1) return undefined;
  const mean = [...centre.powers.keys()].filter((a) => centre.powers.get(a) !== own.powers.get(a));
  if (mean.length !== 1 || centre.powers.size !== own.powers.size || centre.powers.get(mean[0]!) !== 1 || own.powers.has(mean[0]!)) return undefined;
  const bias = shift ? [...shift.powers.keys()] : [];
  // What multiplies scale and shift alike is not the normalization's: a scale of the layer behind it.
  if (!bias.every((a): a is Value => isValue(a) && shift!.powers.get(a) === 1 && !scale.includes(a) && fits(a, channels))) return undefined;
  const found = { scale, bias: shift && { factors: bias, sign: shift.sign }, epsilon: deviation!.epsilon };
  const { variance } = deviation!;
  if (!isValue(mean[0]!)) return isValue(variance) ? undefined : { ...found, form: 'training', running: undefined };
  if (!isValue(variance) || !s.isKept(mean[0]) || sizeOf(mean[0].type.shape) !== channels || sizeOf(variance.type.shape) !== channels) return undefined;
  return { ...found, form: 'inference', running: { mean: mean[0], variance, momentum: undefined } };
}

const isDeviation = (a: Atom): a is Deviation => 'epsilon' in a;
const isValue = (a: Atom): a is Value => 'type' in a;
const fits = (v: Value, channels: number): boolean => [1, channels].includes(sizeOf(v.type.shape));
const termOf = (a: Atom): Term => ({ sign: 1, powers: new Map([[a, 1]]) });

/** 1 and -1 for ops that give √v and 1 / √v of their first operand. */
export function rootPower(s: Structure, op: Op): 1 | -1 | undefined {
  if (op.name === 'sqrt') return 1;
  if (op.name === 'rsqrt') return -1;
  const exponent = op.name === 'pow' ? s.number(op.operands[1]!) : undefined;
  return exponent === 0.5 ? 1 : exponent === -0.5 ? -1 : undefined;
}

function combined(op: Op, [p, q = []]: readonly (readonly Term[])[]): readonly Term[] | undefined {
  switch (op.name) {
    case 'add':
      return limited([...p!, ...q]);
    case 'sub':
      return limited([...p!, ...q.map(negative)]);
    case 'neg':
      return p!.map(negative);
    case 'mul':
      return limited(p!.flatMap((t) => q.map((u) => product(t, u, 1))));
    case 'div':
      return q.length === 1 ? p!.map((t) => product(t, q[0]!, -1)) : undefined;
    case 'recip':
      return p!.length === 1 ? [product({ sign: 1, powers: new Map() }, p![0]!, -1)] : undefined;
    default:
      return p;
  }
}

const limited = (terms: readonly Term[]): readonly Term[] | undefined => (terms.length <= mostTerms ? terms : undefined);
const negative = ({ sign, powers }: Term): Term => ({ sign: sign === 1 ? -1 : 1, powers });

function product(t: Term, u: Term, power: 1 | -1): Term {
  const powers = new Map(t.powers);
  for (const [a, k] of u.powers) {
    const sum = (powers.get(a) ?? 0) + k * power;
    if (sum === 0) powers.delete(a);
    else powers.set(a, sum);
  }
  return { sign: t.sign === u.sign ? 1 : -1, powers };
}

/** Whether a value has one element, or one for each channel along an axis. */
const alongAxis = (v: Value, axis: number, channels: number): boolean => v.type.shape.every((d, i) => d === 1 || (i === axis && d === channels));

/** Where a value that has one axis longer than 1 has it. */
const movedAxis = (v: Value): number => Math.max(0, v.type.shape.findIndex((d) => d !== 1));
