/** Which normalization a model is to have. */
import { UserError } from '../../ir/diagnostic.ts';
import type { Tensor } from '../../ir/type.ts';
import type { WeightNorm } from './normalize-weights.ts';

export type NormKind = 'keep' | 'group' | 'layer' | 'instance' | 'batch' | 'frozen' | 'none' | 'renorm' | 'ghost' | 'virtual' | 'domains';

/** A rewrite of normalizations. */
export interface NormSpec {
  /**
   * `layer`: over all of a sample; `instance`: over each channel of a sample; `batch`: over the batch; `frozen`: by the running statistics; `none`: scale and shift alone. `renorm`: over the batch,
   * brought near the running statistics (Ioffe, arXiv 1702.03275); `ghost`: over parts of the batch (Hoffer et al., arXiv 1705.08741); `virtual`: over a fixed reference batch and the sample
   * (Salimans et al., arXiv 1606.03498); `domains`: over the samples of the same domain, which a new input `domain` names for each sample; `keep`: as they are.
   */
  readonly kind: NormKind;
  /** Groups of `group`; a layer with fewer channels has a group for each. */
  readonly groups?: number;
  /** Samples of a part for `ghost`, number of domains for `domains`. */
  readonly size?: number;
  /** Bounds of `renorm`: of the scale's correction (3 unless given; 1 is none), and of the shift's (5 unless given). */
  readonly limits?: readonly [scale: number, shift: number];
  /** Samples of the reference batch of `virtual`, shaped like the model's input. */
  readonly reference?: Tensor;
  /** Added to the variance: 1e-3 unless given, and the model's own for norms over samples. */
  readonly epsilon?: number;
  /** Proxy Norm behind each activation. */
  readonly proxy?: ProxySpec;
  /** A normalization of weights besides. */
  readonly weights?: WeightNorm;
}

export interface ProxySpec {
  /** Quantiles of the proxy; 200 unless given. */
  readonly samples?: number;
  /** Added to the proxy's variance; 0.03 unless given. */
  readonly epsilon?: number;
  /** Norms without an activation keep their scale alone, as in the paper. */
  readonly centerOnly?: boolean;
}

/** What a kind is followed by: a whole number under a field, two bounds, or nothing. */
const kinds: Readonly<Record<Exclude<NormKind, 'keep'>, 'groups' | 'size' | 'limits' | undefined>> = {
  group: 'groups', layer: undefined, instance: undefined, batch: undefined, frozen: undefined, none: undefined, renorm: 'limits', ghost: 'size', virtual: undefined, domains: 'size',
};
const examples: Readonly<Partial<Record<NormKind, string>>> = { group: 'group:4', ghost: 'ghost:32', domains: 'domains:2' };
const known = 'known are group:G, layer, instance, batch, frozen, none, renorm, ghost:SAMPLES, virtual, domains:COUNT, each but virtual also with +proxy';

/** Parses `group:4+proxy`. */
export function parseNorm(text: string): NormSpec {
  const [norm = '', ...additions] = text.split('+');
  const [name = '', number, ...rest] = norm.split(':');
  const kind = (Object.keys(kinds) as (keyof typeof kinds)[]).find((k) => k === name);
  if (!kind || rest.length > 0) throw new UserError(`unknown normalization "${norm}"; ${known}`);
  const odd = additions.find((a) => a !== 'proxy');
  if (odd !== undefined || additions.length > 1) throw new UserError(`unknown addition "+${odd ?? additions.join('+')}" in "${text}"; ${known}`);
  const proxy = additions.length > 0 && { proxy: {} };
  if (kind === 'virtual' && proxy) throw new UserError(`"${text}": virtual takes no +proxy, the reference batch would have to pass it too`);
  const field = kinds[kind];
  if (field === 'limits') return { kind, ...(number !== undefined && { limits: limitsOf(number, text) }), ...proxy };
  if (field === undefined ? number !== undefined : number === undefined || !/^[1-9]\d*$/.test(number)) {
    throw new UserError(field === undefined ? `"${text}": ${kind} takes no number` : `"${text}" needs a number${kind === 'group' ? ' of groups' : ''}, as in ${examples[kind] ?? kind}`);
  }
  return { kind, ...(field !== undefined && { [field]: Number(number) }), ...proxy };
}

function limitsOf(text: string, whole: string): readonly [number, number] {
  const [scale, shift, ...rest] = text.split(',').map(Number);
  if (scale === undefined || shift === undefined || rest.length > 0 || !(scale >= 1) || !(shift >= 0)) throw new UserError(`"${whole}": renorm takes a bound of the scale of at least 1 and one of the shift of at least 0, as in renorm:3,5`);
  return [scale, shift];
}

/** How a spec is written. */
export function showNorm({ kind, groups, size, limits, proxy, weights }: NormSpec): string {
  const number = groups ?? size ?? limits?.join(',');
  const norm = kind === 'keep' ? [] : [`${kind}${number === undefined ? '' : `:${number}`}${proxy ? '+proxy' : ''}`];
  return [...norm, ...(weights ? [`${weights} weights`] : [])].join(', ');
}

/** Whether a norm of this kind follows the batch in training and running statistics in inference. */
export const followsBatch = ({ kind }: NormSpec): boolean => ['batch', 'renorm', 'ghost', 'domains'].includes(kind);

/** Parses `batch,renorm:3,5,layer+proxy`: a comma before a digit belongs to the norm. */
export const parseNorms = (text: string): NormSpec[] => text.split(/,(?!\s*[\d.])/).map(parseNorm);

/** The form that inference has: norms over the batch use running statistics. */
export function inferenceForm(spec: NormSpec): NormSpec {
  const { kind, size: _, limits: __, ...rest } = spec;
  return kind === 'batch' || kind === 'renorm' || kind === 'ghost' ? { ...rest, kind: 'frozen' } : spec;
}
