/** Joins convolutions and the moments of their results. */
import { contractRoot } from '../ir/bands.ts';
import type { Graph, Op, Value } from '../ir/graph.ts';
import { blockProblem } from '../ir/moment-blocks.ts';
import { nums } from '../ir/op.ts';
import { sameShape } from '../ir/type.ts';
import type { Target } from '../ir/tile.ts';
import { singleClusters } from './fuse/clusters.ts';
import { enclosed } from './fuse/region.ts';

/**
 * Replaces a convolution and the moments of its channels over blocks of pixels (`moments-in-blocks`) by a `momentBlocks` op, whose kernel takes the moments of what it has just stored and finds in the core's cache. For
 * targets whose tiles are cores with caches.
 */
export function fuseMoments(graph: Graph, target: Target): Graph {
  if (!target.division) return graph;
  const c = singleClusters(graph);
  const joined = new Map<Op, Op>();
  const gone = new Set<Op>();
  for (const moments of graph.ops) {
    const view = moments.name === 'moments' ? c.definition(moments.operands[0]!) : undefined;
    const [y] = view?.operands ?? [];
    const conv = view?.name === 'reshape' && y ? c.definition(y) : undefined;
    const root = conv && contractRoot(conv);
    if (!view || !y || !conv || joined.has(conv) || root?.name !== 'convPacked' || !isInBlocks(moments, y)) continue;
    const { shape } = view.results[0]!.type;
    if (y.type.dtype !== 'f32' || blockProblem(conv, shape[3]!) !== undefined) continue;
    joined.set(conv, enclosed('momentBlocks', { momentBlocks: shape[2]! }, [conv, view, moments], [y, ...moments.results]));
    gone.add(moments);
    if (c.readers(view.results[0]!).length === 1) gone.add(view);
  }
  return joined.size === 0 ? graph : { ...graph, ops: graph.ops.flatMap((op) => (gone.has(op) ? [] : [joined.get(op) ?? op])) };
}

/** Whether moments are of blocks of pixels of each channel of y. */
function isInBlocks(moments: Op, y: Value): boolean {
  const { shape } = moments.operands[0]!.type;
  return shape.length === 4 && sameShape(shape.slice(0, 2), y.type.shape.slice(0, 2)) && sameShape(nums(moments.attrs, 'axes'), [3]);
}
