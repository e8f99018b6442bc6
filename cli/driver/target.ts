/** The machines that the driver plans for. */
import type { Target } from '../../ir/tile.ts';

/** 128-bit WebAssembly SIMD. The feature sets of one artifact share its plan and its packed weights. */
export const wasmTarget: Target = { name: 'wasm', lanes: 4, panel: 8, packBudget: 2, winograd: true, cacheBytes: 2 * 2 ** 20, sharedIo: true };

/**
 * WGSL compute shaders. Every element is a 32-bit word, as storage buffers hold no smaller ones; buffers start at multiples of 256 bytes, the alignment of bindings that every
 * adapter has. Weights are read as they are.
 */
export const wgslTarget: Target = { name: 'wgsl', lanes: 4, panel: 0, packBudget: 1, winograd: false, storage: { elementBytes: 4, granularity: 256 } };
