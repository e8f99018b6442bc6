/** Gives the batch normalizations of a model another form. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { closeRegions, openRegions, placedOps } from '../../ir/regions.ts';
import type { Target } from '../../ir/tile.ts';
import { eliminateDeadCode } from '../eliminate-dead-code.ts';
import { findNorms, placeOf, type BatchNorm, type Statistic } from './find-norms.ts';
import { leftNorms, type LeftNorm } from './left-norms.ts';
import { normalizeWeights, type NormalizedWeight } from './normalize-weights.ts';
import { inferenceForm, showNorm, type NormKind, type NormSpec } from './options.ts';
import { isProxied } from './own-names.ts';
import { referenceBatch } from './reference-batch.ts';
import { Rewriting } from './rewriting.ts';
import { settledStatistics } from './settled-norms.ts';

/** A graph and its running statistics, as the importer gives them. */
export interface NormalizedModel {
  readonly graph: Graph;
  readonly statistics: readonly Statistic[];
}

export interface RewriteOptions {
  /** Norms over samples take the form that inference has: by running statistics. */
  readonly inference?: boolean;
}

/**
 * Gives the normalizations of a model, and its weights, the form that `spec` names: see `rewriteBatchNorms` and `normalizeWeights`. A model that has the form already comes back as it is; one
 * without normalizations is a UserError.
 */
export function rewriteNorms(model: NormalizedModel, spec: NormSpec, target: Target, options: RewriteOptions = {}): RewriteResult {
  checkNumbers(spec);
  const base: RewriteResult = spec.kind === 'keep' ? { ...model, ...nothing } : rewriteBatchNorms(model, spec, target, options);
  if (!spec.weights) return base;
  const { graph, weights } = normalizeWeights(base.graph, spec.weights);
  return { ...base, graph, weights };
}

/** What happened to a normalization. */
export interface RewrittenNorm {
  /** The ONNX node. */
  readonly node: string;
  readonly from: BatchNorm['form'];
  readonly channels: number;
  /** Names of the proxy's parameters, where an activation follows and a proxy was asked for. */
  readonly proxy: readonly string[];
}

/** What a rewrite did. */
export interface RewriteReport {
  /** Empty for a model that had this form already. */
  readonly rewritten: readonly RewrittenNorm[];
  /** What looks like a batch normalization and stays as it is. */
  readonly left: readonly LeftNorm[];
  /** Weights that got a normalization. */
  readonly weights: readonly NormalizedWeight[];
}

/** What a rewritten norm gives before scale and shift: `shape` with its axes split into groups or parts. */
export interface NormalizedValue {
  /** The ONNX node. */
  readonly node: string;
  readonly value: Value;
  readonly shape: readonly number[];
  /** The branches and loops in which it stands, outermost first. */
  readonly within: readonly Op[];
}

export type RewriteResult = NormalizedModel & RewriteReport & { readonly normalized: readonly NormalizedValue[] };

/** What a rewrite did, without the model. */
export const reportOf = ({ rewritten, left, weights }: RewriteReport): RewriteReport => ({ rewritten, left, weights });

const nothing: Omit<RewriteResult, keyof NormalizedModel> = { rewritten: [], left: [], weights: [], normalized: [] };

function checkNumbers({ epsilon, proxy }: NormSpec): void {
  for (const [what, value] of [['epsilon', epsilon], ['epsilon of the proxy', proxy?.epsilon]] as const) {
    if (value !== undefined && !(value > 0 && value < Infinity)) throw new UserError(`the ${what} of a normalization is ${value}: it is added to variances before their root is taken, so it has to be above 0 (0.001 is usual)`);
  }
}

/**
 * Replaces every batch normalization of a graph and of its branches and loop bodies, in training or inference form, by the one that `spec` names; scale and shift carry over. With a proxy, a norm that an activation follows is normalised
 * once more behind it, by the moments of the activation under a Gaussian proxy: two parameters a channel are added, zero at the start. A norm without an activation of its own keeps its
 * affine (its scale alone with `centerOnly`).
 */
function rewriteBatchNorms(model: NormalizedModel, wanted: NormSpec, target: Target, { inference = false }: RewriteOptions = {}): RewriteResult {
  const spec = inference ? inferenceForm(wanted) : wanted;
  const { statistics } = model;
  const graph = openRegions(model.graph);
  const all = findNorms(graph, statistics);
  const left = leftNorms(graph, all);
  const lost = statistics.find(({ state }) => !all.some((n) => n.running?.mean === state || n.running?.variance === state) && !isUnused(graph, state));
  if (all.length === 0 || lost) {
    const settled = settledStatistics(graph, wanted);
    if (settled) return { graph: model.graph, ...nothing, left, statistics: [...statistics, ...settled] };
  }
  if (lost) throw new Unsupported('rewriting of this normalization', `the normalization of the running statistic "${lost.state.name ?? ''}" cannot be rewritten: its parameters depend on data; rewrite it in the model`);
  if (all.length === 0) {
    const [first] = left;
    throw new UserError(`the model has no batch normalization to rewrite to ${showNorm(wanted)}: ${first ? `what comes nearest is ${first.node}, but ${first.reason}` : 'it was built with other normalizations or none, or exported in inference form with its normalizations folded into convolutions (export it in training form)'}`);
  }
  const fits = (n: BatchNorm): boolean => (spec.kind === 'batch' && n.form === 'training') || (spec.kind === 'frozen' && n.form === 'inference');
  const norms = all.filter((n) => !fits(n) || (spec.proxy !== undefined && !all.some((m) => isProxied(m, graph))));
  if (norms.length === 0) return { graph: model.graph, ...nothing, left, statistics: spec.kind === 'frozen' ? withFrozen(graph, statistics, all) : statistics };
  const inner = acrossRuns.has(spec.kind) ? norms.find((n) => n.within.length > 0) : undefined;
  if (inner) throw new Unsupported(`${spec.kind} normalization inside branches and loops`, `${nameOf(inner)} stands ${placeOf(inner)}, where ${showNorm(spec)} cannot keep its statistics from run to run; give it a norm that needs none (group:G, layer, instance, none), or the running statistics that it has (frozen), or move it out in the model`);

  const reference = spec.kind === 'virtual' ? referenceBatch(rewriteBatchNorms(model, { kind: 'batch', ...(spec.epsilon !== undefined && { epsilon: spec.epsilon }) }, target).graph, spec.reference) : undefined;
  const rewriting = new Rewriting(graph, spec, norms, { inference, reference });
  const made = rewriting.run();
  const kept = [...statistics.filter(({ state }) => !norms.some((n) => n.running?.mean === state || n.running?.variance === state)), ...rewriting.statistics];
  // Running statistics become updates only in training: what computes them has to survive until then.
  const held = eliminateDeadCode({ ...made, updates: [...made.updates, ...kept.flatMap(({ state, next }) => (next ? [{ state, value: next }] : []))] }, target);
  return { graph: { ...closeRegions(held), updates: made.updates }, statistics: kept.filter((k) => held.state.some((s) => s.value === k.state)), rewritten: rewriting.rewritten, normalized: rewriting.normalized, left, weights: [] };
}

/** Statistics, and those that norms in inference form have among the weights: no training changes them. */
function withFrozen(graph: Graph, statistics: readonly Statistic[], norms: readonly BatchNorm[]): readonly Statistic[] {
  const listed = new Set(statistics.map((s) => s.state));
  const states = new Set(graph.state.map((s) => s.value));
  const own = norms.flatMap((n) => (n.form === 'inference' && n.running ? [n.running.mean, n.running.variance] : [])).filter((v) => states.has(v) && !listed.has(v));
  return [...statistics, ...[...new Set(own)].map((state) => ({ state, next: undefined }))];
}

/** Norms that keep statistics of batches, by updates at the end of a run or by a second copy of the model: no region can. */
const acrossRuns: ReadonlySet<NormKind> = new Set(['batch', 'renorm', 'ghost', 'virtual', 'domains']);

const isUnused = (graph: Graph, v: Value): boolean => !placedOps(graph).some(({ op }) => op.operands.includes(v));

const nameOf = ({ last }: BatchNorm): string => last.source[0] ?? 'a normalization';
