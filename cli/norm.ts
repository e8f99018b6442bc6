/** Options that rewrite the normalizations of a model. */
import { InvalidArgumentError, type Command } from 'commander';
import { UserError } from '../ir/diagnostic.ts';
import { parseNorm, type NormSpec } from '../passes/norm/options.ts';
import { number, positive, refuseOption } from './options.ts';

export interface NormOptions {
  readonly norm?: NormSpec;
  readonly normSamples?: number;
  readonly normEps?: number;
  readonly proxyCenterOnly?: boolean;
}

/** Adds the options to a command. */
export function normOptions(command: Command): Command {
  return command
    .option('--norm <norm>', 'rewrite batch normalizations: group:G, layer, instance, batch, frozen or none, with Proxy Norm where +proxy follows (group:4+proxy)', norm)
    .option('--norm-samples <count>', 'quantiles of the proxy (default: 200)', positive)
    .option('--norm-eps <epsilon>', 'added to variances (default: 0.001; batch and frozen keep the model’s own)', number)
    .option('--proxy-center-only', 'norms that no activation follows keep their scale alone, as in the paper');
}

/** What the options ask for, if anything. */
export function normOf({ norm: spec, normSamples: samples, normEps: epsilon, proxyCenterOnly: centerOnly }: NormOptions): NormSpec | undefined {
  refuseOption(samples !== undefined && !spec?.proxy, '--norm-samples', 'needs --norm with +proxy');
  refuseOption(centerOnly === true && !spec?.proxy, '--proxy-center-only', 'needs --norm with +proxy');
  refuseOption(epsilon !== undefined && !spec, '--norm-eps', 'needs --norm');
  if (!spec) return undefined;
  return { ...spec, ...(epsilon !== undefined && { epsilon }), ...(spec.proxy && { proxy: { ...(samples !== undefined && { samples }), ...(centerOnly && { centerOnly }) } }) };
}

function norm(text: string): NormSpec {
  try {
    return parseNorm(text);
  } catch (e) {
    if (e instanceof UserError) throw new InvalidArgumentError(e.message);
    throw e;
  }
}
