import type { OpDef } from '../op.ts';

export const controlOps: readonly OpDef[] = [];
