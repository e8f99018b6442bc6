import type { Target } from '../../ir/tile.ts';

/** A target for tests of passes. */
export const testTarget: Target = { name: 'test', lanes: 4, panel: 8, packBudget: 5, winograd: true, sharedIo: true };
