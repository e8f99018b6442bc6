import { UserError } from '../../ir/diagnostic.ts';
import type { CentralizationSpec, OptimizerSpec } from './options.ts';

const kinds: readonly OptimizerSpec['kind'][] = ['sgd', 'sgdw', 'adam', 'adamw', 'adagrad', 'rmsprop', 'lars', 'lamb'];

/** An optimizer's rule and centralization: what its name alone says. */
export interface NamedOptimizer {
  readonly kind: OptimizerSpec['kind'];
  readonly gc?: CentralizationSpec;
  readonly rule?: 'gc-author';
}

/**
 * The optimizer of a name, upper or lower case: the rules of this package, or those of the authors of gradient centralization (arXiv 2004.01461, `GC_code/`): `_GC` centralizes
 * parameters of rank 2 and more, `_GCC` those of rank 4 and more, a 2 at the end does so after the moments, and their AdamW corrects the bias of the whole step.
 */
export function optimizerNamed(name: string): NamedOptimizer {
  const match = /^([a-z]+?)(?:_(gcc?)(2?))?$/i.exec(name);
  const kind = kinds.find((k) => k === match?.[1]?.toLowerCase());
  const variant = match?.[2]?.toLowerCase();
  const after = match?.[3] === '2';
  const known = kind && (variant === undefined || ['sgd', 'sgdw', 'adam', 'adamw', 'adagrad'].includes(kind)) && (!after || kind === 'adam' || kind === 'adamw');
  if (!known) {
    throw new UserError(`there is no optimizer "${name}"; there are ${kinds.join(', ')}, and SGD_GC, SGD_GCC, SGDW_GC, SGDW_GCC, Adam_GC, Adam_GCC, Adam_GC2, Adam_GCC2, AdamW_GC, AdamW_GCC, AdamW_GC2, AdamW_GCC2, Adagrad_GC, Adagrad_GCC`);
  }
  if (variant === undefined) return { kind };
  return { kind, gc: { minRank: variant === 'gc' ? 2 : 4, before: !after }, ...(kind === 'adamw' && { rule: 'gc-author' }) };
}
