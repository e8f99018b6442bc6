/** How exact a Winograd convolution is in float32 for the weights at hand. */
import { sandwich, winograd } from '../ir/ops/packing/winograd.ts';
import { nth } from '../ir/ops/helpers.ts';
import type { Tensor } from '../ir/type.ts';

const sampledChannels = 4;
const sampledTiles = 4;

/**
 * The largest difference, on rectified normal inputs, between a 3x3 convolution computed by Winograd in float32 and the same in float64, as a fraction of
 * the results' standard deviation; over a few tiles of a few result channels.
 */
export function winogradError(w: Tensor, tile: 2 | 4): number {
  const { side, input, weight, output } = winograd(tile);
  const [out, channels] = [nth(w.shape, 0), nth(w.shape, 1)];
  const data = w.data as Float32Array;
  const next = normals();
  const positions = side * side;
  const [temp, moved, kernel, back, exact] = [new Float64Array(positions), new Float64Array(positions), new Float64Array(positions), new Float64Array(tile * tile), new Float64Array(tile * tile)];
  const results: number[] = [];
  let worst = 0;
  for (let t = 0; t < sampledTiles; t++) {
    const patches = Array.from({ length: channels }, () => Float64Array.from({ length: positions }, () => Math.fround(Math.max(0, next()))));
    const transformed = patches.map((p) => {
      sandwich(input, p, side, temp, moved);
      return moved.map(Math.fround);
    });
    for (let s = 0; s < Math.min(sampledChannels, out); s++) {
      const o = Math.floor((s * out) / Math.min(sampledChannels, out));
      const sums = new Float64Array(positions);
      exact.fill(0);
      for (let c = 0; c < channels; c++) {
        const g = Float64Array.from(data.subarray((o * channels + c) * 9, (o * channels + c) * 9 + 9));
        sandwich(weight, g, 3, temp, kernel);
        const patch = patches[c]!;
        const v = transformed[c]!;
        for (let p = 0; p < positions; p++) sums[p] = Math.fround(sums[p]! + Math.fround(kernel[p]!) * v[p]!);
        for (let i = 0; i < tile; i++) for (let j = 0; j < tile; j++) for (let k = 0; k < 9; k++) exact[i * tile + j]! += g[k]! * patch[(i + Math.floor(k / 3)) * side + j + (k % 3)]!;
      }
      sandwich(output, sums, side, temp, back);
      for (let i = 0; i < back.length; i++) worst = Math.max(worst, Math.abs(Math.fround(back[i]!) - exact[i]!));
      results.push(...exact);
    }
  }
  const mean = results.reduce((n, v) => n + v, 0) / results.length;
  const deviation = Math.sqrt(results.reduce((n, v) => n + (v - mean) ** 2, 0) / results.length);
  return deviation === 0 ? 0 : worst / deviation;
}

/** Normal numbers by Box and Muller, the same in every run. */
export function normals(): () => number {
  let s = 12345;
  const uniform = (): number => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return (s + 1) / 4294967297;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
