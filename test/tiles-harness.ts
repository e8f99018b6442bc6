/** Plans and runs graphs on simulated tiles. */
import { runTiled, type TiledGraph } from '../cli/driver/simulate.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import type { Graph } from '../ir/graph.ts';
import { dtypes, sizeOf, type Tensor, type TensorType } from '../ir/type.ts';
import type { TileBuffer, TilePlan, TileStep } from '../ir/tiles.ts';
import { planTiles } from '../passes/tile/plan.ts';
import { withConstants } from '../passes/tile/target.ts';

/** Plans a graph as it stands on tiles of plenty of memory. `temporary`: bytes that the temporaries of an op may take. */
export function planned(graph: Graph, tiles: number, temporary = 2 ** 20): TiledGraph {
  const bytesPerTile = 2 ** 22;
  return { graph, planned: planTiles(graph, withConstants(readTarget('mk2'), { tiles, bytesPerTile }), { samples: 1, temporary: temporary / bytesPerTile }) };
}

/** Runs a plan in place of the one of a graph, from the graph’s own state unless some is given by name. */
export const runPlan = (t: TiledGraph, plan: TilePlan, inputs: Readonly<Record<string, Tensor>>, state?: ReadonlyMap<string, Tensor>): ReturnType<typeof runTiled> => runTiled({ graph: t.graph, planned: { plan } }, inputs, state);

/** A tensor of numbers. */
export function tensorOf(type: TensorType, at: (i: number) => number): Tensor {
  const data = new dtypes[type.dtype].array(sizeOf(type.shape));
  for (let i = 0; i < data.length; i++) (data as Float64Array)[i] = (data instanceof BigInt64Array ? BigInt(at(i)) : at(i)) as number;
  return { ...type, data };
}

/** The plan without one copy of its exchanges, for each of them. */
export function* withoutOneCopy(plan: TilePlan): Generator<{ readonly plan: TilePlan; readonly what: string; readonly to: TileBuffer; readonly merge: boolean }> {
  for (const [at, step] of plan.steps.entries()) {
    if (step.kind !== 'exchange') continue;
    for (const [i, copy] of step.copies.entries()) {
      const cut: TileStep = { ...step, copies: step.copies.filter((_, j) => j !== i) };
      yield { plan: { ...plan, steps: plan.steps.with(at, cut) }, what: `step ${step.index}: ${plan.buffers[copy.from]!.value} to ${plan.buffers[copy.to]!.value}`, to: plan.buffers[copy.to]!, merge: copy.merge === true };
    }
  }
}
