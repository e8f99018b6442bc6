/** Finds normalizations within a sample: group, layer and instance norms. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { openRegions } from '../../ir/regions.ts';
import { Structure } from './structure.ts';

export interface SampleNorm {
  readonly channels: number;
  readonly groups: number;
  /** What is normalized, before its channels are split into groups. */
  readonly x: Value;
  readonly moments: Op;
  /** Added to the variance; undefined where it is not a number that is known. */
  readonly epsilon: number | undefined;
  /** The branches and loops in which it stands, outermost first. */
  readonly within: readonly Op[];
}

/** The norms of a graph and of its regions (opened) whose statistics are of one sample: over everything, over groups of channels, or over each channel. */
export function sampleNorms(graph: Graph): SampleNorm[] {
  const open = openRegions(graph);
  const facts = new Structure(open);
  const readers = new Map<Value, Op[]>();
  for (const { op } of facts.placed) for (const v of op.operands) readers.set(v, [...(readers.get(v) ?? []), op]);
  return facts.placed.flatMap(({ op, within }) => {
    const [x] = op.operands;
    if (op.name !== 'moments' || !x || facts.parameters.has(x)) return [];
    const axes = nums(op.attrs, 'axes');
    const { shape } = x.type;
    const kept = shape.flatMap((_, i) => (axes.includes(i) ? [] : [i]));
    const whole = facts.def(x)?.name === 'reshape' ? facts.def(x)!.operands[0]! : x;
    const channels = whole.type.shape[1];
    if (channels === undefined || kept[0] !== 0 || kept.length > 2 || (kept.length === 2 && kept[1] !== 1)) return [];
    return [{ channels, groups: kept.length === 2 ? shape[1]! : 1, x: whole, moments: op, epsilon: epsilonOf(op.results[1]!), within }];
  });

  /** What is added to the variance that a sum of squares leads to. */
  function epsilonOf(v: Value): number | undefined {
    for (const op of readers.get(v) ?? []) {
      if (op.name === 'add') {
        const other = op.operands.find((o) => o !== v);
        return other && facts.number(other);
      }
      if (!['reshape', 'cast', 'div', 'mul'].includes(op.name)) continue;
      const found = epsilonOf(op.results[0]!);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}
