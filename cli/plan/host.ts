/** This machine as a target: what can be read of it is read, speeds are measured in about a second, the rest is as of the target `cpu`. */
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { Builder } from '../../ir/builder.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { withConstants, type ConstantName, type TileTarget } from '../../passes/tile/target.ts';
import { load } from '../../runtime/index.ts';
import { artifactOf } from '../driver/compile.ts';
import { bestFeatures } from '../model.ts';

/** How the command line calls this machine. */
export const hostName = 'host';

/** A level-2 cache, and how many hardware threads share it. */
export interface Cache { readonly bytes: number; readonly threads: number }

/**
 * Probes this machine: threads that may run at once, the level-2 cache of a core and the clock, where the system says them, and measures multiply-adds and copies of one core. `cpu` has what cannot be
 * found. Every constant's source says where its number comes from.
 */
export async function hostTarget(cpu: TileTarget): Promise<TileTarget> {
  const cores = availableParallelism();
  const cache = secondLevel();
  const [processor] = cpus();
  const clock = processor && processor.speed > 0 ? processor.speed * 1e6 : undefined;
  const cycles = clock ?? cpu.constants.clock;
  const bytesPerTile = cache ? Math.floor(cache.bytes / cache.threads / 2) : cpu.constants.bytesPerTile;
  const multiplyAdds = await multiplyAddRate();
  const near = copyRate(bytesPerTile / 2);
  const far = copyRate(farBytes);
  const found: Partial<Record<ConstantName, readonly [value: number, source: string]>> = {
    tiles: [cores, 'read: threads that may run at once'],
    ...(cache && { bytesPerTile: [bytesPerTile, `read: half of ${cache.bytes} bytes of level-2 cache, which ${cache.threads} hardware threads share`] as const }),
    ...(clock !== undefined && { clock: [clock, 'read: as the system gives it'] as const }),
    'macs.f32': [multiplyAdds / cycles, `measured: ${giga(multiplyAdds)} billion multiply-adds a second, one thread, a product of ${side} x ${side} matrices`],
    'macs.f16': [multiplyAdds / cycles, 'as f32: f16 is stored, f32 computes'],
    copy: [near / cycles, `measured: ${giga(near)} GB a second, copies of ${Math.floor(bytesPerTile / 2)} bytes`],
    exchange: [far / cycles, `measured: ${giga(far)} GB a second, copies of ${farBytes} bytes`],
  };
  const values = Object.fromEntries(Object.entries(found).map(([key, [value]]) => [key, value]));
  const sources = { ...cpu.sources, ...Object.fromEntries(Object.entries(found).map(([key, [, source]]) => [key, source])) };
  const memory = cache ? `${cache.bytes} bytes of level-2 cache for ${cache.threads} threads` : 'level-2 cache unknown';
  const description = `this machine: ${processor?.model.trim() || 'a processor'}, ${cores} threads, ${memory}, ${giga(multiplyAdds)} billion multiply-adds a second and thread, copies at ${giga(near)} GB/s in cache and ${giga(far)} GB/s beyond`;
  return { ...withConstants(cpu, values), name: hostName, description, sources };
}

/** The plan with what was found out about this machine among its notes, if it was made for it. */
export const withFindings = (plan: TilePlan, target: TileTarget): TilePlan => (target.name === hostName ? { ...plan, notes: [...plan.notes, target.description] } : plan);

const giga = (rate: number): string => (rate / 1e9).toPrecision(3);

/** The level-2 cache of the first core, from the tree that Linux keeps; undefined where there is none. */
export function secondLevel(folder = '/sys/devices/system/cpu/cpu0/cache'): Cache | undefined {
  try {
    for (const index of readdirSync(folder).filter((f) => f.startsWith('index'))) {
      const read = (file: string): string => readFileSync(`${folder}/${index}/${file}`, 'utf8').trim();
      const [, amount, unit = ''] = /^(\d+)([KMG]?)$/.exec(read('size')) ?? [];
      if (read('level') !== '2' || amount === undefined) continue;
      return { bytes: Number(amount) * 1024 ** ['', 'K', 'M', 'G'].indexOf(unit), threads: countOf(read('shared_cpu_list')) };
    }
  } catch {
    // Other systems have no such tree, and containers may hide it.
  }
  return undefined;
}

/** Processors of a list as `0-3,8`. */
function countOf(list: string): number {
  return list.split(',').reduce((n, part) => {
    const [from, to = from] = part.split('-').map(Number);
    return n + (to! - from! + 1);
  }, 0);
}

const side = 512;
const farBytes = 2 ** 26;
const rounds = 9;

/** Multiply-adds a second of one thread, by the compiler's own matrix kernel: the best of several runs. */
async function multiplyAddRate(): Promise<number> {
  const b = new Builder('probe');
  const type = { dtype: 'f32' as const, shape: [side, side] };
  const numbers = new Float32Array(side * side).map((_, i) => Math.sin(i));
  const x = b.input(type, 'x');
  const graph = b.finish([{ name: 'y', value: b.contract('mk,kn->mn', x, b.constant({ ...type, data: numbers })) }]);
  const session = await load(await artifactOf({ imported: { bound: {}, dims: {}, warnings: [] }, graph }, { features: [bestFeatures()] }), { threads: 1 });
  try {
    const times: number[] = [];
    for (let i = 0; i < rounds; i++) {
      const started = performance.now();
      await session.run({ x: numbers });
      times.push(performance.now() - started);
    }
    return side ** 3 / (Math.min(...times) / 1000);
  } finally {
    await session.close();
  }
}

/** Bytes a second at which so many bytes are copied: the best of several runs. */
function copyRate(bytes: number): number {
  const [from, to] = [new Float64Array(bytes / 8).fill(1), new Float64Array(bytes / 8)];
  const repeats = Math.max(1, Math.floor(farBytes / bytes / 4));
  let best = Infinity;
  for (let i = 0; i < rounds; i++) {
    const started = performance.now();
    for (let k = 0; k < repeats; k++) to.set(from);
    best = Math.min(best, (performance.now() - started) / repeats);
  }
  return bytes / (best / 1000);
}
