/** The plan that takes the least computing again of those that fit. */
import { OverLimit } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import type { RegionInParts, TilePlan } from '../../ir/tiles.ts';
import { narrowerShares } from '../../passes/tile/fit.ts';
import { fitBatch, namingParts, partsOf, regionsInParts } from '../../passes/tile/fit-parts.ts';
import { planTiles, type Planned } from '../../passes/tile/plan.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { Trials, type Setting } from '../../passes/tile/trials.ts';
import { prepared } from './build.ts';

/** A plan that fits, and the graph that it was made for. */
export interface Chosen { readonly graph: Graph; readonly plan: TilePlan; readonly recompute: Recompute; readonly regions?: readonly RegionInParts[] }

export interface Machine {
  /** How messages call the model. */
  readonly model: string;
  readonly target: TileTarget;
  /** Levels of recomputation to try, the least first. */
  readonly levels: readonly Recompute[];
  /** Samples that one run of the graph takes. */
  readonly samples: number;
  /** Whether regions may be computed in parts where nothing fits otherwise. */
  readonly parts: boolean;
}

/** Plans a simplified graph with the least recomputation that fits, under ever narrower bounds on temporaries, or else with regions in parts. Throws OverLimit, with the bytes that are too many, where nothing fits. */
export function leastRecomputation(simple: Graph, { model, target, levels, samples, parts }: Machine): Chosen {
  const ready = new Map<Recompute, Graph>();
  const graphAt = (recompute: Recompute): Graph => {
    const graph = ready.get(recompute) ?? prepared(simple, recompute);
    ready.set(recompute, graph);
    return graph;
  };
  const planAt = (graph: Graph, { temporary }: Setting): Planned => planTiles(graph, target, { samples, temporary });
  const trials = new Trials((s) => {
    const planned = planAt(partsOf(graphAt(s.recompute), s), s);
    return { ...planned, plan: namingParts(planned.plan, graphAt(s.recompute), s.regions) };
  });
  fitBatch(trials, { target, batch: samples, levels, temporary: narrowerShares.map((share) => share * target.constants.temporary), graphAt, planAt }, parts);
  const { best, smallest } = trials;
  if (best) {
    const { recompute, regions } = best.trial;
    return { graph: partsOf(graphAt(recompute), best.trial), plan: best.planned.plan, recompute, ...(regions && { regions }) };
  }
  const { recompute, regions, memory: { total, limit } } = smallest!.trial;
  throw new OverLimit(`${model} does not fit ${target.constants.tiles} tiles of ${target.constants.bytesPerTile} bytes (${limit} without slack): the smallest plan found takes ${total} bytes, ${total - limit} over, with recompute ${recompute}${regions ? ` and ${regionsInParts(regions)}` : ''}; tilewright plan with the same options says what takes them`);
}
