/** The smallest tile memory for which there is a plan, and what no plan gets below. */
import { wasmTarget } from '../../cli/driver/target.ts';
import type { Graph } from '../../ir/graph.ts';
import { graphText } from '../../ir/text.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { dtypes, sizeOf, type DType } from '../../ir/type.ts';
import { modelOf } from '../../passes/tile/estimate.ts';
import { planTiles } from '../../passes/tile/plan.ts';
import { prepare, simplified } from '../../passes/tile/prepare.ts';
import { recomputeLevels } from '../../passes/tile/recompute.ts';
import { searchSplits } from '../../passes/tile/search.ts';
import { withConstants, type TileTarget } from '../../passes/tile/target.ts';
import { walkOf } from '../../passes/tile/walk.ts';

/** A plan in the least memory that was found. */
export interface Least {
  readonly graph: Graph;
  readonly plan: TilePlan;
  /** Bytes of a tile that the plan needs, slack included. */
  readonly bytes: number;
  readonly recompute: string;
  /** Plans that were made. */
  readonly tried: number;
  readonly bound: Bound;
}

/** What bounds the memory of a tile from below, in bytes. */
export interface Bound {
  /** State and constants shared evenly, and code. */
  readonly always: number;
  /** Operands and results of the op that takes the most where it is cut smallest. */
  readonly vertex: number;
  readonly op: string;
}

/** Memory that no plan needs. */
const plenty = 2 ** 40;

/** Plans a graph at every level of recomputation under ever tighter bounds on the temporaries of an op, and keeps the smallest plan. */
export function leastMemory(graph: Graph, target: TileTarget): Least {
  const simple = simplified(graph, wasmTarget, {});
  const seen = new Set<string>();
  let tried = 0;
  let best: { graph: Graph; plan: TilePlan; bytes: number; recompute: string; bound: number } | undefined;
  const usable = (total: number): number => Math.ceil(total / (1 - target.constants.slack));
  for (const recompute of recomputeLevels) {
    const prepared = prepare(simple, wasmTarget, { recompute });
    const text = graphText(prepared);
    if (seen.has(text)) continue;
    seen.add(text);
    let worse = 0;
    let own = Infinity;
    for (let bound = plenty; bound >= target.constants.grain && worse < 3;) {
      const planned = planTiles(prepared, withConstants(target, { bytesPerTile: plenty }), { samples: 1, temporary: bound / plenty });
      tried++;
      const { plan } = planned;
      const bytes = usable(plan.memory.total);
      if (bytes < own) {
        own = bytes;
        worse = 0;
      } else worse++;
      if (!best || bytes < best.bytes) best = { graph: prepared, plan, bytes, recompute, bound };
      bound = bound === plenty ? plan.memory.total / 2 : bound / 2;
    }
  }
  const { bound, bytes, graph: found, recompute } = best!;
  // The same plan again, under the limit that it needs.
  const last = planTiles(found, withConstants(target, { bytesPerTile: bytes }), { samples: 1, temporary: bound / bytes });
  return { graph: found, plan: last.plan, bytes, recompute, tried, bound: boundOf(found, last.plan, target) };
}

function boundOf(graph: Graph, plan: TilePlan, target: TileTarget): Bound {
  const held = plan.buffers.filter((b) => b.kind === 'state' || b.kind === 'constant').reduce((n, b) => n + sizeOf(b.shape) * dtypes[b.dtype as DType].bytes, 0);
  let [vertex, op] = [0, 'none'];
  const known = new Set<string>();
  for (const o of graph.ops) {
    if (o.name === 'constant' || o.name === 'reshape') continue;
    const key = `${o.name} ${[...o.operands, ...o.results].map((v) => `${v.type.dtype}${v.type.shape.join()}`).join(' ')}`;
    if (known.has(key)) continue;
    known.add(key);
    const least = searchSplits(modelOf(walkOf(o)), target, 0, 1)[0]!.estimate;
    const bytes = least.operands.reduce((n, b) => n + b, 0) + Math.max(least.result, least.partial);
    if (bytes > vertex) [vertex, op] = [bytes, o.source[0] ?? o.name];
  }
  return { always: Math.ceil(held / plan.tiles) + plan.memory.code, vertex, op };
}
