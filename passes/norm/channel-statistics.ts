/** Statistics of channels, from the moments of each channel of each sample. Plain arithmetic in float64. */
import type { MeasuredNorm } from './measure-norms.ts';

/** Means over the positions of each channel of each sample, and sums of squared deviations from them: row-major [samples, channels]. */
export interface InstanceMoments {
  readonly mean: ArrayLike<number>;
  readonly m2: ArrayLike<number>;
}

export interface ChannelMoments {
  readonly mean: Float64Array;
  /** Of all elements; not corrected for their number. */
  readonly variance: Float64Array;
}

/** Mean and variance of each channel over all samples and positions, combined without cancellation (Chan, Golub, LeVeque 1979). */
export function channelMoments({ mean, m2 }: InstanceMoments, { channels, positions }: Pick<MeasuredNorm, 'channels' | 'positions'>): ChannelMoments {
  const samples = mean.length / channels;
  const out: ChannelMoments = { mean: new Float64Array(channels), variance: new Float64Array(channels) };
  for (let c = 0; c < channels; c++) {
    let sum = 0;
    for (let n = 0; n < samples; n++) sum += mean[n * channels + c]!;
    const middle = sum / samples;
    let squares = 0;
    for (let n = 0; n < samples; n++) squares += m2[n * channels + c]! / positions + (mean[n * channels + c]! - middle) ** 2;
    out.mean[c] = middle;
    out.variance[c] = squares / samples;
  }
  return out;
}

/** The power of a normalized tensor y, split over channels, samples and positions (Labatie et al., arXiv 2106.03743, figure 2): the four parts sum to the mean of y². */
export interface PowerParts {
  /** Squared mean over samples of the mean over positions. */
  readonly p1: number;
  /** Variance over samples of the mean over positions. */
  readonly p2: number;
  /** Squared mean over samples of the deviation over positions. */
  readonly p3: number;
  /** Variance over samples of the deviation over positions. */
  readonly p4: number;
}

/** Adds up the power of what a norm gives, before scale and shift, batch by batch. */
export class PowerSums {
  readonly #norm: MeasuredNorm;
  #samples = 0;
  readonly #sums: readonly [Float64Array, Float64Array, Float64Array, Float64Array];

  constructor(norm: MeasuredNorm) {
    this.#norm = norm;
    const empty = (): Float64Array => new Float64Array(norm.channels);
    this.#sums = [empty(), empty(), empty(), empty()];
  }

  /** A batch: a norm over the batch takes its statistics. */
  add(batch: InstanceMoments): void {
    const { channels, positions } = this.#norm;
    const shape = normalizerOf(this.#norm, batch);
    const samples = batch.mean.length / channels;
    const [means, meanSquares, deviations, deviationSquares] = this.#sums;
    for (let n = 0; n < samples; n++) {
      for (let c = 0; c < channels; c++) {
        const at = n * channels + c;
        const { mean, deviation } = shape(n, c);
        const y = (batch.mean[at]! - mean) / deviation;
        const spread = Math.sqrt(batch.m2[at]! / positions) / deviation;
        means[c]! += y;
        meanSquares[c]! += y * y;
        deviations[c]! += spread;
        deviationSquares[c]! += spread * spread;
      }
    }
    this.#samples += samples;
  }

  /** The four parts, averaged over channels. */
  parts(): PowerParts {
    const [means, meanSquares, deviations, deviationSquares] = this.#sums.map((s) => s.map((v) => v / this.#samples)) as [Float64Array, Float64Array, Float64Array, Float64Array];
    const average = (of: (c: number) => number): number => means.reduce((sum, _, c) => sum + of(c), 0) / means.length;
    return {
      p1: average((c) => means[c]! ** 2), p2: average((c) => meanSquares[c]! - means[c]! ** 2),
      p3: average((c) => deviations[c]! ** 2), p4: average((c) => deviationSquares[c]! - deviations[c]! ** 2),
    };
  }
}

/** What a norm subtracts from a channel of a sample, and what it divides by. */
function normalizerOf(norm: MeasuredNorm, batch: InstanceMoments): (n: number, c: number) => { readonly mean: number; readonly deviation: number } {
  const { channels, positions, epsilon, form, running } = norm;
  const by = (mean: ArrayLike<number>, variance: ArrayLike<number>, at: number): { readonly mean: number; readonly deviation: number } => ({ mean: mean[at]!, deviation: Math.sqrt(variance[at]! + epsilon) });
  if (form.kind === 'sample') {
    // A group of one sample is like a channel whose samples are the group's channels.
    const width = channels / form.groups;
    const cache = Array.from({ length: batch.mean.length / width }, (_, g) => {
      const part = (list: ArrayLike<number>): number[] => Array.from({ length: width }, (__, i) => list[g * width + i]!);
      const { mean, variance } = channelMoments({ mean: part(batch.mean), m2: part(batch.m2) }, { channels: 1, positions });
      return by(mean, variance, 0);
    });
    return (n, c) => cache[n * form.groups + Math.floor(c / width)]!;
  }
  if (form.kind === 'given') return () => ({ mean: 0, deviation: 1 });
  if (form.kind === 'running' && running) return (_, c) => by(running.mean, running.variance, c);
  const { mean, variance } = channelMoments(batch, norm);
  return (_, c) => by(mean, variance, c);
}
