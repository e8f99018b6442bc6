/** Where the proxies of norms inside branches and loop bodies are computed. */
import type { Builder } from '../../ir/builder.ts';
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { placedOps } from '../../ir/regions.ts';
import { plainOps, type Activation } from './activation.ts';
import type { BatchNorm } from './find-norms.ts';

/** A builder, and what values of the graph are where it builds. */
export interface ProxyPlace {
  readonly b: Builder;
  readonly at: (v: Value) => Value;
}

/** Brings what proxies are made of out of the regions of an open graph, into the graph itself. */
export class ProxyPlaces {
  readonly #b: Builder;
  readonly #defs: ReadonlyMap<Value, Op>;
  /** What values are in the graph itself; undefined for those that only a region can have. */
  readonly #known: Map<Value, Value | undefined>;

  /** `b` builds the graph itself, behind which a region is still to come while its norms are asked about. */
  constructor(graph: Graph, b: Builder) {
    this.#b = b;
    this.#defs = new Map(placedOps(graph).flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
    this.#known = new Map([...graph.state.map((s) => s.value), ...graph.ops.flatMap((op) => op.results)].map((v) => [v, v]));
  }

  /** The place outside of the regions that a norm stands in; undefined where it stands in none, or where its parameters depend on the iteration of a loop. */
  of(norm: BatchNorm, activation: Activation): ProxyPlace | undefined {
    if (norm.within.length === 0) return undefined;
    const own = new Set<Value>([norm.y, ...activation.ops.map((op) => op.results[0]!)]);
    const read = [...norm.scale, ...(norm.bias?.factors ?? []), ...plainOps(activation).flatMap((op) => op.operands.filter((v) => !own.has(v)))];
    return read.every((v) => this.#outside(v)) ? { b: this.#b, at: (v) => this.#outside(v)! } : undefined;
  }

  #outside(v: Value): Value | undefined {
    if (this.#known.has(v)) return this.#known.get(v);
    const op = this.#defs.get(v);
    if (op?.regions.length !== 0 || !op.operands.every((x) => this.#outside(x))) {
      this.#known.set(v, undefined);
      return undefined;
    }
    const results = op.results.map((r): Value => ({ type: r.type, name: r.name }));
    this.#b.append({ ...op, operands: op.operands.map((x) => this.#outside(x)!), results });
    op.results.forEach((r, i) => this.#known.set(r, results[i]));
    return this.#known.get(v);
  }
}
