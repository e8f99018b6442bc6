import type { OpDef } from '../op.ts';

export const contractionOps: readonly OpDef[] = [];
