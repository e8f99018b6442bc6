/** Judges batch normalizations by data: whether batches are like each other, whether running statistics are those of the data, what sharing them costs. */
import { channelMoments, type ChannelMoments, type InstanceMoments } from './channel-statistics.ts';
import type { Finding } from './lint-norms.ts';
import type { MeasuredNorm } from './measure-norms.ts';

/** Batches whose means spread this many times as much as those of random batches are unlike each other, if chance does not explain it and it is not negligible. */
const spreadLimit = 2;
/** Standard deviations of chance that are allowed for. */
const chance = 4;
/** An average of variances may lack this share of the variance of the data. */
const omittedLimit = 0.01;
/** Running means may be off by this share of a deviation (root mean square over channels), and running deviations by this share of themselves. */
const offsetLimit = 0.1;
const scaleLimit = 0.1;

/** What the batches of a data set say about one normalization. One element a channel where a list is. */
export interface NormOnData {
  readonly node: string;
  readonly batches: number;
  /** Variance of the means of batches, over what batches drawn at random from the same samples would have: 1 where batches are representative. Undefined for one batch. */
  readonly spread: number | undefined;
  /** Share of the variance of the data that an average of the batches' variances lacks: the variance of their means. */
  readonly omitted: number;
  /** (mean of the data - running mean) / running deviation: where inference puts a channel that training centres at 0. */
  readonly offsets: readonly number[] | undefined;
  /** Deviation of the data / running deviation: 1 where inference scales as training does. */
  readonly scales: readonly number[] | undefined;
}

/** Adds up batches for one normalization. */
export class NormData {
  readonly norm: MeasuredNorm;
  readonly #batches: ChannelMoments[] = [];
  #samples = 0;
  readonly #sum: Float64Array;
  readonly #squares: Float64Array;

  constructor(norm: MeasuredNorm) {
    this.norm = norm;
    this.#sum = new Float64Array(norm.channels);
    this.#squares = new Float64Array(norm.channels);
  }

  add(batch: InstanceMoments): void {
    const { channels } = this.norm;
    this.#batches.push(channelMoments(batch, this.norm));
    for (let i = 0; i < batch.mean.length; i++) {
      this.#sum[i % channels]! += batch.mean[i]!;
      this.#squares[i % channels]! += batch.mean[i]! ** 2;
    }
    this.#samples += batch.mean.length / channels;
  }

  /** Mean and variance of each channel over all batches, and the parts of the variance within and between them. */
  moments(): ChannelMoments & { readonly within: Float64Array; readonly between: Float64Array } {
    const count = this.#batches.length;
    const over = (of: (b: ChannelMoments, c: number) => number): Float64Array => Float64Array.from({ length: this.norm.channels }, (_, c) => this.#batches.reduce((n, b) => n + of(b, c), 0) / count);
    const mean = over((b, c) => b.mean[c]!);
    const within = over((b, c) => b.variance[c]!);
    const between = over((b, c) => (b.mean[c]! - mean[c]!) ** 2);
    return { mean, within, between, variance: within.map((v, c) => v + between[c]!) };
  }

  /** Facts of the whole data set. */
  facts(): NormOnData {
    const { norm } = this;
    const { mean, variance, between } = this.moments();
    const scale = (c: number): number => variance[c]! + norm.epsilon;
    const sum = (of: (c: number) => number): number => mean.reduce((n, _, c) => n + of(c), 0);
    const { running, epsilon } = norm;
    const deviation = (c: number): number => Math.sqrt(running!.variance[c]! + epsilon);
    return {
      node: norm.node, batches: this.#batches.length,
      spread: this.#batches.length < 2 ? undefined : sum((c) => between[c]! / scale(c)) / Math.max(Number.MIN_VALUE, sum((c) => this.#expectedSpread(c) / scale(c))),
      omitted: sum((c) => between[c]! / scale(c)) / norm.channels,
      offsets: running && [...mean].map((m, c) => (m - running.mean[c]!) / deviation(c)),
      scales: running && [...variance].map((v, c) => Math.sqrt(v + epsilon) / deviation(c)),
    };
  }

  /** The variance that means of batches have which are drawn from the same samples without putting them back. */
  #expectedSpread(c: number): number {
    const n = this.#samples;
    const size = n / this.#batches.length;
    const variance = Math.max(0, this.#squares[c]! / n - (this.#sum[c]! / n) ** 2);
    return (variance / size) * ((n - size) / (n - 1));
  }
}

/** Findings about norms over the batch, or with running statistics. `sharing` groups norms, by their nodes, that update one running statistic. */
export function judgeStatistics(data: readonly NormData[], sharing: readonly (readonly string[])[]): Finding[] {
  const facts = data.map((d) => d.facts());
  const findings: Finding[] = [];
  const add = (rule: Finding['rule'], about: readonly NormOnData[], reason: string, remedy: string, figures: Readonly<Record<string, number>>): void => {
    if (about.length > 0) findings.push({ rule, nodes: about.map((f) => f.node), reason, remedy, figures });
  };
  const unlike = facts.filter((f) => f.spread !== undefined && f.spread > spreadLimit && f.spread > 1 + chance * Math.sqrt(2 / (f.batches - 1)) && f.omitted > omittedLimit);
  const worst = largest(unlike.map((f) => f.spread!));
  const omitted = largest(unlike.map((f) => f.omitted));
  add('unlike-batches', unlike, `batches are unlike each other: their means spread up to ${round(worst)} times as much as those of batches drawn at random, and an average of their variances lacks up to ${percent(omitted)} of the variance of the data`,
    'shuffle the samples, or mix domains within each batch; or rewrite to a norm of one sample (--norm layer+proxy)', { spread: worst, omittedVariance: omitted });
  const off = facts.filter((f) => f.offsets && (rms(f.offsets) > offsetLimit || Math.abs(Math.log(rms(f.scales!))) > Math.log(1 + scaleLimit)));
  const [offset, scale] = [largest(off.map((f) => rms(f.offsets!))), off.map((f) => rms(f.scales!)).reduce((m, s) => (Math.abs(Math.log(s)) > Math.abs(Math.log(m)) ? s : m), 1)];
  add('running-statistics', off, `running statistics are not those of the data: in inference channels are off by up to ${round(offset)} deviations (root mean square over channels), and scaled up to ${round(scale)} times as training scales them`,
    'run the data through the model in training mode until the running statistics settle, or give the data’s domain statistics of its own', { offset, scale });
  for (const nodes of sharing) {
    const own = nodes.flatMap((node) => data.filter((d) => d.norm.node === node));
    if (own.length < 2) continue;
    const { omitted: lacking, offset: shift } = mixture(own);
    findings.push({
      rule: 'shared-statistics', nodes,
      reason: `on this data the statistics that these normalizations share are off by ${round(shift)} deviations for each of them (root mean square over channels), and their variance lacks ${percent(lacking)} of that of the data together`,
      remedy: 'give each its own statistics, mix what feeds them in one batch, or rewrite to a norm of one sample (--norm layer+proxy)', figures: { offset: shift, omittedVariance: lacking },
    });
  }
  return findings;
}

/** What equal shares of several norms' inputs make of one running statistic: mean of the means, and of the variances, which lacks the variance of the means. */
export function mixture(norms: readonly NormData[]): { /** Of the variance of all inputs together; average over channels. */ readonly omitted: number; /** (own mean - shared mean) / shared deviation, root mean square. */ readonly offset: number } {
  const moments = norms.map((n) => n.moments());
  const { channels, epsilon } = norms[0]!.norm;
  let [omitted, squares] = [0, 0];
  for (let c = 0; c < channels; c++) {
    const mean = moments.reduce((n, m) => n + m.mean[c]!, 0) / moments.length;
    const variance = moments.reduce((n, m) => n + m.within[c]!, 0) / moments.length;
    const between = moments.reduce((n, m) => n + (m.mean[c]! - mean) ** 2, 0) / moments.length;
    omitted += between / (variance + between + epsilon) / channels;
    squares += between / (variance + epsilon) / channels;
  }
  return { omitted, offset: Math.sqrt(squares) };
}

/** Root mean square. */
export const rms = (list: readonly number[]): number => Math.sqrt(list.reduce((n, v) => n + v * v, 0) / Math.max(1, list.length));
const largest = (list: readonly number[]): number => list.reduce((m, v) => Math.max(m, v), 0);
const round = (v: number): string => (v >= 10 ? v.toFixed(0) : v.toPrecision(2));
const percent = (share: number): string => `${(100 * share).toPrecision(2)} %`;
