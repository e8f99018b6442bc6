/** Sorting lines on a GPU, in a workgroup's memory and in steps over global memory, beside Array.prototype.sort. */
import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Tensor } from '../ir/type.ts';
import { gpu, onGpu, runOnGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());

const special = [NaN, Infinity, -Infinity, 0, -0, 1e-30, -1e-30];

describe.skipIf(!gpu)(onGpu('topK of long lines'), { timeout: 60_000 }, () => {
  test.each([[65, 65, true, 'f32'], [300, 7, false, 'f32'], [2048, 2048, true, 'f32'], [1000, 1000, false, 'i32'], [2049, 5, true, 'f32'], [9000, 9000, false, 'f32'], [20000, 300, true, 'i32']] as const)('%i to %i, largest: %s, %s: ties by place, NaN above all', async (length, k, largest, dtype) => {
    const columns = 3;
    const values = Array.from({ length: length * columns }, (_, i) => (dtype === 'f32' && i % 13 < special.length ? special[i % 13]! : ((i * 7919) % 101) - 50));
    const shape = [length, columns];
    const x: Tensor = dtype === 'f32' ? { dtype, shape, data: Float32Array.from(values) } : { dtype, shape, data: Int32Array.from(values) };
    const b = new Builder('sort');
    const [y, at] = b.op('topK', [b.input({ dtype, shape }, 'x')], { axis: 0, k, largest, sorted: true });
    const got = await runOnGpu(b.finish([{ name: 'y', value: y! }, { name: 'at', value: at! }]), { x });
    for (let c = 0; c < columns; c++) {
      const number = (i: number): number => values[i * columns + c]!;
      const order = Array.from({ length }, (_, i) => i).sort((p, q) => {
        const [a, z] = [number(p), number(q)];
        const above = Number.isNaN(a) ? (Number.isNaN(z) ? 0 : 1) : Number.isNaN(z) ? -1 : a < z ? -1 : a > z ? 1 : 0;
        return (largest ? -above : above) || p - q;
      });
      expect(Array.from({ length: k }, (_, r) => Number(got.get('at')!.data[r * columns + c]))).toEqual(order.slice(0, k));
      expect(Array.from({ length: k }, (_, r) => Number(got.get('y')!.data[r * columns + c]) + 0)).toEqual(order.slice(0, k).map((i) => Math.fround(number(i)) + 0));
    }
  });
});
