import type { OpDef } from '../op.ts';

export const sequenceOps: readonly OpDef[] = [];
