/** The target `cpu` of the tile planner and the target that kernels are made for describe one machine. */
import { expect, it } from 'vitest';
import { chunkTarget } from '../backends/wasm/nest.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { readTarget } from '../cli/plan/build.ts';

const { constants } = readTarget('cpu');

it('vectors and weight panels are as wide in both', () => {
  expect(wasmTarget.lanes).toBe(constants['vector.f32']);
  expect(wasmTarget.panel).toBe(constants.grainOut);
});

it('a chunk of a fused op over eight f32 tensors is no larger than a tile, and tiles fit the cache that bands count on', () => {
  expect(8 * 4 * chunkTarget).toBeLessThanOrEqual(constants.bytesPerTile);
  expect(constants.bytesPerTile).toBeLessThanOrEqual(wasmTarget.cacheBytes! / 2);
});
