import type { OpDef } from '../op.ts';

export const indexingOps: readonly OpDef[] = [];
