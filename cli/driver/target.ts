/** The machines that the driver plans for. */
import type { Target } from '../../ir/tile.ts';

/** 128-bit WebAssembly SIMD. The feature sets of one artifact share its plan and its packed weights. */
export const wasmTarget: Target = { name: 'wasm', lanes: 4, panel: 8, packBudget: 2, winograd: true };
