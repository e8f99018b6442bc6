/** How kernels for WebAssembly are cut for the cores of a target, and shaders for its workgroups: the bytes of their vertices, and where these are more than a tile has. */
import { withConstants, type TileTarget } from '../../passes/tile/target.ts';
import type { Manifest } from '../../runtime/manifest.ts';
import { readTarget } from '../driver/target-file.ts';
import { bytes, say, table } from '../print.ts';

/** A step, and why its vertices are larger than a tile, where they are. */
export interface KernelRow {
  readonly name: string;
  readonly source: readonly string[];
  readonly chunks: number;
  /** Bytes of the largest vertex. */
  readonly vertex: number;
  readonly relaxed?: string;
}

export interface KernelFacts {
  readonly target: string;
  readonly tiles: number;
  readonly bytesPerTile: number;
  /** Bytes of the largest vertex of all steps that keep to a tile. */
  readonly largest: number;
  /** Steps that do not. */
  readonly relaxed: readonly KernelRow[];
}

/** What is compiled for where no target is named; `bytesPerTile`: of workgroup memory, where a limit says it. */
export function usualTarget(backend: Manifest['backend'], bytesPerTile?: number): TileTarget {
  return withConstants(readTarget(backend === 'wgsl' ? 'gpu' : 'cpu'), bytesPerTile === undefined ? {} : { bytesPerTile });
}

/** What the steps of an artifact say of its cut for a target. */
export function kernelFacts(manifest: Manifest, target: TileTarget): KernelFacts {
  const rows = kernelRows(manifest);
  const kept = rows.filter((r) => r.relaxed === undefined);
  return {
    target: target.name, tiles: target.constants.tiles, bytesPerTile: target.constants.bytesPerTile,
    largest: Math.max(0, ...kept.map((r) => r.vertex)), relaxed: rows.filter((r) => r.relaxed !== undefined),
  };
}

function kernelRows(manifest: Manifest): KernelRow[] {
  return manifest.steps.map(({ name, source, chunks, vertex = 0, relaxed }) => ({ name, source, chunks, vertex, ...(relaxed !== undefined && { relaxed }) }));
}

/** Prints the division in a line, and steps that do not keep to it, equal reasons once. */
export function showRelaxed({ target, tiles, bytesPerTile, largest, relaxed }: KernelFacts): void {
  say(`kernels: cut for ${target}, ${tiles} tiles of ${bytes(bytesPerTile)}; the largest vertex within them takes ${bytes(largest)}`);
  const alike = new Map<string, KernelRow[]>();
  for (const r of relaxed) alike.set(`${r.name} ${r.relaxed} ${r.vertex}`, [...(alike.get(`${r.name} ${r.relaxed} ${r.vertex}`) ?? []), r]);
  for (const [first, ...others] of alike.values()) say(`a bound is relaxed: ${placeOf(first!)}${others.length > 0 ? ` and ${others.length} more` : ''} takes ${bytes(first!.vertex)}: ${first!.relaxed}`);
}

/** Prints every step with its chunks and the bytes of its largest vertex, then what `showRelaxed` prints. */
export function showKernels(manifest: Manifest, machine: TileTarget): void {
  const { bytesPerTile } = machine.constants;
  const rows = kernelRows(manifest).map((r, i) => [String(i), r.name, r.source.join(', '), String(r.chunks), bytes(r.vertex), `${((100 * r.vertex) / bytesPerTile).toFixed(0)} %`]);
  for (const line of table(['step', 'kernel', 'from', 'chunks', 'largest vertex', 'of a tile'], rows, [0, 3, 4, 5])) say(line);
  showRelaxed(kernelFacts(manifest, machine));
}

const placeOf = (r: KernelRow): string => r.source[0] ?? r.name;
