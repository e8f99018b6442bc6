/** Reductions: family [reduce]. The reduced axes are dropped. */
import type { OpDef } from '../op.ts';
import { argOps } from './reduction/arg.ts';
import { foldOps } from './reduction/fold.ts';
import { moments } from './reduction/moments.ts';

export const reductionOps: readonly OpDef[] = [...foldOps, ...argOps, moments];
