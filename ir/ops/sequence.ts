/** Ops along an ordered axis or over a stream of random numbers: scans, sorting, random tensors. */
import type { OpDef } from '../op.ts';
import { cumProd, cumSum } from './sequence/cumulative.ts';
import { randomNormal, randomUniform } from './sequence/random.ts';
import { topK } from './sequence/topk.ts';

export const sequenceOps: readonly OpDef[] = [cumSum, cumProd, topK, randomUniform, randomNormal];
