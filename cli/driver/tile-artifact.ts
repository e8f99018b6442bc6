/** Artifacts for machines of tiles: the tile program as text, its tensors, and the plan as JSON. The simulator executes them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../../ir/diagnostic.ts';
import type { Graph, Value } from '../../ir/graph.ts';
import { parseTileProgram } from '../../ir/tile-parse.ts';
import { printTileProgram, type TileProgramText } from '../../ir/tile-text.ts';
import type { DType } from '../../ir/type.ts';
import { planToJson } from '../../passes/tile/json.ts';
import { digest } from '../../passes/tile/plan.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { reason } from '../../runtime/bytes.ts';
import type { TargetData } from '../../runtime/manifest.ts';
import { readSafetensors, safetensorsChunks } from '../../runtime/safetensors.ts';
import { version } from './version.ts';
import { planFile, programFile, type Files } from './folder.ts';
import { targetData } from './target-file.ts';

/** An input, output or state of a tile program. */
export interface TileIo { readonly name: string; readonly dtype: DType; readonly shape: readonly number[] }

/** What manifest.json of such an artifact says. */
export interface TileManifest {
  readonly format: 'tilewright';
  readonly version: 1;
  readonly model: string;
  readonly producer: string;
  readonly backend: 'tiles';
  readonly inputs: readonly TileIo[];
  readonly outputs: readonly TileIo[];
  /** Tensors that a run changes. */
  readonly state: readonly TileIo[];
  readonly recompute: string;
  /** The machine that was planned for, in the form of targets/*.json. */
  readonly target: TargetData;
}

/** The files of an artifact for tiles: manifest.json, plan.json (docs/plan.schema.json), program.txt and weights.safetensors, whose tensors the program names. */
export function tileArtifact(program: TileProgramText, target: TileTarget, recompute: string): { readonly manifest: TileManifest; readonly files: Files } {
  const { graph, plan } = program;
  const { text, tensors } = printTileProgram(program);
  const changed = new Set(graph.updates.map((u) => u.state));
  const manifest: TileManifest = {
    format: 'tilewright', version: 1, model: graph.name, producer: `tilewright ${version()}`, backend: 'tiles',
    inputs: graph.inputs.map((v) => io(v.name ?? '', v)),
    outputs: graph.outputs.map((o) => io(o.name, o.value)),
    state: graph.state.filter((s) => changed.has(s.value)).map((s) => io(s.name, s.value)),
    recompute,
    target: targetData(target),
  };
  const encoded = (s: string): Uint8Array[] => [new TextEncoder().encode(s)];
  const files: Files = {
    'manifest.json': encoded(`${JSON.stringify(manifest, undefined, 1)}\n`),
    [planFile]: encoded(`${JSON.stringify(planToJson(plan))}\n`),
    [programFile]: encoded(text),
    'weights.safetensors': safetensorsChunks([...tensors].map(([name, t]) => ({ name, ...t }))),
  };
  return { manifest, files };
}

const io = (name: string, { type }: Value): TileIo => ({ name, dtype: type.dtype, shape: type.shape });

/** Whether a folder that holds a manifest is an artifact for tiles. */
export function isTileArtifact(folder: string): boolean {
  try {
    return (JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as { backend?: unknown } | null)?.backend === 'tiles';
  } catch {
    return false;
  }
}

/** Reads the program of an artifact for tiles. A file that is missing or damaged, and a plan of another graph, are UserErrors that name the file. */
export async function readTileArtifact(folder: string): Promise<TileProgramText> {
  const [at, weights] = [join(folder, programFile), join(folder, 'weights.safetensors')];
  const program = await readProgram(at, weights);
  const own: Graph = program.graph;
  if (digest(own) !== program.plan.graph) throw new UserError(`${at}: the plan was made for another graph than the one below it (digest ${program.plan.graph}, the graph has ${digest(own)}); compile the model again`);
  return program;
}

async function readProgram(at: string, weights: string): Promise<TileProgramText> {
  let file = weights;
  try {
    const tensors = await readSafetensors(readFileSync(weights), weights);
    file = at;
    return parseTileProgram(readFileSync(at, 'utf8'), tensors);
  } catch (e) {
    throw new UserError(`${file} cannot be read as part of an artifact for tiles: ${reason(e)}`);
  }
}
