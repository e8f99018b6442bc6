/** Names of what a rewrite adds to a model, by which it is known again. */
import type { Graph } from '../../ir/graph.ts';
import { sizeOf } from '../../ir/type.ts';
import type { BatchNorm } from './find-norms.ts';

/** Parameters of proxies. */
export const proxySuffixes = { gamma: 'proxy_gamma', beta: 'proxy_beta' } as const;

/** The input that names the domain of each sample. */
export const domainName = 'domain';

/** `block.1.weight` gives `block.1.proxy_gamma`; a norm without a scale of its own is called as the node that ends it. */
export function ownName(norm: BatchNorm, suffix: string, graph: Graph): string {
  const channels = norm.y.type.shape[1]!;
  const scale = graph.state.find((s) => norm.scale.includes(s.value) && sizeOf(s.value.type.shape) === channels);
  const name = scale?.name ?? norm.last.source[0]?.replace(/^\w+\((.*)\)$/, '$1') ?? 'norm';
  return `${name.replace(/[._/](?:weight|gamma|scale)$/i, '')}.${suffix}`;
}

/** Whether a normalization has a proxy already. */
export const isProxied = (norm: BatchNorm, graph: Graph): boolean => graph.state.some((s) => s.name === ownName(norm, proxySuffixes.gamma, graph));
