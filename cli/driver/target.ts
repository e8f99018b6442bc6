/** The machines that the driver plans for. */
import type { Target } from '../../ir/tile.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { readTarget } from './target-file.ts';

/** The passes' view of a machine whose tiles are cores with caches (targets/cpu.json, or one in its form): how wide its vectors and panels are, and what kernels are cut by. */
export function wasmTargetOf({ constants }: TileTarget): Target {
  return {
    name: 'wasm', lanes: constants['vector.f32'], panel: constants.grainOut, packBudget: 2, winograd: true, sharedIo: true,
    division: { tiles: constants.tiles, bytesPerTile: constants.bytesPerTile },
  };
}

/** 128-bit WebAssembly SIMD, cut for the target `cpu`. The feature sets of one artifact share its plan and its packed weights. */
export const wasmTarget: Target = wasmTargetOf(readTarget('cpu'));

/**
 * WGSL compute shaders. Every element is a 32-bit word, as storage buffers hold no smaller ones; buffers start at multiples of 256 bytes, the alignment of bindings that every
 * adapter has. Weights are read as they are.
 */
export const wgslTarget: Target = { name: 'wgsl', lanes: 4, panel: 0, packBudget: 1, winograd: false, storage: { elementBytes: 4, granularity: 256 } };

/** The same where shaders have f16 (`shader-f16`): its elements take 2 bytes. */
export const wgslHalfTarget: Target = { ...wgslTarget, storage: { ...wgslTarget.storage!, own: ['f16'] } };
