import type { OpDef } from '../op.ts';

export const windowOps: readonly OpDef[] = [];
