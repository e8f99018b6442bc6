/** What the target of a GPU decides: its workgroups and their memory cut the shaders of a model, and the manifest says so. No GPU is needed. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { readTarget } from '../cli/driver/target-file.ts';
import { compile } from '../index.ts';
import { Builder } from '../ir/builder.ts';
import { withConstants } from '../passes/tile/target.ts';
import type { Manifest } from '../runtime/manifest.ts';
import { example, tilewright } from './cli-harness.ts';
import { compiled } from './wgsl-harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'tilewright-gpu-target-'));
afterAll(() => rmSync(folder, { recursive: true }));

const usual = readTarget('gpu');
const manifestOf = (name: string): Manifest => JSON.parse(readFileSync(join(folder, name, 'manifest.json'), 'utf8')) as Manifest;
const vertices = ({ steps }: Manifest): number[] => steps.map((s) => s.vertex ?? 0);

describe('the workgroups of a target', () => {
  /** The one step of a product of 1024 x 64 and 64 x 1024 elements. */
  const product = async (constants: Parameters<typeof withConstants>[1]): Promise<Manifest['steps'][number]> => {
    const b = new Builder('product');
    const [x, y] = [b.input({ dtype: 'f32', shape: [1024, 64] }, 'x'), b.input({ dtype: 'f32', shape: [64, 1024] }, 'y')];
    const graph = b.finish([{ name: 'z', value: b.one('contract', [x, y], { spec: 'mk,kn->mn' }) }]);
    const { manifest } = await compiled(graph, true, { target: withConstants(usual, constants) });
    expect(manifest.steps).toHaveLength(1);
    return manifest.steps[0]!;
  };

  test('get two tiles of 128 x 128 of a product each, or tiles of 64 x 64', async () => {
    expect((await product({ tiles: 32 })).chunks).toBe((1024 / 128) ** 2);
    expect((await product({ tiles: 33 })).chunks).toBe((1024 / 64) ** 2);
  });

  test('hold slices of both operands, as many steps of the sum as their memory has room for', async () => {
    const floats = 4;
    for (const [bytesPerTile, side, steps] of [[16384, 128, 8], [8192, 64, 8], [4096, 64, 4], [2048, 64, 2]] as const) {
      const { vertex, chunks } = await product({ tiles: 32, bytesPerTile });
      expect(chunks).toBe((1024 / side) ** 2);
      // Rows of both panels, each with four elements to spare.
      expect(vertex).toBe(steps * 2 * (side + 4) * floats);
      expect(vertex).toBeLessThanOrEqual(bytesPerTile);
    }
  });
});

describe('compile --backend wgsl', { timeout: 120_000 }, () => {
  test('cuts for a target file of its own, says so, and does it again from the manifest', async () => {
    const file = join(folder, 'small.json');
    const source = JSON.parse(readFileSync(new URL('../targets/gpu.json', import.meta.url), 'utf8')) as { name: string; constants: Record<string, { value: number }> };
    source.name = 'small';
    source.constants['tiles']!.value = 4;
    source.constants['bytesPerTile']!.value = 2048;
    writeFileSync(file, JSON.stringify(source));
    const first = await tilewright(['compile', example, '--backend', 'wgsl', '--no-fallback', '--target', file, '-o', join(folder, 'first')], 60_000);
    expect([first.code, first.stderr.includes('rror')]).toEqual([0, false]);
    const manifest = manifestOf('first');
    const largest = Math.max(...vertices(manifest));
    expect(largest).toBeGreaterThan(0);
    expect(largest).toBeLessThanOrEqual(2048);
    expect(manifest.gpu!.limits.maxComputeWorkgroupStorageSize).toBe(largest);
    expect([manifest.target!.name, manifest.target!.backend, manifest.target!.constants['tiles']!.value, manifest.target!.constants['bytesPerTile']!.value]).toEqual(['small', 'wgsl', 4, 2048]);
    expect(first.stdout).toContain('kernels: cut for small, 4 tiles of 2.00 KiB; the largest vertex within them takes');
    const second = await tilewright(['compile', example, '--backend', 'wgsl', '--no-fallback', '--target', join(folder, 'first/manifest.json'), '-o', join(folder, 'second'), '--json'], 60_000);
    expect((JSON.parse(second.stdout) as { kernels: unknown }).kernels).toEqual({ target: 'small', tiles: 4, bytesPerTile: 2048, largest, relaxed: [] });
    expect(readFileSync(join(folder, 'second/shaders.json'), 'utf8')).toBe(readFileSync(join(folder, 'first/shaders.json'), 'utf8'));
  });

  test('takes --tile-memory alone as that of gpu; the module beside the shaders is cut for cpu', async () => {
    const { code } = await tilewright(['compile', example, '--backend', 'wgsl', '--tile-memory', '1KiB', '-o', join(folder, 'alone')], 60_000);
    expect(code).toBe(0);
    expect(Math.max(...vertices(manifestOf('alone')))).toBeLessThanOrEqual(1024);
    expect(manifestOf('alone').target!.name).toBe('gpu');
    expect(manifestOf('alone/wasm').target).toBeUndefined();
  });

  test.each([
    ['cpu', /--target cpu cuts kernels of WebAssembly; with --backend wgsl it is gpu, or a file that says "backend": "wgsl"/],
    ['mk2', /--backend does not go with the tile program that --target mk2 makes/],
  ])('refuses the target %s by its name', async (name, message) => {
    const { code, stderr } = await tilewright(['compile', example, '--backend', 'wgsl', '--target', name, '-o', join(folder, 'refused')], 60_000);
    expect([code, existsSync(join(folder, 'refused'))]).toEqual([2, false]);
    expect(stderr).toMatch(message);
  });
});

test('a target of the other backend is refused by the compiler, too', async () => {
  await expect(compile(example, { target: usual })).rejects.toThrow('the target gpu is for the backend wgsl, and the model is compiled for wasm');
  await expect(compile(example, { backend: 'wgsl', target: readTarget('cpu') })).rejects.toThrow('the target cpu is for the backend wasm, and the model is compiled for wgsl');
});
