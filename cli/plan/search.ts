/** The ways in which tilewright plan plans a model: at a batch, or the fastest that fits. */
import type { Graph } from '../../ir/graph.ts';
import { fitPlan, narrowerShares } from '../../passes/tile/fit.ts';
import { fitBatch, fitParts, namingParts, partsOf, type PartsSearch } from '../../passes/tile/fit-parts.ts';
import { leastBytes } from '../../passes/tile/least.ts';
import type { AccumulatedStep } from '../../passes/tile/accumulate.ts';
import { planAccumulated, planTiles, type AccumulatedPlan, type Planned } from '../../passes/tile/plan.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import { usableBytes, type TileTarget } from '../../passes/tile/target.ts';
import { Trials, type Setting, type Trial } from '../../passes/tile/trials.ts';
import { buildAccumulated, buildGraph, prepared, type Wanted } from './build.ts';

/** Samples at a time that --fit considers. */
export const consideredBatches: readonly number[] = [1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512];
/** The batch at which bytes that are alive in any plan are counted. */
const countedBatch = 8;

export interface Search {
  readonly wanted: Omit<Wanted, 'batch'>;
  readonly target: TileTarget;
  /** Samples of a step, if the user names them: runs of fewer add up their gradients. */
  readonly samples?: number;
  /** Levels of recomputation, the least first. */
  readonly levels: readonly Recompute[];
  /** Whether regions of the graph may be computed in parts where nothing fits otherwise. */
  readonly parts: boolean;
  /** Share of a tile for the temporaries of one op, if the user names one. */
  readonly temporary?: number;
  readonly onProgress: (setting: Setting, done: number, of: number) => void;
  readonly onTrial: (t: Trial) => void;
}

/** What is known of one batch. */
interface Built {
  readonly batch: number;
  readonly graph: Graph | AccumulatedStep;
  /** The graph, or each of its two, prepared for levels of recomputation. */
  readonly ready: Map<Graph, Map<Recompute, Graph>>;
  /** The target, as an object of its own: what planning finds out for it goes when the next batch is built, whose ops have other shapes. */
  readonly target: TileTarget;
}

/** Graphs and plans of a model, none made twice. */
export class Planner {
  readonly trials: Trials;
  readonly #search: Search;
  #built: Built | undefined;

  constructor(search: Search) {
    this.#search = search;
    this.trials = new Trials((s) => this.#plan(s), search.onTrial);
  }

  /** Shares of a tile for temporaries that may be tried, the widest first. */
  get shares(): readonly number[] {
    const { temporary, target } = this.#search;
    return temporary === undefined ? narrowerShares.map((f) => f * target.constants.temporary) : [temporary];
  }

  /** Tries levels of recomputation at one batch until one fits. */
  planBatch(batch: number): void {
    fitBatch(this.trials, this.#partsSearch(batch), this.#search.parts);
  }

  /** Finds the fastest plan that fits, of the batches given. */
  fit(batches: readonly number[]): void {
    const { target, levels } = this.#search;
    const counted = Math.min(countedBatch, batches.at(-1)!);
    const bytes = new Map(levels.map((level) => [level, leastBytes(this.#prepared(counted, level))]));
    const { tiles } = target.constants;
    fitPlan(this.trials, { batches, recompute: levels, temporary: this.shares[0]! }, {
      limit: usableBytes(target),
      always: Math.max(...[...bytes.values()].map((b) => b.always)) / tiles,
      perSample: (level) => bytes.get(level)!.alive / counted / tiles,
    });
    if (!this.trials.best && this.#search.parts) fitParts(this.trials, this.#partsSearch(this.trials.smallest!.trial.batch));
  }

  #partsSearch(batch: number): PartsSearch {
    const { target, levels } = this.#search;
    return { target, batch, levels, temporary: this.shares, graphAt: (level) => this.#prepared(batch, level), planAt: (graph, s) => this.#planOf(graph, s) };
  }

  #plan(s: Setting): Planned | AccumulatedPlan {
    const whole = this.#prepared(s.batch, s.recompute);
    const planned = this.#planOf(partsOf(whole, s), s);
    return { ...planned, plan: namingParts(planned.plan, whole, s.regions) };
  }

  /** Plans a graph of a setting's batch; where gradients add up, as their accumulation. */
  #planOf(graph: Graph, s: Setting): Planned | AccumulatedPlan {
    const { onProgress, samples = s.batch } = this.#search;
    const built = this.#build(s.batch);
    const { target } = this.#built!;
    const options = { samples: s.batch, temporary: s.temporary, serial: s.unserial !== true, onProgress: (done: number, of: number) => onProgress(s, done, of) };
    return 'accumulate' in built ? planAccumulated(graph, this.#ready(built.update, 'none'), target, options, samples / s.batch) : planTiles(graph, target, options);
  }

  #prepared(batch: number, recompute: Recompute): Graph {
    const graph = this.#build(batch);
    return this.#ready('accumulate' in graph ? graph.accumulate : graph, recompute);
  }

  /** A graph of the batch at hand, prepared once for each level. */
  #ready(graph: Graph, recompute: Recompute): Graph {
    const { ready } = this.#built!;
    const levels = ready.get(graph) ?? new Map<Recompute, Graph>();
    const known = levels.get(recompute) ?? prepared(graph, recompute);
    ready.set(graph, levels.set(recompute, known));
    return known;
  }

  #build(batch: number): Graph | AccumulatedStep {
    if (this.#built?.batch === batch) return this.#built.graph;
    const { wanted, target, samples = batch } = this.#search;
    const graph = wanted.train && samples > batch ? buildAccumulated({ ...wanted, train: wanted.train, batch }, samples / batch) : buildGraph({ ...wanted, batch });
    this.#built = { batch, graph, ready: new Map(), target: { ...target } };
    return graph;
  }
}
