/** Weights laid out for an algorithm, and the contractions that read them. */
import type { OpDef } from '../op.ts';
import { convPacked, packConv } from './packing/conv.ts';
import { contractPacked, packMatmul } from './packing/matmul.ts';
import { strassenSums } from './packing/strassen.ts';

export const packingOps: readonly OpDef[] = [packConv, convPacked, packMatmul, strassenSums, contractPacked];
