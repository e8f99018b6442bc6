/** Reductions in both of their forms, by workgroup memory alone and by subgroups, beside plain loops. */
import { afterAll, describe, expect, test } from 'vitest';
import { Builder } from '../ir/builder.ts';
import type { Value } from '../ir/graph.ts';
import type { Artifact } from '../index.ts';
import { load } from '../runtime/index.ts';
import { subgroupsInOrder } from '../runtime/webgpu/subgroups.ts';
import { compiled, gpu, numbers, onGpu } from './wgsl-harness.ts';

afterAll(() => gpu?.close());
const offered = gpu ? await subgroupsInOrder(gpu.device) : false;

/** The artifact for a device without subgroups. */
const withMemory = (a: Artifact): Artifact => ({ ...a, manifest: { ...a.manifest, gpu: { ...a.manifest.gpu!, shaders: a.manifest.gpu!.shaders.map(({ subgroups: _, ...s }) => s) } } });

/** One artifact of three reductions of x (rows, length) along its rows, and of a product with a long sum. */
async function reductions(rows: number, length: number): Promise<Artifact> {
  const b = new Builder('reductions');
  const x = b.input({ dtype: 'f32', shape: [rows, length] }, 'x');
  const outputs: [string, Value][] = [['sum', b.reduce('reduceSum', x, [1])], ['max', b.reduce('reduceMax', x, [1])], ['product', b.one('contract', [x, x], { spec: 'mk,nk->mn' })]];
  return compiled(b.finish(outputs.map(([name, value]) => ({ name, value }))));
}

describe('shaders that join values of a workgroup', () => {
  test('come in a form for subgroups beside the plain one, which needs no feature', async () => {
    const { manifest, shaders } = await reductions(3, 100);
    expect(manifest.gpu!.features).toEqual([]);
    const joining = manifest.gpu!.shaders.filter((s) => s.subgroups !== undefined);
    expect(joining).toHaveLength(3);
    for (const s of joining) {
      expect(shaders![s.subgroups!]).toContain('enable subgroups;');
      expect(shaders![s.file]).not.toContain('subgroup');
    }
  });
});

describe.skipIf(!gpu)(onGpu('reductions'), { timeout: 60_000 }, () => {
  test.skipIf(!offered).each([[3, 100], [2, 2500]])(`of %i rows of %i give what plain loops give, with subgroups and without${offered ? '' : ' (skipped: the adapter has no subgroups, or not in order)'}`, async (rows, length) => {
    const x = numbers([rows, length]);
    const data = x.data as Float32Array;
    data[length - 1] = NaN;
    data[2 * length - 1] = Infinity;
    const artifact = await reductions(rows, length);
    for (const form of [artifact, withMemory(artifact)]) {
      await using session = await load(form, { gpu: gpu! });
      const got = await session.run({ x });
      for (let r = 0; r < rows; r++) {
        const row = data.subarray(r * length, (r + 1) * length);
        const sum = row.reduce((s, v) => s + v, 0);
        const close = (value: number | bigint, want: number): void => {
          if (Number.isFinite(want)) expect(Math.abs(Number(value) - want)).toBeLessThan(1e-4 * length ** 0.5);
          else expect(value).toBe(want);
        };
        close(got['sum']!.data[r]!, sum);
        expect(got['max']!.data[r]).toBe(row.some(Number.isNaN) ? NaN : Math.max(...row));
        close(got['product']!.data[r * rows + r]!, row.reduce((s, v) => s + v * v, 0));
      }
    }
  });

  test.skipIf(!offered)('take the form for subgroups where the device has them in order', async () => {
    const artifact = await reductions(3, 100);
    const file = artifact.manifest.gpu!.shaders.find((s) => s.subgroups !== undefined)!.subgroups!;
    const broken = { ...artifact, shaders: { ...artifact.shaders, [file]: 'broken' } };
    await expect(load(broken, { gpu: gpu! })).rejects.toThrow(file);
    await using session = await load(withMemory(broken), { gpu: gpu! });
    expect(session.features).toBe('webgpu');
  });
});
