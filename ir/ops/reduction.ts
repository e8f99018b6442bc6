import type { OpDef } from '../op.ts';

export const reductionOps: readonly OpDef[] = [];
