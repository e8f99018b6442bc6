/** Pitfalls of batch normalization that a graph shows without data. */
import type { Value } from '../../ir/graph.ts';
import { findNorms, type BatchNorm, type Statistic } from './find-norms.ts';
import type { NormalizedModel } from './rewrite-norms.ts';

/** Something that a user should know about a model. */
export interface Finding {
  readonly rule: 'batch-dependence' | 'training-inference-mismatch' | 'shared-statistics' | 'frozen-statistics' | 'momentum' | 'epsilon' | 'batch-of-one';
  /** The ONNX nodes that it is about. */
  readonly nodes: readonly string[];
  readonly reason: string;
  readonly remedy: string;
}

/** Lints the batch normalizations of a model, in the batch size and the mode (training or inference) that it was imported in. */
export function lintNorms({ graph, statistics }: NormalizedModel): Finding[] {
  const norms = findNorms(graph, statistics);
  const training = norms.filter((n) => n.form === 'training');
  const frozen = norms.filter((n) => n.form === 'inference');
  const findings: Finding[] = [];
  const add = (rule: Finding['rule'], about: readonly BatchNorm[], reason: string, remedy: string): void => {
    if (about.length > 0) findings.push({ rule, nodes: about.map(nodeOf), reason, remedy });
  };
  add('training-inference-mismatch', training, `${count(training.length)} by statistics of the batch in training and by running statistics in inference: the same sample gives different results`,
    'rewrite them (--norm group:4+proxy, or another norm of one sample), or see that batches are large and like the data that inference meets');
  for (const shared of sharedStatistics(training, statistics)) {
    add('shared-statistics', shared.norms, `the running statistic "${shared.state.name ?? ''}" is updated by ${shared.norms.length} normalizations of different values: it becomes a mixture that fits none of them, and its variance lacks what lies between their means`,
      'give each normalization statistics of its own');
  }
  if (training.length > 0) {
    add('frozen-statistics', frozen, `${count(frozen.length)} by frozen statistics, while others of the model follow the batch: scale and shift are still trained, against statistics that no longer fit`,
      'freeze their scale and shift too, or export all normalizations in one mode');
  }
  add('momentum', training.filter((n) => n.running?.momentum === 1), 'momentum 1 never updates the running statistics: inference uses those that the model started with', 'set momentum below 1 (0.9 is usual)');
  add('momentum', training.filter((n) => n.running?.momentum === 0), 'momentum 0 keeps the statistics of the last batch alone: inference depends on what that batch was', 'set momentum above 0 (0.9 is usual)');
  add('epsilon', norms.filter((n) => n.epsilon === 0), 'epsilon 0 divides by zero where a channel is constant', 'set epsilon (1e-5 is usual)');
  add('batch-of-one', training.filter((n) => n.x.type.shape[0] === 1), 'the batch is one sample: its statistics are that sample’s own, those of a single value have variance 0, and inference by running statistics differs',
    'train with larger batches, or rewrite to a norm of one sample (--norm group:4+proxy)');
  return findings;
}

/** How a finding calls a normalization. */
export const nodeOf = (norm: BatchNorm): string => norm.last.source.join(', ') || norm.last.name;

const count = (n: number): string => (n === 1 ? 'a normalization works' : `${n} normalizations work`);

/** Statistics that several norms of different values update. */
function sharedStatistics(training: readonly BatchNorm[], statistics: readonly Statistic[]): { readonly state: Value; readonly norms: readonly BatchNorm[] }[] {
  return [...new Set(statistics.map((s) => s.state))].flatMap((state) => {
    const norms = training.filter((n) => n.running?.mean === state || n.running?.variance === state);
    return new Set(norms.map((n) => n.x)).size > 1 ? [{ state, norms }] : [];
  });
}
