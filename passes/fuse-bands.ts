/** Joins an expansion and the depthwise convolution after it, where the value in between is too large to stay in a core's own cache. */
import { bandsOf, contractRoot, dataOperand, pairProblem } from '../ir/bands.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { geometryOf } from '../ir/ops/packing/geometry.ts';
import { fewestChunks, type Division, type Target } from '../ir/tile.ts';
import { bytesOf } from '../ir/type.ts';
import { enclosed } from './fuse/region.ts';

/** Nanoseconds that a byte takes which is read back from the cache that all cores share, and that a multiply-add takes: measured on the machine of docs/performance.md. */
const byteTime = 1 / 15;
const multiplyAddTime = 1 / 27;

/**
 * Replaces a 1x1 convolution and the depthwise one that alone reads it by a `bands` op, where a target whose tiles are cores with caches would write the value in between out
 * of them: each band of result rows computes the rows that it reads. Rows that two bands read are computed twice; that must cost less than what reading saves.
 */
export function fuseBands(graph: Graph, target: Target): Graph {
  const { division } = target;
  if (!division) return graph;
  const definitions = new Map<Value, Op>(graph.ops.flatMap((op) => op.results.map((r) => [r, op] as const)));
  const reads = new Map<Value, number>();
  for (const v of [...graph.ops.flatMap((op) => op.operands), ...graph.outputs.map((o) => o.value), ...graph.updates.map((u) => u.value)]) reads.set(v, (reads.get(v) ?? 0) + 1);
  const joined = new Map<Op, Op>();
  const gone = new Set<Op>();
  for (const second of graph.ops) {
    const between = dataOperand(second);
    const first = between && definitions.get(between);
    if (!first || reads.get(between) !== 1 || pairProblem(first, second) !== undefined) continue;
    const bands = bandCount(first, second, division);
    if (bands === undefined) continue;
    joined.set(second, enclosed('bands', { bands }, [first, second], second.results));
    gone.add(first);
  }
  return joined.size === 0 ? graph : { ...graph, ops: graph.ops.flatMap((op) => (gone.has(op) ? [] : [joined.get(op) ?? op])) };
}

/** How many bands to cut each image into; undefined where it does not pay. */
function bandCount(first: Op, second: Op, division: Division): number | undefined {
  const { type } = first.results[0]!;
  const bytes = bytesOf(type);
  // A tile is half of the cache that a core has to itself.
  if (bytes <= 2 * division.bytesPerTile) return undefined;
  const [images, , height] = type.shape as [number, number, number];
  const rowBytes = bytes / images / height;
  const rowWork = (bytes / 4 / images / height) * geometryOf(contractRoot(first)!.attrs).fanIn;
  for (let bands = Math.ceil(fewestChunks(division) / images); bands <= height; bands++) {
    const list = bandsOf(second, bands);
    if (!list) return undefined;
    if (list.some((b) => b.rows * rowBytes > division.bytesPerTile)) continue;
    const again = list.reduce((n, b) => n + b.rows, 0) - height;
    return images * again * rowWork * multiplyAddTime < bytes * byteTime ? list.length : undefined;
  }
  return undefined;
}
