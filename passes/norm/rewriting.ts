/** Builds the graph in which normalizations have another form. */
import { Builder, filled } from '../../ir/builder.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Op, State, Value } from '../../ir/graph.ts';
import { placedOps } from '../../ir/regions.ts';
import { sizeOf, type DType, type Tensor } from '../../ir/type.ts';
import { batchOf } from '../train/sample-factors.ts';
import { applyPlain, applyTo, findActivation, type Activation } from './activation.ts';
import type { Domains } from './by-domain.ts';
import { opsOfNorms, type BatchNorm, type Statistic } from './find-norms.ts';
import { normalize, type Normalized } from './normalize.ts';
import type { NormSpec } from './options.ts';
import { domainName, isProxied, ownName, proxySuffixes } from './own-names.ts';
import { proxyMoments } from './proxy.ts';
import { ProxyPlaces } from './proxy-places.ts';
import type { referenceBatch, ReferenceMoments } from './reference-batch.ts';
import type { NormalizedValue, RewrittenNorm } from './rewrite-norms.ts';
import { parameterValues } from './structure.ts';

/** The input that names the domain of each sample. */
function domainInput(graph: Graph): Value {
  const samples = batchOf(graph);
  if (samples === undefined) throw new UserError('statistics by domain need an input whose first axis holds samples');
  if (graph.inputs.some((v) => v.name === domainName)) throw new UserError(`statistics by domain add an input "${domainName}", but the model has an input of that name: rename it`);
  return { type: { dtype: 'i64', shape: [samples] }, name: domainName };
}

/** γ · y + β, and what it was made of. */
interface Affine extends Pick<Normalized, 'row'> {
  readonly value: Value;
  readonly gamma: Value;
  readonly beta: Value;
}

/** A rewrite of an open graph. */
export class Rewriting {
  readonly normalized: NormalizedValue[] = [];
  readonly rewritten: RewrittenNorm[] = [];
  readonly statistics: Statistic[] = [];
  readonly #graph: Graph;
  readonly #spec: NormSpec;
  readonly #norms: ReadonlyMap<Op, BatchNorm>;
  readonly #activations = new Map<BatchNorm, Activation>();
  /** Ops of activations: they are computed where the norm's result has its groups apart, so that all of it becomes one fused op. */
  readonly #within = new Set<Op>();
  readonly #ends = new Map<Op, BatchNorm>();
  /** Of the graph or region that is being rewritten. */
  #b: Builder;
  readonly #proxies: ProxyPlaces;
  readonly #map = new Map<Value, Value>();
  readonly #state: State[];
  readonly #normal = new Map<BatchNorm, Affine>();
  readonly #inference: boolean;
  readonly #reference: ReadonlyMap<BatchNorm, ReferenceMoments>;
  /** The input that names each sample's domain. */
  readonly #domain: Value | undefined;

  constructor(graph: Graph, spec: NormSpec, norms: readonly BatchNorm[], { inference, reference }: { readonly inference: boolean; readonly reference: ReturnType<typeof referenceBatch> | undefined }) {
    this.#graph = graph;
    this.#spec = spec;
    this.#norms = new Map(norms.map((n) => [n.last, n]));
    this.#b = new Builder(graph.name);
    this.#state = [...graph.state];
    this.#inference = inference;
    this.#reference = new Map(reference?.moments.map((m, i) => [norms[i]!, m]));
    reference?.ops.forEach((op) => this.#b.append(op));
    this.#domain = spec.kind === 'domains' ? domainInput(graph) : undefined;
    this.#proxies = new ProxyPlaces(graph, this.#b);
    const parameters = parameterValues(graph);
    // The scale and shift of a norm in inference form is no activation of the norm before it.
    const barred = opsOfNorms(graph, norms);
    const defs = new Map(placedOps(graph).flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
    for (const norm of norms) {
      const around = norm.within.at(-1)?.regions.find((region) => region.ops.includes(norm.last)) ?? graph;
      const activation = findActivation(around, norm.y, parameters, barred, (v) => defs.get(v));
      if (!activation) continue;
      this.#activations.set(norm, activation);
      activation.ops.forEach((op) => this.#within.add(op));
      this.#ends.set(activation.ops.at(-1)!, norm);
    }
  }

  run(): Graph {
    const graph = this.#graph;
    this.#ops(graph.ops);
    return {
      ...graph, ops: this.#b.ops, state: this.#state, inputs: this.#domain ? [...graph.inputs, this.#domain] : graph.inputs,
      outputs: graph.outputs.map((o) => ({ name: o.name, value: this.#at(o.value) })),
      updates: graph.updates.map((u) => ({ state: u.state, value: this.#at(u.value) })),
    };
  }

  readonly #at = (v: Value): Value => this.#map.get(v) ?? v;

  #ops(ops: readonly Op[]): void {
    const at = this.#at;
    for (const op of ops) {
      const norm = this.#norms.get(op);
      if (norm) {
        this.#b.source = op.source;
        this.#map.set(norm.y, this.#norm(norm, at));
        continue;
      }
      const ended = this.#ends.get(op);
      if (ended) this.#map.set(op.results[0]!, this.#activate(ended, this.#activations.get(ended)!, at));
      else if (!this.#within.has(op)) this.#b.append(op.regions.length > 0 || op.operands.some((v) => this.#map.has(v)) ? { ...op, operands: op.operands.map(at), regions: op.regions.map((r) => this.#region(r)) } : op);
    }
  }

  #region(region: Graph): Graph {
    const outer = this.#b;
    this.#b = new Builder(region.name);
    this.#ops(region.ops);
    const { ops } = this.#b;
    this.#b = outer;
    return { ...region, ops, outputs: region.outputs.map((o) => ({ name: o.name, value: this.#at(o.value) })) };
  }

  #norm(norm: BatchNorm, at: (v: Value) => Value): Value {
    const b = this.#b;
    const channels = norm.y.type.shape[1]!;
    const { gamma, beta } = affineOf(b, norm, at);
    const { value, statistics, row } = normalize(b, at(norm.x), norm, this.#spec, { reference: this.#reference.get(norm), domains: this.#domains(norm) });
    this.statistics.push(...statistics);
    this.normalized.push({ node: norm.last.source[0] ?? norm.last.name, value, shape: norm.y.type.shape, within: norm.within });
    this.rewritten.push({ node: norm.last.source[0] ?? norm.last.name, from: norm.form, channels, proxy: this.#spec.proxy && this.#activations.has(norm) ? Object.values(proxySuffixes).map((s) => ownName(norm, s, this.#graph)) : [] });
    const scaled = b.mul(value, row(gamma));
    const shifted = this.#activations.has(norm) || !this.#spec.proxy?.centerOnly;
    const result = shifted ? b.add(scaled, row(beta)) : scaled;
    this.#normal.set(norm, { value: result, gamma, beta, row });
    return b.reshape(result, norm.y.type.shape);
  }

  /** φ(u) of a norm, and with a proxy (φ(u) - mean) · scale. */
  #activate(norm: BatchNorm, activation: Activation, at: (v: Value) => Value): Value {
    const b = this.#b;
    const { value: u, gamma, beta, row } = this.#normal.get(norm)!;
    const { shape } = activation.result.type;
    const beside = (v: Value): Value => (sizeOf(v.type.shape) === 1 ? v : sizeOf(v.type.shape) === sizeOf(shape) ? b.reshape(v, u.type.shape) : row(v));
    const active = applyTo(b, activation, norm.y, u, (v) => beside(at(v)));
    b.source = norm.last.source;
    if (!this.#spec.proxy || isProxied(norm, this.#graph)) return b.reshape(active, shape);
    const { samples = 200, epsilon = 0.03 } = this.#spec.proxy;
    const [proxyGamma, proxyBeta] = [this.#parameter(norm, 'gamma', gamma), this.#parameter(norm, 'beta', gamma)];
    // What depends on parameters alone is computed once, not in every iteration.
    const place = this.#proxies.of(norm, activation) ?? { b, at };
    place.b.source = norm.last.source;
    const affine = place.b === b ? { gamma, beta } : affineOf(place.b, norm, place.at);
    const { mean, scale } = proxyMoments(place.b, { ...affine, proxyGamma, proxyBeta, samples, epsilon }, shape.length, (proxy) => applyPlain(place.b, activation, norm.y, proxy, place.at));
    b.source = norm.last.source;
    return b.reshape(b.cast(b.mul(b.sub(b.cast(active, mean.type.dtype), row(mean)), row(scale)), active.type.dtype), shape);
  }

  /** Norms that share a scale share their proxy. */
  #parameter(norm: BatchNorm, suffix: keyof typeof proxySuffixes, { type }: Value): Value {
    return this.#newState(norm, proxySuffixes[suffix], filled(type.dtype, type.shape, 0));
  }

  /** State of a norm, named after its scale. */
  #newState(norm: BatchNorm, suffix: string, init: Tensor): Value {
    const name = ownName(norm, suffix, this.#graph);
    const before = this.#state.find((s) => s.name === name);
    if (before) {
      if (this.#graph.state.includes(before)) throw new UserError(`${norm.last.source[0] ?? 'a norm'} needs a parameter "${name}", but the model has a weight of that name: rename the weight`);
      return before.value;
    }
    const value: Value = { type: { dtype: init.dtype, shape: init.shape }, name };
    this.#state.push({ value, name, init });
    return value;
  }

  #domains(norm: BatchNorm): Domains | undefined {
    const count = this.#spec.size ?? 1;
    if (!this.#domain) return undefined;
    return {
      count, of: this.#domain, inference: this.#inference,
      state: (suffix, init) => this.#newState(norm, suffix, init),
      start: (statistic) => {
        const init = this.#graph.state.find((s) => s.value === statistic)!.init;
        const channels = sizeOf(statistic.type.shape);
        const one = init === 'zero' ? filled(statistic.type.dtype, [channels], 0) : init;
        const all = filled(one.dtype, [count, channels], 0);
        for (let i = 0; i < count; i++) all.data.set(one.data as never, i * channels);
        return all;
      },
    };
  }
}

/** Scale and shift of a norm, with one element a channel. */
function affineOf(b: Builder, norm: BatchNorm, at: (v: Value) => Value): Pick<Affine, 'gamma' | 'beta'> {
  const { dtype, shape: [, channels] } = norm.y.type as { readonly dtype: DType; readonly shape: readonly [number, number] };
  const vector = (v: Value): Value => b.broadcast(b.reshape(b.cast(v, dtype), sizeOf(v.type.shape) === 1 ? [1] : [channels]), [channels]);
  const product = (factors: readonly Value[]): Value => (factors.length === 0 ? b.constant(filled(dtype, [channels], 1)) : factors.map((v) => vector(at(v))).reduce((p, q) => b.mul(p, q)));
  const { bias } = norm;
  const beta = bias ? product(bias.factors) : b.constant(filled(dtype, [channels], 0));
  return { gamma: product(norm.scale), beta: bias?.sign === -1 ? b.neg(beta) : beta };
}
