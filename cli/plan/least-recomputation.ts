/** Plans with the least recomputation that fits. */
import { OverLimit } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { planTiles, type Planned } from '../../passes/tile/plan.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { prepared } from './build.ts';

/** A plan that fits, and the graph that it was made for. */
export interface Chosen { readonly graph: Graph; readonly plan: TilePlan; readonly recompute: Recompute }

export interface Machine {
  /** How messages call the model. */
  readonly model: string;
  readonly target: TileTarget;
  /** Levels of recomputation to try, the least first. */
  readonly levels: readonly Recompute[];
  /** Samples that one run of the graph takes. */
  readonly samples: number;
}

/** Plans a simplified graph with the least recomputation that fits, under ever narrower bounds on temporaries. Throws OverLimit, with the bytes that are too many, where nothing fits. */
export function leastRecomputation(simple: Graph, { model, target, levels, samples }: Machine): Chosen {
  let least: { planned: Planned; recompute: Recompute } | undefined;
  for (const recompute of levels) {
    const graph = prepared(simple, recompute);
    for (const share of [1, 1 / 2, 1 / 8, 1 / 64]) {
      const planned = planTiles(graph, target, { samples, temporary: share * target.constants.temporary });
      if (planned.fits) return { graph, plan: planned.plan, recompute };
      if (!least || planned.plan.memory.total < least.planned.plan.memory.total) least = { planned, recompute };
    }
  }
  const { total, limit } = least!.planned.plan.memory;
  throw new OverLimit(`${model} does not fit ${target.constants.tiles} tiles of ${target.constants.bytesPerTile} bytes (${limit} without slack): the smallest plan found takes ${total} bytes, ${total - limit} over, with recompute ${least!.recompute}; tilewright plan with the same options says what takes them`);
}
