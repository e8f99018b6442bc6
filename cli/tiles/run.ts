/** tilewright run of an artifact for tiles: executes its program on simulated tiles. */
import { UserError } from '../../ir/diagnostic.ts';
import type { Tensor } from '../../ir/type.ts';
import { readTileArtifact } from '../driver/tile-artifact.ts';
import { runTiled } from '../driver/simulate.ts';
import type { ImageOptions } from '../image.ts';
import { readInputs } from '../inputs.ts';
import { ms, say, whole, withProgress } from '../print.ts';
import { showOutputs, type OutputOptions } from '../run/outputs.ts';
import { asInput } from '../simulate/judge.ts';

/** Runs the program of a folder once, from the state that it was compiled with, and prints its outputs. Inputs of another float type become what the program stores. */
export async function runTileArtifact(folder: string, files: Readonly<Record<string, string>>, images: ImageOptions, options: OutputOptions): Promise<void> {
  const { graph, plan } = await readTileArtifact(folder);
  const given = await readInputs(files, graph.inputs.map((v) => ({ name: v.name ?? '', dtype: undefined, dims: v.type.shape })), images);
  const missing = graph.inputs.filter((v) => given[v.name ?? ''] === undefined);
  if (missing.length > 0) throw new UserError(`${folder}: missing ${missing.map((v) => `--input ${v.name ?? ''}=FILE.npy (${v.type.dtype}[${v.type.shape.join(',')}])`).join(' ')}`);
  const inputs = Object.fromEntries(graph.inputs.map((v): [string, Tensor] => [v.name ?? '', asInput(given[v.name ?? '']!, v)]));
  const started = performance.now();
  const run = await withProgress(folder, (report) => {
    report('tiles', 0, 1);
    return Promise.resolve(runTiled({ graph, planned: { plan } }, inputs));
  });
  const time = performance.now() - started;
  const used = run.used.reduce((a, b) => Math.max(a, b), 0) + plan.memory.code;
  showOutputs(Object.fromEntries(run.outputs), options, { target: plan.target, tiles: plan.tiles, bytesPerTile: plan.bytesPerTile, used, simulateMs: time });
  if (!options.json) say(`executed on ${whole(plan.tiles)} simulated tiles of ${plan.target} in ${ms(time)}, at most ${whole(used)} of ${whole(plan.bytesPerTile)} bytes used on one`);
}
