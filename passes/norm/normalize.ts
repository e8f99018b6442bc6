/** x without the mean and scale of a normalization's statistics, before scale and shift. */
import type { Builder } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Value } from '../../ir/graph.ts';
import { sizeOf } from '../../ir/type.ts';
import type { BatchNorm, Statistic } from './find-norms.ts';
import { showNorm, type NormSpec } from './options.ts';

/** Share of the old running statistic that an update keeps, where the model does not say. */
const defaultMomentum = 0.9;
/** Of norms over samples; batch norm keeps the model's own. */
const defaultEpsilon = 1e-3;

/** (x - mean) / sqrt(variance + ε), and the running statistics that it keeps. Groups have an axis of their own: `row` shapes one element a channel to broadcast to the value. */
export interface Normalized {
  readonly value: Value;
  readonly statistics: readonly Statistic[];
  row(v: Value): Value;
}

/** Normalizes x by the statistics that `spec` names. */
export function normalize(b: Builder, x: Value, norm: BatchNorm, spec: NormSpec): Normalized {
  const { shape } = x.type;
  const [n, channels] = shape as [number, number];
  const epsilon = spec.epsilon ?? (spec.kind === 'batch' || spec.kind === 'frozen' ? norm.epsilon : defaultEpsilon);
  const row = (v: Value): Value => b.reshape(v, shape.map((_, i) => (i === 1 ? channels : 1)));
  const centred = (from: Value, mean: Value, variance: Value): Value => b.mul(b.sub(from, mean), b.unary('rsqrt', b.add(variance, epsilon)));
  switch (spec.kind) {
    case 'none':
      return { value: x, statistics: [], row };
    case 'frozen': {
      const { mean, variance } = running(norm, spec);
      return { value: centred(x, row(b.cast(mean, x.type.dtype)), row(b.cast(variance, x.type.dtype))), statistics: [mean, variance].map((state) => ({ state, next: undefined })), row };
    }
    case 'batch': {
      const axes = shape.flatMap((_, i) => (i === 1 ? [] : [i]));
      const [mean, m2] = b.op('moments', [x], { axes }) as [Value, Value];
      const variance = b.div(m2, sizeOf(shape) / channels);
      const own = running(norm, spec);
      const momentum = own.momentum ?? defaultMomentum;
      const next = (state: Value, now: Value): Statistic => ({ state, next: b.add(b.mul(state, momentum), b.mul(b.reshape(b.cast(now, state.type.dtype), state.type.shape), 1 - momentum)) });
      return { value: centred(x, row(mean), row(variance)), statistics: [next(own.mean, mean), next(own.variance, variance)], row };
    }
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
