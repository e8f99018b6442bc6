import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { wasmTarget } from '../cli/driver/target.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { Builder } from '../ir/builder.ts';
import type { Graph } from '../ir/graph.ts';
import { bytesOf, dtypes, sizeOf, type DType, type Tensor } from '../ir/type.ts';
import { countOf, type TilePlan } from '../ir/tiles.ts';
import { verify } from '../ir/verify.ts';
import { combAt } from '../passes/tile/divide.ts';
import { planFromJson, planToJson } from '../passes/tile/json.ts';
import { planTiles } from '../passes/tile/plan.ts';
import { prepare, simplified } from '../passes/tile/prepare.ts';
import { splitStep } from '../passes/tile/recompute.ts';
import { flatSteps } from '../passes/tile/report.ts';
import { constantUnits, parseTarget, withConstants } from '../passes/tile/target.ts';
import { trainingStep } from '../passes/train/pipeline.ts';

const weights = (shape: readonly number[], seed: number): Tensor => ({ dtype: 'f32', shape, data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(i * 12.9898 + seed) / 4) });

/** A chain of residual blocks of two convolutions, and a linear layer. */
function residual(batch: number, blocks = 3): Graph {
  const b = new Builder('residual');
  const x = b.input({ dtype: 'f32', shape: [batch, 8, 12, 12] }, 'x');
  const parameter = (name: string, shape: readonly number[]): ReturnType<Builder['state']> => b.state(name, { dtype: 'f32', shape }, weights(shape, name.length));
  const conv = (v: typeof x, name: string): typeof x => b.one('conv', [v, parameter(name, [8, 8, 3, 3])], { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 });
  let v = conv(x, 'stem');
  for (let i = 0; i < blocks; i++) v = b.one('relu', [b.add(conv(b.one('relu', [conv(v, `block${i}.a`)]), `block${i}.b`), v)]);
  const pooled = b.one('reduceSum', [v], { axes: [2, 3] });
  const y = b.one('contract', [pooled, parameter('head', [8, 4])], { spec: 'mk,kn->mn' });
  return b.finish([{ name: 'y', value: y }]);
}

const step = (batch: number): Graph => trainingStep(residual(batch), [], { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } }, wasmTarget).graph;
const mk2 = readTarget('mk2');
const small = (tiles: number): ReturnType<typeof readTarget> => withConstants(mk2, { tiles, bytesPerTile: 1 << 20 });

/** Bytes that tile-model.md's rules give for a buffer, from its spread alone, by tile. */
function slicesByTile(plan: TilePlan, id: number): Map<number, number> {
  const b = plan.buffers[id]!;
  const { dims, axes, base } = b.spread;
  const found = new Map<number, number>();
  const visit = (at: number[], tile: number): void => {
    if (at.length < dims.length) {
      for (let p = 0; p < dims[at.length]!.parts; p++) visit([...at, p], tile + p * dims[at.length]!.stride);
      return;
    }
    const bytes = axes.reduce((n, c) => n * countOf(combAt(c, dims, at)), 1) * b.width * dtypes[b.dtype as DType].bytes;
    found.set(tile % plan.tiles, Math.max(found.get(tile % plan.tiles) ?? 0, bytes));
  };
  visit([], base);
  return found;
}

describe('plans of a training step', () => {
  const graph = simplified(step(4), wasmTarget, { dtype: 'f16' });
  for (const tiles of [1, 4, 64]) {
    for (const recompute of ['none', 'blocks'] as const) {
      const ops = prepare(graph, wasmTarget, { recompute });
      const { plan } = planTiles(ops, small(tiles), { samples: 4 });

      test(`${tiles} tiles, recompute ${recompute}: buffers held at one step never share an address`, () => {
        const own = plan.buffers.filter((b) => b.viewOf === undefined && b.bytes > 0);
        for (const a of own) for (const b of own) {
          if (a.id >= b.id || a.death < b.birth || b.death < a.birth) continue;
          if (a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes) throw new Error(`${a.value} (${a.offset}+${a.bytes}, steps ${a.birth}-${a.death}) and ${b.value} (${b.offset}+${b.bytes}, steps ${b.birth}-${b.death})`);
        }
        const end = Math.max(...plan.buffers.map((b) => b.offset + b.bytes));
        expect(plan.memory.total).toBe(end + plan.memory.code);
        expect(plan.memory.total - plan.memory.code).toBe(plan.memory.always + plan.memory.peak + plan.memory.gaps);
      });

      test(`${tiles} tiles, recompute ${recompute}: every slot holds the largest slice of its spread, and no tile holds two parts`, () => {
        for (const b of plan.buffers) {
          const slices = slicesByTile(plan, b.id);
          expect(Math.max(0, ...slices.values())).toBeLessThanOrEqual(b.bytes);
          expect(b.spread.dims.reduce((n, d) => n * d.parts, 1)).toBeLessThanOrEqual(tiles);
          expect(slices.size).toBe(b.spread.dims.reduce((n, d) => n * d.parts, 1));
        }
      });

      test(`${tiles} tiles, recompute ${recompute}: what a step reads was written or received before, and every buffer is held while it is used`, () => {
        const filled = new Set(plan.buffers.filter((b) => ['state', 'constant', 'input'].includes(b.kind)).map((b) => b.id));
        const root = (id: number): number => (plan.buffers[id]!.viewOf === undefined ? id : root(plan.buffers[id]!.viewOf));
        const use = (id: number, at: number): void => {
          const b = plan.buffers[root(id)]!;
          expect(b.birth).toBeLessThanOrEqual(at);
          expect(b.death).toBeGreaterThanOrEqual(at);
        };
        for (const s of flatSteps(plan.steps)) {
          const reads = s.kind === 'exchange' ? s.copies.map((c) => c.from) : s.reads.map((r) => r.buffer);
          const writes = s.kind === 'exchange' ? s.copies.map((c) => c.to) : s.writes.map((w) => w.buffer);
          for (const id of reads) {
            expect(filled.has(id) || filled.has(root(id))).toBe(true);
            use(id, s.index);
          }
          for (const id of writes) {
            filled.add(id);
            filled.add(root(id));
            use(id, s.index);
          }
        }
        expect(flatSteps(plan.steps).map((s) => s.index)).toEqual(flatSteps(plan.steps).map((_, i) => i));
      });
    }
  }

  test('JSON gives the same plan back', () => {
    const { plan } = planTiles(prepare(graph, wasmTarget, { recompute: 'none' }), small(16), { samples: 4 });
    expect(planFromJson(JSON.parse(JSON.stringify(planToJson(plan))), 'plan.json')).toEqual(JSON.parse(JSON.stringify(plan)));
    expect(() => planFromJson({ version: 2 }, 'other.json')).toThrow('other.json is no tile plan');
    expect(() => planFromJson({ version: 1, model: '' }, 'other.json')).toThrow('field "graph" is missing');
  });

  test('the same graph gives the same plan', () => {
    const ops = prepare(graph, wasmTarget, { recompute: 'norms' });
    expect(planTiles(ops, small(8), { samples: 4 }).plan).toEqual(planTiles(ops, small(8), { samples: 4 }).plan);
  });

  test('more tiles leave less on each', () => {
    const ops = prepare(graph, wasmTarget, { recompute: 'none' });
    const live = [1, 4, 16].map((tiles) => planTiles(ops, small(tiles), { samples: 4 }).plan.memory);
    expect(live[1]!.peak).toBeLessThan(live[0]!.peak / 2);
    expect(live[2]!.peak).toBeLessThan(live[1]!.peak / 2);
    expect(live[1]!.always).toBeLessThan(live[0]!.always / 3);
  });
});

describe('recomputation', () => {
  const graph = simplified(step(4), wasmTarget, { dtype: 'f32' });
  const image = 4 * 8 * 12 * 12 * 4;
  const large = (level: Parameters<typeof splitStep>[1]): number => splitStep(graph, level).saved.filter((v) => bytesOf(v.type) >= image / 4 && v.name !== 'x').reduce((n, v) => n + bytesOf(v.type) / image, 0);

  test('keeps what its level says', () => {
    // Three blocks: two activations each, and what enters the first; convolutions between them are read by nothing backward.
    expect(large('none')).toBeGreaterThanOrEqual(7);
    // The stem and the results of blocks.
    expect(large('blocks')).toBe(4);
    expect(large('all')).toBeLessThan(4);
  });

  test('leaves a graph that verifies and computes every update', () => {
    for (const recompute of ['none', 'norms', 'blocks', 'all'] as const) {
      const ops = prepare(graph, wasmTarget, { recompute });
      verify(ops);
      expect(ops.updates.length).toBe(graph.updates.length);
    }
  });
});

describe('targets', () => {
  const teraflops = (name: string, dtype: 'f16' | 'f32'): number => {
    const k = readTarget(name).constants;
    return (2 * k[`macs.${dtype}`] * k.tiles * k.clock) / 1e12;
  };
  const exchange = (name: string): number => (readTarget(name).constants.exchange * readTarget(name).constants.tiles * readTarget(name).constants.clock) / 1e12;

  test('peaks are the published ones', () => {
    for (const [name, published] of [['mk1', 124.5], ['mk2', 250], ['bow', 350]] as const) expect(Math.abs(teraflops(name, 'f16') / published - 1)).toBeLessThan(0.01);
    for (const [name, published] of [['mk1', 31.1], ['mk2', 62.5]] as const) expect(Math.abs(teraflops(name, 'f32') / published - 1)).toBeLessThan(0.01);
    for (const [name, published] of [['mk1', 8], ['mk2', 8], ['bow', 11]] as const) expect(Math.abs(exchange(name) / published - 1)).toBeLessThan(0.03);
    expect(mk2.constants.tiles * mk2.constants.bytesPerTile).toBe(940572672);
  });

  test('every preset is complete, with a source for each constant', () => {
    for (const name of ['mk1', 'mk2', 'bow', 'cpu', 'gpu']) {
      const t = readTarget(name);
      expect(Object.keys(t.constants).sort()).toEqual(Object.keys(constantUnits).sort());
      for (const source of Object.values(t.sources)) expect(source.length).toBeGreaterThan(4);
    }
    expect(readTarget('cpu').constants.tiles).toBe(16);
    expect(readTarget('cpu').constants.bytesPerTile).toBe(512 * 1024);
  });

  test('a file with a wrong or missing field is refused by its name and unit', () => {
    const data = (): { name: string; description: string; constants: Record<string, { value: unknown; unit: string; source: string }> } => JSON.parse(readFileSync('targets/mk2.json', 'utf8')) as never;
    const broken = (change: (d: ReturnType<typeof data>) => void): string => {
      const d = data();
      change(d);
      try {
        parseTarget(d, 'own.json');
      } catch (e) {
        return (e as Error).message;
      }
      return '';
    };
    expect(broken((d) => delete d.constants['sync'])).toMatch(/own\.json: constant "sync" \(cycles\) is missing/);
    expect(broken((d) => (d.constants['bytesPerTile']!.value = 'much'))).toMatch(/"bytesPerTile" needs a number .* in bytes/);
    expect(broken((d) => (d.constants['tiles']!.value = 0))).toMatch(/"tiles" is 0, expected more than zero \(tiles\)/);
    expect(broken((d) => (d.constants['tiles']!.value = 1.5))).toMatch(/whole number/);
    expect(broken((d) => (d.constants['exchange']!.unit = 'bytes a second'))).toMatch(/expected "bytes a cycle"/);
    expect(broken((d) => (d.constants['warp'] = d.constants['sync']!))).toMatch(/no constant "warp"/);
    expect(broken((d) => (d.constants['clock']!.source = ''))).toMatch(/"clock" \(cycles a second\) says no source/);
    expect(() => readTarget('mk9')).toThrow(/no target "mk9"; there are .*mk2/);
    expect(() => withConstants(mk2, { tiles: -1 })).toThrow(/"tiles" is -1/);
  });
});

describe('tilewright plan', () => {
  const model = 'examples/mnist_cntk.onnx';
  const folder = mkdtempSync(join(tmpdir(), 'tilewright-plan-'));
  const cli = (...args: string[]): { status: number | null; out: string; err: string } => {
    const r = spawnSync(process.execPath, ['cli/main.ts', 'plan', ...args], { encoding: 'utf8' });
    return { status: r.status, out: r.stdout, err: r.stderr };
  };

  test('says that it fits, writes the plan, compares two', () => {
    const file = join(folder, 'plan.json');
    const first = cli(model, '--target', 'mk2', '--tiles', '64', '--json', file);
    expect(first.status).toBe(0);
    expect(first.out).toMatch(/^fits {2}mk2, 64 tiles of 624 KiB/);
    expect(planFromJson(JSON.parse(readFileSync(file, 'utf8')), file).tiles).toBe(64);
    const second = cli(model, '--tiles', '16', '--against', file);
    expect(second.out).toMatch(/not always live .*\+/);
  }, 60000);

  test('a plan that does not fit is reported with exit code 3', () => {
    const r = cli(model, '--tiles', '4', '--tile-memory', '2KiB');
    expect(r.status).toBe(3);
    expect(r.out).toMatch(/DOES NOT FIT/);
    expect(r.out).toMatch(/alive at step \d+/);
    expect(r.out).toMatch(/Convolution/);
  }, 60000);

  test('bad input is refused', () => {
    expect(cli(model, '--target', 'mk9')).toMatchObject({ status: 2, err: expect.stringContaining('no target "mk9"') as string });
    expect(cli(model, '--tiles', '0').status).toBe(2);
    expect(cli(model, '--tile-memory', '-5').status).toBe(2);
    const bad = join(folder, 'bad.json');
    writeFileSync(bad, '{"name":"x","description":"","constants":{}}');
    expect(cli(model, '--target', bad)).toMatchObject({ status: 2, err: expect.stringContaining('constant "tiles" (tiles) is missing') as string });
    expect(cli(model, '--recompute', 'some').status).toBe(2);
  }, 60000);
});
