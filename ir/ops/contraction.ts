/** Contractions: sums of products of two operands. */
import type { OpDef } from '../op.ts';
import { contract } from './contraction/contract.ts';
import { conv, convData, convWeight } from './contraction/conv.ts';

export const contractionOps: readonly OpDef[] = [contract, conv, convData, convWeight];
