/** Makes a model give the statistics of what its normalizations normalize, in place of its outputs. */
import type { Graph, Value } from '../../ir/graph.ts';
import { Builder } from '../../ir/builder.ts';
import type { Target } from '../../ir/tile.ts';
import { sizeOf } from '../../ir/type.ts';
import { eliminateDeadCode } from '../eliminate-dead-code.ts';
import { findNorms, placeOf, type BatchNorm } from './find-norms.ts';
import { sampleNorms, type SampleNorm } from './find-sample-norms.ts';
import { nodeOf } from './lint-norms.ts';
import type { NormalizedModel, NormalizedValue } from './rewrite-norms.ts';

/** A normalization whose input (or, of the form `given`, whose result) is measured. */
export interface MeasuredNorm {
  /** The ONNX node. */
  readonly node: string;
  readonly channels: number;
  /** Positions of a channel in one sample. */
  readonly positions: number;
  readonly epsilon: number;
  /** By the statistics of the batch, by running ones, or by those of `groups` groups of channels of one sample; `given`: measured is what the norm gives, before scale and shift. */
  readonly form: { readonly kind: 'batch' } | { readonly kind: 'running' } | { readonly kind: 'given' } | { readonly kind: 'sample'; readonly groups: number };
  /** Running statistics, one element a channel, where the model has them. */
  readonly running: { readonly mean: ArrayLike<number>; readonly variance: ArrayLike<number> } | undefined;
  /** Names of the outputs: the mean of each channel of each sample over its positions, and the sum of squared deviations from it; [n, channels]. */
  readonly outputs: { readonly mean: string; readonly m2: string };
}

export interface Measurement {
  /** The model with the measurements as its only outputs. */
  readonly graph: Graph;
  /** In the order of the graph. */
  readonly norms: readonly MeasuredNorm[];
  /** Normalizations that are not measured: inside branches and loop bodies, which may not run or run many times, or with channels elsewhere than on axis 1. */
  readonly left: readonly { readonly node: string; readonly why: string }[];
}

type Found = Omit<MeasuredNorm, 'outputs'> & { readonly x: Value };

/**
 * Adds, for every normalization over channels on axis 1, the moments of its input over the positions of each sample and channel: all statistics of the norm follow from them. `rewritten` are norms
 * whose statistics follow from more than that (running and reference ones, parts of the batch): they are measured by what they give, and beside them the norms of one sample that `before` has.
 */
export function measureNorms(model: NormalizedModel, target: Target, rewritten?: { readonly normalized: readonly NormalizedValue[]; readonly before: Graph }): Measurement {
  const { graph } = model;
  const measured = new Map<Value, Found[]>();
  const left: { node: string; why: string }[] = [];
  const note = (at: Value, found: Found): void => void measured.set(at, [...(measured.get(at) ?? []), found]);
  if (rewritten) {
    for (const { node, value, shape, within } of rewritten.normalized) {
      if (within.length > 0) left.push({ node, why: `stands ${placeOf({ within })}` });
      else note(value, { node, channels: shape[1]!, positions: sizeOf(shape.slice(2)), x: value, epsilon: 0, form: { kind: 'given' }, running: undefined });
    }
  } else {
    const states = new Map(graph.state.map((s) => [s.value, s.init]));
    for (const norm of findNorms(graph, model.statistics)) {
      if (norm.within.length > 0) left.push({ node: nodeOf(norm), why: `stands ${placeOf(norm)}` });
      else note(norm.last.results[0]!, batchNorm(norm, states));
    }
  }
  const kept = rewritten && new Set(sampleNorms(rewritten.before).map((n) => n.moments.results[0]));
  for (const norm of sampleNorms(graph)) {
    if (kept && !kept.has(norm.moments.results[0])) continue;
    const node = norm.moments.source.join(', ');
    if (norm.within.length > 0) left.push({ node, why: `stands ${placeOf(norm)}` });
    else if (ofTokens(norm)) left.push({ node, why: 'normalizes the features of each token' });
    else note(norm.moments.results[0]!, sampleNorm(norm));
  }
  const b = new Builder(graph.name);
  b.adopt(graph);
  const outputs: { name: string; value: Value }[] = [];
  const norms: MeasuredNorm[] = [];
  const measure = (at: Value): void => {
    for (const { x, ...facts } of measured.get(at) ?? []) {
      const flat = b.reshape(x, [sizeOf(x.type.shape) / facts.channels / facts.positions, facts.channels, facts.positions]);
      const [mean, m2] = b.op('moments', [flat], { axes: [2] }) as [Value, Value];
      const names = { mean: `norm.${norms.length}.mean`, m2: `norm.${norms.length}.m2` };
      outputs.push({ name: names.mean, value: mean }, { name: names.m2, value: m2 });
      norms.push({ ...facts, outputs: names });
    }
  };
  graph.inputs.forEach(measure);
  for (const op of graph.ops) {
    b.append(op);
    op.results.forEach(measure);
  }
  return { graph: eliminateDeadCode(b.finish(outputs), target), norms, left };
}

const shapeFacts = (x: Value): { readonly channels: number; readonly positions: number } => ({ channels: x.type.shape[1]!, positions: sizeOf(x.type.shape.slice(2)) });

function batchNorm(norm: BatchNorm, states: ReadonlyMap<Value, Graph['state'][number]['init']>): Found {
  const [mean, variance] = [norm.running?.mean, norm.running?.variance].map((v) => v && states.get(v));
  const known = mean && variance && mean !== 'zero' && variance !== 'zero';
  return {
    node: nodeOf(norm), ...shapeFacts(norm.x), x: norm.x, epsilon: norm.epsilon, form: { kind: norm.form === 'training' ? 'batch' : 'running' },
    running: known ? { mean: Array.from(mean.data, Number), variance: Array.from(variance.data, Number) } : undefined,
  };
}

const sampleNorm = ({ x, groups, epsilon, moments }: SampleNorm): Found => ({
  node: moments.source.join(', ') || moments.name, ...shapeFacts(x), x, epsilon: epsilon ?? 0, form: { kind: 'sample', groups }, running: undefined,
});

/** A layer norm over the last axis of [n, tokens, features] has its channels there. */
const ofTokens = ({ moments, x }: SampleNorm): boolean => x.type.shape.length === 3 && moments.operands[0] === x && moments.source.some((s) => s.startsWith('LayerNormalization'));
