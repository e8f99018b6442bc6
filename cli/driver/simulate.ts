/** From a model's graph to a tile plan and its execution on simulated tiles. */
import { simulate, type TileRun } from '../../backends/tiles/simulate.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import type { Tensor } from '../../ir/type.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { planTiles, type Planned } from '../../passes/tile/plan.ts';
import { prepare, simplified, type PrepareOptions } from '../../passes/tile/prepare.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { wasmTarget } from './target.ts';

/** A graph with its plan: what tiles run. */
export interface TiledGraph {
  readonly graph: Graph;
  readonly planned: Planned;
}

/** Prepares a graph of core ops and plans it. A plan that does not fit comes back all the same. */
export function tiled(graph: Graph, target: TileTarget, options: PrepareOptions & { readonly samples?: number } = {}): TiledGraph {
  const prepared = prepare(simplified(graph, wasmTarget, options), wasmTarget, options);
  return { graph: prepared, planned: planTiles(prepared, target, { samples: options.samples ?? 1 }) };
}

/** Runs a plan on values of the graph that it was made from: state that passes replaced keeps its name. */
export function runTiled({ graph, planned }: { readonly graph: Graph; readonly planned: { readonly plan: TilePlan } }, inputs: Readonly<Record<string, Tensor>>, state?: ReadonlyMap<string, Tensor>): TileRun & { readonly named: ReadonlyMap<string, Tensor> } {
  const values = state && new Map<Value, Tensor>(graph.state.flatMap((s) => (state.has(s.name) ? [[s.value, state.get(s.name)!]] : [])));
  const run = simulate(graph, planned.plan, inputs, values ? { state: values } : {});
  const names = new Map(graph.state.map((s) => [s.value, s.name]));
  return { ...run, named: new Map([...run.state].map(([v, t]) => [names.get(v)!, t])) };
}
