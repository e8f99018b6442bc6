/** Whether a model without batch normalizations has a form that was asked for. */
import type { Graph, Op, Value } from '../../ir/graph.ts';
import { placedOps } from '../../ir/regions.ts';
import { sizeOf } from '../../ir/type.ts';
import type { Statistic } from './find-norms.ts';
import { sampleNorms } from './find-sample-norms.ts';
import { domainName, proxySuffixes } from './own-names.ts';
import type { NormSpec } from './options.ts';
import { parameterValues } from './structure.ts';

/** Statistics of a model without batch normalizations that are not listed as such, where it has the normalizations that are asked for; undefined where it has others. */
export function settledStatistics(graph: Graph, { kind, groups, size, proxy }: NormSpec): readonly Statistic[] | undefined {
  const proxies = graph.state.some((s) => s.name.endsWith(proxySuffixes.gamma));
  if (proxies !== (proxy !== undefined)) return undefined;
  const found = sampleNorms(graph);
  if (kind === 'none') return found.length === 0 && (proxies || scalesChannels(graph)) ? [] : undefined;
  if (kind === 'domains') {
    const own = graph.state.filter((s) => /\.domain_(?:mean|var)$/.test(s.name) && s.value.type.shape[0] === size);
    return own.length > 0 && graph.inputs.some((v) => v.name === domainName) ? own.map((s) => ({ state: s.value, next: undefined })) : undefined;
  }
  const wanted = (channels: number): number | undefined => (kind === 'layer' ? 1 : kind === 'instance' ? channels : kind === 'group' ? Math.min(groups ?? 0, channels) : undefined);
  return found.length > 0 && found.every((n) => n.groups === wanted(n.channels)) ? [] : undefined;
}

/** Whether data is multiplied and shifted by one parameter a channel, as it is where a normalization was left out. */
function scalesChannels(graph: Graph): boolean {
  const parameters = parameterValues(graph);
  const defs = new Map(placedOps(graph).flatMap(({ op }) => op.results.map((r) => [r, op] as const)));
  const ofChannels = (op: Op | undefined, name: string): Value | undefined => {
    const at = op?.name === name ? op.operands.findIndex((v) => parameters.has(v) && v.type.shape.length > 0 && sizeOf(v.type.shape) > 1 && sizeOf(v.type.shape) === op.results[0]!.type.shape[1]) : -1;
    return at < 0 ? undefined : op!.operands[1 - at];
  };
  return [...defs.values()].some((op) => {
    const scaled = ofChannels(op, 'add');
    const x = scaled && ofChannels(defs.get(scaled), 'mul');
    return x !== undefined && !parameters.has(x);
  });
}
