import type { Graph, Op, Value } from '../ir/graph.ts';
import type { FusedKind } from '../ir/fused.ts';
import { isMap, isReduceRoot } from '../ir/fused.ts';
import { stateConstants } from '../ir/rewrite.ts';
import type { Target } from '../ir/tile.ts';
import type { Tensor } from '../ir/type.ts';
import { eliminateDeadCode } from './eliminate-dead-code.ts';
import { escaping, singleClusters } from './fuse/clusters.ts';
import { growth, type Growth } from './fuse/grow.ts';
import { fusedOp, oneNumber } from './fuse/region.ts';

/**
 * Puts elementwise chains into the op that makes or reads their values, as `fused` ops: after a convolution or contraction (residual additions included),
 * around a reduction or pool, whole softmaxes and norms, and what is left as maps. No op is computed twice, none moves before what it needs, and moves of
 * data (reshape, transpose, slice) stay outside except where a norm puts reduced axes back. Bodies of loops and branches are fused within themselves. `kinds` leaves kinds of fusion out.
 */
export function fuse(graph: Graph, target: Target, kinds: readonly Growth[] = growth): Graph {
  const clusters = singleClusters(graph);
  for (const { kind, isRoot, grow } of kinds) {
    for (const op of graph.ops) {
      if (!isRoot(op) || clusters.taken(op)) continue;
      const set = grow(op, clusters);
      if (set && set.size > 1) clusters.close(set, kind);
    }
  }
  const constants = constantsOf(graph);
  const constant = (v: Value): Tensor | undefined => constants.get(v);
  const ops = clusters.ordered().map(({ ops: members, kind }): Op => {
    const [only] = members as [Op];
    if (kind !== undefined) return fusedOp(kind as FusedKind, kind === 'reduce' ? rootFirst(members) : members, escaping(new Set(members), clusters), constant);
    if (isMap(only) && only.operands.some((v, i) => oneNumber(only, i, constant(v)))) return fusedOp('map', [only], only.results, constant);
    if (only.name === 'fused' || only.regions.length === 0) return only;
    return { ...only, regions: only.regions.map((region) => fuse(region, target, kinds)) };
  });
  return eliminateDeadCode({ ...graph, ops }, target);
}

/** What a root does not need comes after it, wherever it stood in the graph. */
function rootFirst(members: readonly Op[]): readonly Op[] {
  const root = members.find(isReduceRoot)!;
  const needed = new Set<Value>(root.operands);
  for (const op of members.toReversed()) if (op.results.some((r) => needed.has(r))) op.operands.forEach((v) => needed.add(v));
  const before = members.filter((op) => op !== root && op.results.some((r) => needed.has(r)));
  return [...before, root, ...members.filter((op) => op !== root && !before.includes(op))];
}

function constantsOf(graph: Graph): Map<Value, Tensor> {
  const constants = stateConstants(graph);
  for (const op of graph.ops) if (op.name === 'constant') constants.set(op.results[0]!, op.attrs['value'] as Tensor);
  return constants;
}
