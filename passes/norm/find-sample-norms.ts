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
    const { shape } = x.type;
    const kept = shape.flatMap((_, i) => (axes.includes(i) ? [] : [i]));
    const before = defs.get(x)?.name === 'reshape' ? defs.get(x)!.operands[0]!.type.shape : shape;
    const channels = before[1];
    if (channels === undefined || kept[0] !== 0 || kept.length > 2 || (kept.length === 2 && kept[1] !== 1)) return [];
    return [{ channels, groups: kept.length === 2 ? shape[1]! : 1 }];
  });
}
