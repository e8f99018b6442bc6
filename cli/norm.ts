/** Options that rewrite the normalizations of a model. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import { weightNorms, type WeightNorm } from '../passes/norm/normalize-weights.ts';
import { parseNorm, showNorm, type NormSpec } from '../passes/norm/options.ts';
import { reportOf, type RewriteReport } from '../passes/norm/rewrite-norms.ts';
import { readTensor } from './inputs.ts';
import { positive, positiveNumber, refuseOption } from './options.ts';

export interface NormOptions {
  readonly norm?: NormSpec;
  readonly normSamples?: number;
  readonly normEps?: number;
  readonly normReference?: string;
  readonly proxyCenterOnly?: boolean;
  readonly weightNorm?: WeightNorm;
}

/** Adds the options to a command. */
export function normOptions(command: Command): Command {
  return command
    .option('--norm <norm>', 'rewrite batch normalizations: group:G, layer, instance, batch, frozen, none, renorm, ghost:SAMPLES, virtual or domains:COUNT, with Proxy Norm where +proxy follows (group:4+proxy)', norm)
    .option('--norm-samples <count>', 'quantiles of the proxy (default: 200)', positive)
    .option('--norm-eps <epsilon>', 'added to variances, above 0 (default: 0.001; norms over samples keep the model’s own)', positiveNumber)
    .option('--norm-reference <file>', 'samples (.npy, .pb) whose statistics virtual batch norm uses')
    .option('--proxy-center-only', 'norms that no activation follows keep their scale alone, as in the paper')
    .addOption(new Option('--weight-norm <norm>', 'normalize weights: standardize or scaled (of convolutions), weight or cosine (of linear layers too)').choices([...weightNorms]));
}

/** What the options ask for, if anything. */
export function normOf({ norm: spec, normSamples: samples, normEps: epsilon, normReference: reference, proxyCenterOnly: centerOnly, weightNorm: weights }: NormOptions): NormSpec | undefined {
  refuseOption(samples !== undefined && !spec?.proxy, '--norm-samples', 'needs --norm with +proxy');
  refuseOption(centerOnly === true && !spec?.proxy, '--proxy-center-only', 'needs --norm with +proxy');
  refuseOption(epsilon !== undefined && !spec, '--norm-eps', 'needs --norm');
  refuseOption(reference !== undefined && spec?.kind !== 'virtual', '--norm-reference', 'needs --norm virtual');
  if (!spec) return weights && { kind: 'keep', weights };
  return {
    ...spec,
    ...(epsilon !== undefined && { epsilon }),
    ...(reference !== undefined && { reference: readTensor(reference) }),
    ...(spec.proxy && { proxy: { ...(samples !== undefined && { samples }), ...(centerOnly && { centerOnly }) } }),
    ...(weights && { weights }),
  };
}

/** What a rewrite did, in lines. */
export function showRewrite(report: RewriteReport, spec: NormSpec): string[] {
  const { rewritten, left, weights } = report;
  const { kind, weights: asked, ...norms } = spec;
  const to = showNorm({ ...norms, kind });
  const proxied = rewritten.filter((r) => r.proxy.length > 0).length;
  const proxies = spec.proxy ? `, ${proxied} with a proxy${proxied < rewritten.length ? ` (no activation follows the other ${rewritten.length - proxied})` : ''}` : '';
  return [
    ...(kind === 'keep' ? [] : [rewritten.length === 0 ? `norms: the model has ${to} already` : `norms: ${rewritten.length} rewritten to ${to}${proxies}`]),
    ...left.map(({ node, reason }) => `norms: ${node} stays as it is: ${reason}`),
    ...(asked ? [weights.length === 0 ? `weights: they have their ${asked} normalization already` : `weights: ${weights.length} normalized (${asked})`] : []),
  ];
}

/** The same for --json. */
export const rewriteFacts = (report: RewriteReport, spec: NormSpec): object => ({ to: showNorm(spec), ...reportOf(report) });

function norm(text: string): NormSpec {
  try {
    return parseNorm(text);
  } catch (e) {
    if (e instanceof UserError) throw new InvalidArgumentError(e.message);
    throw e;
  }
}
