/** Pitfalls of batch normalization that a graph shows without data. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { num } from '../../ir/op.ts';
import { openRegions, placedOps } from '../../ir/regions.ts';
import { findNorms, placeOf, type BatchNorm, type Statistic } from './find-norms.ts';
import type { NormSpec } from './options.ts';
import type { NormalizedModel } from './rewrite-norms.ts';

/** Something that a user should know about a model. The last two rules need data. */
export interface Finding {
  readonly rule:
    | 'batch-dependence' | 'training-inference-mismatch' | 'shared-statistics' | 'shared-towers' | 'part-of-the-batch' | 'frozen-statistics' | 'momentum' | 'epsilon' | 'batch-of-one' | 'lost-statistics'
    | 'unlike-batches' | 'running-statistics';
  /** The ONNX nodes that it is about. */
  readonly nodes: readonly string[];
  readonly reason: string;
  readonly remedy: string;
  /** The size of the error, where it can be computed. */
  readonly figures?: Readonly<Record<string, number>>;
}

export interface LintOptions {
  /** Norms that follow the batch in another way: the model is linted as if it had been rewritten to them. */
  readonly spec?: NormSpec;
  /** Samples of the batches that it is run on, where that is not the batch size that it was imported in. */
  readonly batch?: number;
}

/** Lints the batch normalizations of a model, in the mode (training or inference) that it was imported in. */
export function lintNorms({ graph, statistics }: NormalizedModel, { spec, batch }: LintOptions = {}): Finding[] {
  const norms = findNorms(graph, statistics);
  const training = norms.filter((n) => n.form === 'training' || spec);
  const frozen = norms.filter((n) => n.form === 'inference' && !spec);
  const findings: Finding[] = [];
  const add = (rule: Finding['rule'], about: readonly BatchNorm[], reason: string, remedy: string): void => {
    if (about.length > 0) findings.push({ rule, nodes: about.map(nodeOf), reason, remedy });
  };
  add('training-inference-mismatch', training, `${count(training.length)} by ${statisticsOf(spec)} in training and by ${spec?.kind === 'domains' ? 'the running statistics of its domain' : 'running statistics'} in inference: the same sample gives different results`,
    'rewrite them (--norm group:4+proxy, or another norm of one sample), or see that batches are large and like the data that inference meets');
  for (const { state, norms: sharing } of sharedStatistics(training, statistics)) {
    const towers = areTowers(sharing, graph);
    add(towers ? 'shared-towers' : 'shared-statistics', sharing,
      `the running statistic "${state.name ?? ''}" is updated by ${sharing.length} normalizations${towers ? ' of one network with shared weights,' : ''} fed by different values: in training each normalizes by its own, inference uses a mixture that fits none of them, and whose variance lacks what lies between their means`,
      'give each its own statistics (scale and shift may stay shared), mix what feeds them in one batch, or rewrite to a norm of one sample (--norm layer+proxy)');
  }
  add('part-of-the-batch', training.filter((n) => isPart(n, graph)), 'the normalization sees a part of the batch: its statistics are those of fewer samples than the batch has, and depend on how it is split', 'normalize before the split, or rewrite to a norm of one sample (--norm group:4+proxy)');
  if (training.length > 0) {
    add('frozen-statistics', frozen, `${count(frozen.length)} by frozen statistics, while others of the model follow the batch: scale and shift are still trained, against statistics that no longer fit`,
      'freeze their scale and shift too, or export all normalizations in one mode');
  }
  for (const n of training.filter((x) => x.running && x.within.length > 0)) {
    add('lost-statistics', [n], `it stands ${placeOf(n)}, where a run cannot keep what its running statistics become: inference uses those that the model started with, and training is refused`,
      'rewrite it to a norm of one sample (--norm group:4+proxy) or to its running statistics (--norm frozen), or move it out of the branch or loop');
  }
  const repeated = norms.filter((n) => n.running && n.within.some(repeats));
  add('shared-statistics', repeated, `${count(repeated.length)} in every iteration of a loop by one set of running statistics: where what it normalizes changes from iteration to iteration, they fit none of them`,
    'give each iteration its own statistics (unroll the loop), or rewrite to a norm of one sample (--norm layer+proxy)');
  add('momentum', training.filter((n) => n.running?.momentum === 1), 'momentum 1 never updates the running statistics: inference uses those that the model started with', 'set momentum below 1 (0.9 is usual)');
  add('momentum', training.filter((n) => n.running?.momentum === 0), 'momentum 0 keeps the statistics of the last batch alone: inference depends on what that batch was', 'set momentum above 0 (0.9 is usual)');
  add('epsilon', norms.filter((n) => n.epsilon === 0), 'epsilon 0 divides by zero where a channel is constant', 'set epsilon (1e-5 is usual)');
  findings.push(...oneSample(training, spec, batch));
  return findings;
}

/** The finding that statistics are those of one sample, where a model (or what `spec` makes of it) is run on batches of `batch` samples. */
export function lintBatchOfOne({ graph, statistics }: NormalizedModel, batch: number, spec?: NormSpec): Finding | undefined {
  return oneSample(findNorms(graph, statistics).filter((n) => n.form === 'training' || spec), spec, batch)[0];
}

function oneSample(norms: readonly BatchNorm[], spec: NormSpec | undefined, batch: number | undefined): Finding[] {
  const alone = spec?.kind === 'ghost' && spec.size === 1;
  const found = norms.filter((n) => alone || (batch ?? n.x.type.shape[0]) === 1);
  if (found.length === 0) return [];
  return [{
    rule: 'batch-of-one', nodes: found.map(nodeOf),
    reason: `${alone ? 'parts of the batch are one sample each' : 'the batch is one sample'}: its statistics are that sample’s own, those of a single value have variance 0, and inference by running statistics differs`,
    remedy: `${alone ? 'give parts of more samples' : 'train with larger batches'}, or rewrite to a norm of one sample (--norm group:4+proxy)`,
  }];
}

/** What a norm that follows the batch normalizes by in training. */
function statisticsOf(spec: NormSpec | undefined): string {
  switch (spec?.kind) {
    case 'renorm':
      return 'statistics of the batch, brought near the running ones,';
    case 'ghost':
      return `statistics of parts of ${spec.size ?? 1} samples of the batch`;
    case 'domains':
      return 'statistics of the samples of its domain in the batch';
    default:
      return 'statistics of the batch';
  }
}

/** Whether a loop runs its body more than once, for all that is known. */
const repeats = (op: Op): boolean => op.name === 'loop' && num(op.attrs, 'trips') !== 0 && num(op.attrs, 'trips') !== 1;

/** How a finding calls a normalization. */
export const nodeOf = (norm: BatchNorm): string => norm.last.source.join(', ') || norm.last.name;

/** Whether norms are one layer of towers that share their weights: none feeds another. */
function areTowers(sharing: readonly BatchNorm[], graph: Graph): boolean {
  const [first] = sharing;
  if (!sharing.every((n) => sameList(n.bias?.factors, first?.bias?.factors) && sameList(n.scale, first?.scale))) return false;
  const fed = new Set<Value>();
  for (const { op } of placedOps(openRegions(graph))) {
    const norm = sharing.find((n) => n.last.results[0] === op.results[0]);
    if (norm && fed.has(norm.x)) return false;
    if (norm || [...op.operands, ...op.regions.flatMap((region) => region.outputs.map((o) => o.value))].some((v) => fed.has(v))) op.results.forEach((r) => fed.add(r));
  }
  return true;
}

const sameList = (p: readonly Value[] = [], q: readonly Value[] = []): boolean => p.length === q.length && p.every((v, i) => v === q[i]);

/** Whether a norm's input has fewer samples than the batch. */
const isPart = ({ x }: BatchNorm, { inputs }: Graph): boolean => x.type.shape[0]! < Math.max(...inputs.map((v) => v.type.shape[0] ?? 1));

const count = (n: number): string => (n === 1 ? 'a normalization works' : `${n} normalizations work`);

/** Statistics that several norms of different values update; the mean stands for its variance too. */
export function sharedStatistics(training: readonly BatchNorm[], statistics: readonly Statistic[]): { readonly state: Value; readonly norms: readonly BatchNorm[] }[] {
  const said = new Set<string>();
  return [...new Set(statistics.map((s) => s.state))].flatMap((state) => {
    const norms = training.filter((n) => n.running?.mean === state || n.running?.variance === state);
    const key = norms.map(nodeOf).join();
    if (said.has(key) || new Set(norms.map((n) => n.x)).size < 2) return [];
    said.add(key);
    return [{ state, norms }];
  });
}
