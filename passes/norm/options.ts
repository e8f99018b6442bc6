/** Which normalization a model is to have. */
import { UserError } from '../../ir/diagnostic.ts';

export type NormKind = 'group' | 'layer' | 'instance' | 'batch' | 'frozen' | 'none';

/** A rewrite of normalizations. */
export interface NormSpec {
  /** `layer`: over all of a sample; `instance`: over each channel of a sample; `batch`: over the batch; `frozen`: by the running statistics; `none`: scale and shift alone. */
  readonly kind: NormKind;
  /** Groups of `group`; a layer with fewer channels has a group for each. */
  readonly groups?: number;
  /** Added to the variance: 1e-3 unless given, and the model's own for `batch` and `frozen`. */
  readonly epsilon?: number;
  /** Proxy Norm behind each activation. */
  readonly proxy?: ProxySpec;
}

export interface ProxySpec {
  /** Quantiles of the proxy; 200 unless given. */
  readonly samples?: number;
  /** Added to the proxy's variance; 0.03 unless given. */
  readonly epsilon?: number;
  /** Norms without an activation keep their scale alone, as in the paper. */
  readonly centerOnly?: boolean;
}

const kinds: readonly NormKind[] = ['group', 'layer', 'instance', 'batch', 'frozen', 'none'];
const known = `known are group:G, ${kinds.slice(1).join(', ')}, each also with +proxy`;

/** Parses `group:4+proxy`. */
export function parseNorm(text: string): NormSpec {
  const [norm = '', ...additions] = text.split('+');
  const [name = '', groups, ...rest] = norm.split(':');
  const kind = kinds.find((k) => k === name);
  if (!kind || rest.length > 0) throw new UserError(`unknown normalization "${norm}"; ${known}`);
  const odd = additions.find((a) => a !== 'proxy');
  if (odd !== undefined || additions.length > 1) throw new UserError(`unknown addition "+${odd ?? additions.join('+')}" in "${text}"; ${known}`);
  if (kind === 'group' ? groups === undefined || !/^[1-9]\d*$/.test(groups) : groups !== undefined) {
    throw new UserError(kind === 'group' ? `"${text}" needs a number of groups, as in group:4` : `"${text}": ${kind} takes no number`);
  }
  return { kind, ...(groups !== undefined && { groups: Number(groups) }), ...(additions.length > 0 && { proxy: {} }) };
}

/** How a spec is written. */
export const showNorm = ({ kind, groups, proxy }: NormSpec): string => `${kind}${groups === undefined ? '' : `:${groups}`}${proxy ? '+proxy' : ''}`;
