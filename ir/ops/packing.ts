import type { OpDef } from '../op.ts';

export const packingOps: readonly OpDef[] = [];
