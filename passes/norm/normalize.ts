/** x without the mean and scale of a normalization's statistics, before scale and shift. */
import type { Builder } from '../../ir/builder.ts';
import { InternalError, UserError } from '../../ir/diagnostic.ts';
import type { Value } from '../../ir/graph.ts';
import { sizeOf } from '../../ir/type.ts';
import { byDomain, type Domains } from './by-domain.ts';
import type { BatchNorm, Statistic } from './find-norms.ts';
import { showNorm, type NormKind, type NormSpec } from './options.ts';
import type { ReferenceMoments } from './reference-batch.ts';

/** Share of the old running statistic that an update keeps, where the model does not say. */
const defaultMomentum = 0.9;
/** Of norms within a sample; those over samples keep the model's own. */
const defaultEpsilon = 1e-3;
const overSamples: ReadonlySet<NormKind> = new Set(['batch', 'frozen', 'renorm', 'ghost', 'virtual', 'domains']);
const defaultLimits = [3, 5] as const;

/** (x - mean) / sqrt(variance + ε), and the running statistics that it keeps. Axes may be split: `row` shapes one element a channel to broadcast to the value. */
export interface Normalized {
  readonly value: Value;
  readonly statistics: readonly Statistic[];
  row(v: Value): Value;
}

/** What kinds of norms need besides x. */
export interface Surroundings {
  /** Of `domains`. */
  readonly domains: Domains | undefined;
  /** Of `virtual`: the moments of the same value of the reference batch. */
  readonly reference: ReferenceMoments | undefined;
}

/** Normalizes x by the statistics that `spec` names. */
export function normalize(b: Builder, x: Value, norm: BatchNorm, spec: NormSpec, around: Surroundings): Normalized {
  const { shape } = x.type;
  const [n, channels] = shape as [number, number];
  const epsilon = spec.epsilon ?? (overSamples.has(spec.kind) ? norm.epsilon : defaultEpsilon);
  const row = (v: Value): Value => b.reshape(v, shape.map((_, i) => (i === 1 ? channels : 1)));
  const inverse = (variance: Value): Value => b.unary('rsqrt', b.add(variance, epsilon));
  const centred = (from: Value, mean: Value, variance: Value): Value => b.mul(b.sub(from, mean), inverse(variance));
  /** Running statistics after a batch with these. */
  const updated = (mean: Value, variance: Value): readonly Statistic[] => {
    const own = running(norm, spec);
    const momentum = own.momentum ?? defaultMomentum;
    const next = (state: Value, now: Value): Statistic => ({ state, next: b.add(b.mul(state, momentum), b.mul(b.reshape(b.cast(now, state.type.dtype), state.type.shape), 1 - momentum)) });
    return [next(own.mean, mean), next(own.variance, variance)];
  };
  const batchMoments = (): { readonly mean: Value; readonly variance: Value } => {
    const [mean, m2] = b.op('moments', [x], { axes: shape.flatMap((_, i) => (i === 1 ? [] : [i])) }) as [Value, Value];
    return { mean, variance: b.div(m2, sizeOf(shape) / channels) };
  };
  switch (spec.kind) {
    case 'none':
      return { value: x, statistics: [], row };
    case 'frozen': {
      const { mean, variance } = running(norm, spec);
      return { value: centred(x, row(b.cast(mean, x.type.dtype)), row(b.cast(variance, x.type.dtype))), statistics: [mean, variance].map((state) => ({ state, next: undefined })), row };
    }
    case 'batch': {
      const { mean, variance } = batchMoments();
      return { value: centred(x, row(mean), row(variance)), statistics: updated(mean, variance), row };
    }
    case 'renorm': {
      const { mean, variance } = batchMoments();
      const own = running(norm, spec);
      const [scaleLimit, shiftLimit] = spec.limits ?? defaultLimits;
      const flat = (v: Value): Value => b.reshape(b.cast(v, x.type.dtype), [channels]);
      const deviation = inverse(flat(own.variance));
      const clamped = (v: Value, low: number, high: number): Value => detached(b, b.min(b.max(v, low), high));
      const scale = clamped(b.mul(b.unary('sqrt', b.add(variance, epsilon)), deviation), 1 / scaleLimit, scaleLimit);
      const shift = clamped(b.mul(b.sub(mean, flat(own.mean)), deviation), -shiftLimit, shiftLimit);
      return { value: b.add(b.mul(centred(x, row(mean), row(variance)), row(scale)), row(shift)), statistics: updated(mean, variance), row };
    }
    case 'ghost': {
      const size = spec.size ?? n;
      if (n % size !== 0) throw new UserError(`a batch of ${n} does not divide into parts of ${size} samples, which ${showNorm(spec)} normalizes by themselves: give a divisor of the batch`);
      const split = [n / size, size, channels, ...shape.slice(2)];
      const parts = b.reshape(x, split);
      const [mean, m2] = b.op('moments', [parts], { axes: split.flatMap((_, i) => (i === 0 || i === 2 ? [] : [i])) }) as [Value, Value];
      const variance = b.div(m2, sizeOf(split) / split[0]! / channels);
      const each = (v: Value): Value => b.reshape(v, split.map((d, i) => (i === 0 || i === 2 ? d : 1)));
      const average = (v: Value): Value => b.div(b.reduce('reduceSum', v, [0]), split[0]!);
      return { value: centred(parts, each(mean), each(variance)), statistics: updated(average(mean), average(variance)), row: (v) => b.reshape(v, split.map((d, i) => (i === 2 ? d : 1))) };
    }
    case 'virtual': {
      const { mean, variance } = joinedMoments(b, x, around.reference!);
      const each = (v: Value): Value => b.reshape(v, shape.map((d, i) => (i < 2 ? d : 1)));
      return { value: centred(x, each(mean), each(variance)), statistics: [], row };
    }
    case 'domains': {
      const own = running(norm, spec);
      const { mean, variance, statistics } = byDomain(b, x, own, own.momentum ?? defaultMomentum, around.domains!);
      return { value: centred(x, mean, variance), statistics, row };
    }
    case 'keep':
      throw new InternalError('a norm that is kept is not rewritten');
    default: {
      const groups = groupsOf(spec, channels, norm);
      // Spatial axes stay apart, so that any order in memory will do.
      const split = [n, groups, channels / groups, ...shape.slice(2)];
      const grouped = b.reshape(x, split);
      const axes = split.map((_, i) => i).slice(2);
      const [mean, m2] = b.op('moments', [grouped], { axes }) as [Value, Value];
      const each = (v: Value): Value => b.reshape(v, split.map((size, i) => (i < 2 ? size : 1)));
      return {
        value: centred(grouped, each(mean), each(b.div(m2, sizeOf(shape) / (n * groups)))),
        statistics: [],
        row: (v) => b.reshape(v, split.map((size, i) => (i === 1 || i === 2 ? size : 1))),
      };
    }
  }
}

/** The same bits, through which no gradient flows. */
function detached(b: Builder, v: Value): Value {
  const bits = b.one('bitcast', [v], { to: v.type.dtype === 'f64' ? 'i64' : 'i32' });
  return b.one('bitcast', [bits], { to: v.type.dtype });
}

/** Mean and variance of each sample's channels together with those of the reference batch: [N, C], by Chan's rule. */
function joinedMoments(b: Builder, x: Value, { mean: referenceMean, m2: referenceM2, samples }: ReferenceMoments): { readonly mean: Value; readonly variance: Value } {
  const { shape } = x.type;
  const area = sizeOf(shape.slice(2));
  const [mean, m2] = (shape.length > 2 ? b.op('moments', [x], { axes: shape.map((_, i) => i).slice(2) }) : [x, b.mul(x, 0)]) as [Value, Value];
  const all = area * (samples + 1);
  const apart = b.sub(mean, referenceMean);
  const between = b.mul(b.mul(apart, apart), (area * area * samples) / all);
  return { mean: b.add(referenceMean, b.mul(apart, area / all)), variance: b.div(b.add(b.add(m2, between), referenceM2), all) };
}

/** Groups of contiguous channels: a layer norm has one, an instance norm one a channel. */
function groupsOf({ kind, groups }: NormSpec, channels: number, norm: BatchNorm): number {
  if (kind === 'layer') return 1;
  if (kind === 'instance') return channels;
  const count = Math.min(groups ?? 1, channels);
  if (channels % count !== 0) {
    const divisors = Array.from({ length: channels }, (_, i) => i + 1).filter((d) => channels % d === 0);
    throw new UserError(`${norm.last.source[0] ?? 'a normalization'} has ${channels} channels, which do not divide into ${count} groups; give one of ${divisors.join(', ')}`);
  }
  return count;
}

function running(norm: BatchNorm, spec: NormSpec): NonNullable<BatchNorm['running']> {
  if (!norm.running) throw new UserError(`${norm.last.source[0] ?? 'a normalization'} has no running statistics, which ${showNorm(spec)} needs`);
  return norm.running;
}
