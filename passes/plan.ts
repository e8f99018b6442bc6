/** Makes a tile program of a fused graph: schedules, chooses layouts, turns moves into views, and gives every buffer a static address. */
import type { Graph } from '../ir/graph.ts';
import type { Target, TileProgram } from '../ir/tile.ts';
import { orderUpdates } from './order-updates.ts';
import { finish } from './plan/addresses.ts';
import { planEntry } from './plan/entry.ts';
import { Planning } from './plan/planning.ts';
import { schedule } from './schedule.ts';

/** The tile program of a fused graph for one target. The graph is not changed; copies that a layout asks for become steps of their own. */
export function plan(graph: Graph, target: Target): TileProgram {
  return planEntries([{ name: 'run', graph }], target);
}

/** A graph that one call runs. */
export interface PlannedEntry {
  readonly name: string;
  readonly graph: Graph;
}

/**
 * The tile program of several fused graphs over one state: state of a name is one buffer. The first graph is the program's own; temporaries of all
 * share one region.
 */
export function planEntries(list: readonly PlannedEntry[], target: Target): TileProgram {
  const scheduled = list.map((e) => ({ name: e.name, ...schedule(e.graph) })).map((e) => ({ ...e, graph: orderUpdates(e.graph) }));
  const planning = new Planning(scheduled[0]!.graph, target);
  const entries = scheduled.map(({ name, graph }) => planEntry(planning, name, graph));
  return finish(planning, entries, entries[0]!.graph, Math.max(...scheduled.map((e) => e.liveBytes)));
}
