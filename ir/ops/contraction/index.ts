import type { OpDef } from '../../op.ts';
import { contract } from './contract.ts';
import { conv, convData, convWeight } from './conv.ts';

export const contractionOps: readonly OpDef[] = [contract, conv, convData, convWeight];
