/** Ops that read or write at run-time indices. */
import type { OpDef } from '../op.ts';
import { dynamicSlice, dynamicUpdate } from './indexing/dynamic.ts';
import { gather, gatherElements, gatherNd } from './indexing/gather.ts';
import { scatterElements, scatterNd } from './indexing/scatter.ts';

export const indexingOps: readonly OpDef[] = [gather, gatherElements, gatherNd, dynamicSlice, dynamicUpdate, scatterElements, scatterNd];
