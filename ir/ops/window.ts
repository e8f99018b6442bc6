/** Ops that sweep windows over axes: pools and resampling. */
import type { OpDef } from '../op.ts';
import { maxPool, maxPoolGrad } from './window/maxpool.ts';
import { resample } from './window/resample.ts';
import { sumPool, sumPoolGrad } from './window/sumpool.ts';

export const windowOps: readonly OpDef[] = [maxPool, maxPoolGrad, sumPool, sumPoolGrad, resample];
