/** Finds normalizations within a sample: group, layer and instance norms. */
import { definitions, type Graph } from '../../ir/graph.ts';
import { nums } from '../../ir/op.ts';
import { parameterValues } from './find-norms.ts';

export interface SampleNorm {
  readonly channels: number;
  readonly groups: number;
}

/** The norms of a graph whose statistics are of one sample: over everything, over groups of channels, or over each channel. */
export function sampleNorms(graph: Graph): SampleNorm[] {
  const defs = definitions(graph);
  const parameters = parameterValues(graph);
  return graph.ops.flatMap((op) => {
    const [x] = op.operands;
    if (op.name !== 'moments' || !x || parameters.has(x)) return [];
    const axes = nums(op.attrs, 'axes');
    const [, groups = 1] = x.type.shape;
    const rest = x.type.shape.length - axes.length;
    const split = defs.get(x)?.name === 'reshape' ? defs.get(x)!.operands[0]!.type.shape[1] : groups;
    if (axes.includes(0) || split === undefined) return [];
    return rest === 1 ? [{ channels: split, groups: 1 }] : rest === 2 && !axes.includes(1) ? [{ channels: split, groups }] : [];
  });
}
