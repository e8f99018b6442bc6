/** The target `cpu` is what kernels are cut for: its tiles and bytes decide chunks and blocks, its vectors and panels the layouts, and none of them the numbers. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { artifactOf, type Artifact } from '../cli/driver/compile.ts';
import { wasmTarget, wasmTargetOf } from '../cli/driver/target.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { Builder } from '../ir/builder.ts';
import type { Graph } from '../ir/graph.ts';
import { usualDivision } from '../ir/tile.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { parseTarget, withConstants, type TileTarget } from '../passes/tile/target.ts';
import { loadSession } from '../runtime/index.ts';
import type { TargetData } from '../runtime/manifest.ts';
import { example, tilewright } from './cli-harness.ts';
import { random } from './wasm-harness.ts';

const cpu = readTarget('cpu');
const kib = 1024;

it('kernels of compile, and of programs that name no target, are cut for targets/cpu.json', () => {
  expect(wasmTarget.lanes).toBe(cpu.constants['vector.f32']);
  expect(wasmTarget.panel).toBe(cpu.constants.grainOut);
  expect(wasmTarget.division).toEqual({ tiles: cpu.constants.tiles, bytesPerTile: cpu.constants.bytesPerTile });
  expect(usualDivision).toEqual(wasmTarget.division);
});

/** An elementwise chain, a product, a convolution in the form of Winograd, sums over rows and a softmax, each larger than the tiles below. */
function network(): Graph {
  const b = new Builder('network');
  const x = b.input({ dtype: 'f32', shape: [1, 32, 64, 64] }, 'x');
  const attrs = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 };
  const conv = b.unary('relu', b.one('conv', [x, b.constant(random([32, 32, 3, 3], 1))], attrs));
  const rows = b.reshape(conv, [512, 256]);
  const product = b.contract('mk,kn->mn', rows, b.constant(random([256, 384], 2)));
  const soft = b.unary('exp', product);
  return b.finish([
    { name: 'y', value: soft },
    { name: 'z', value: b.one('reduceSum', [product], { axes: [1] }) },
    { name: 'w', value: b.contract('km,kn->mn', product, rows) },
  ]);
}

async function artifact(target: TileTarget): Promise<Artifact> {
  return artifactOf({ graph: runPipeline(network(), wasmTargetOf(target)), imported: { bound: {}, dims: {}, warnings: [] } }, { target, features: ['simd'] });
}

it.each([[512 * kib, 16], [128 * kib, 16], [64 * kib, 64]])('%i bytes and %i tiles bound every vertex, or the step says why not', async (bytesPerTile, tiles) => {
  const { manifest } = await artifact(withConstants(cpu, { bytesPerTile, tiles }));
  expect(manifest.target?.constants['bytesPerTile']?.value).toBe(bytesPerTile);
  for (const s of manifest.steps) {
    expect(s.vertex).toBeGreaterThan(0);
    if (s.vertex! > bytesPerTile) expect(s.relaxed, s.name).toMatch(/./);
    else expect(s.relaxed, s.name).toBeUndefined();
  }
});

it('smaller tiles and more of them make more chunks, and the same bits', async () => {
  const inputs = { x: random([1, 32, 64, 64], 3).data as Float32Array };
  const results: Uint8Array[][] = [];
  const chunks: number[][] = [];
  for (const [bytesPerTile, tiles] of [[512 * kib, 16], [64 * kib, 64]] as const) {
    const made = await artifact(withConstants(cpu, { bytesPerTile, tiles }));
    chunks.push(made.manifest.steps.map((s) => s.chunks));
    const session = await loadSession(made, { threads: 1 });
    const out = await session.run(inputs);
    results.push(Object.values(out).map((t) => new Uint8Array((t.data as Float32Array).slice().buffer)));
    await session.close();
  }
  expect(chunks[1]!.length).toBe(chunks[0]!.length);
  chunks[1]!.forEach((n, i) => expect(n).toBeGreaterThanOrEqual(chunks[0]![i]!));
  // A product that is cut by single panels already cannot be cut further that way.
  expect(chunks[1]!.filter((n, i) => n > chunks[0]![i]!).length).toBeGreaterThanOrEqual(chunks[1]!.length - 1);
  expect(results[1]).toEqual(results[0]);
});

describe('the command line', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-cut-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('compile --tiles --tile-memory cuts kernels for the target cpu with these, and the manifest serves as a target', async () => {
    const out = join(folder, 'out');
    const first = await tilewright(['compile', example, '--features', 'simd', '--tiles', '64', '--tile-memory', '16KiB', '-o', out], 60_000);
    expect(first.stderr).toBe('');
    expect(first.stdout).toContain('kernels: cut for cpu, 64 tiles of 16.0 KiB');
    const manifest = join(out, 'manifest.json');
    const again = join(folder, 'again');
    const second = await tilewright(['compile', example, '--features', 'simd', '--target', manifest, '-o', again], 60_000);
    expect(second.stdout).toContain('kernels: cut for cpu, 64 tiles of 16.0 KiB');
    for (const file of ['manifest.json', 'model.wasm']) expect(readFileSync(join(again, file)).equals(readFileSync(join(out, file))), file).toBe(true);
    const { target } = JSON.parse(readFileSync(manifest, 'utf8')) as { readonly target: TargetData };
    expect(parseTarget(target, manifest)).toEqual(withConstants(cpu, { tiles: 64, bytesPerTile: 16 * kib }));
  }, 120_000);

  it('plan --target cpu lists the steps with their chunks and the bytes of their vertices', async () => {
    const { code, stdout } = await tilewright(['plan', example, '--target', 'cpu'], 60_000);
    expect(code).toBe(0);
    expect(stdout).toMatch(/step +kernel +from +chunks +largest vertex +of a tile\n/);
    expect(stdout).toContain('kernels: cut for cpu, 16 tiles of 512 KiB');
  }, 60_000);

  it('options of tile programs, and the other backend, do not go with it', async () => {
    for (const args of [['--dtype', 'f16'], ['--backend', 'wgsl']]) {
      const { code, stderr } = await tilewright(['compile', example, '--target', 'cpu', ...args, '-o', join(folder, 'refused')], 60_000);
      expect([code, stderr]).toEqual([2, expect.stringMatching(/--(dtype|target)/)]);
    }
  }, 120_000);
});
