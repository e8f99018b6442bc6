/** tilewright compile --target: from a model to a tile program, and the artifact that holds it. */
import { printTileProgram } from '../../ir/tile-text.ts';
import type { Tensor } from '../../ir/type.ts';
import type { NormSpec } from '../../passes/norm/options.ts';
import { levelsOf } from '../../passes/tile/fit.ts';
import { regionsInParts } from '../../passes/tile/fit-parts.ts';
import type { Recompute } from '../../passes/tile/recompute.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import { writeFolder } from '../driver/folder.ts';
import { tileArtifact } from '../driver/tile-artifact.ts';
import { buildGraph } from '../plan/build.ts';
import { onnxDigest } from '../plan/compare.ts';
import { withFindings } from '../plan/host.ts';
import { leastRecomputation } from '../plan/least-recomputation.ts';
import { ms, say, sayJson, whole, withProgress } from '../print.ts';

/** What is compiled for tiles. */
export interface TileCompilation {
  readonly target: TileTarget;
  readonly folder: string;
  readonly dtype: 'f16' | 'f32';
  readonly recompute: Recompute | 'auto';
  readonly batch: number;
  readonly train: TrainOptions | undefined;
  readonly norm: NormSpec | undefined;
  readonly dims: Readonly<Record<string, number>> | undefined;
  readonly values: Readonly<Record<string, Tensor>> | undefined;
  /** Prints the tile program. */
  readonly print: boolean;
  /** Writes the artifact. */
  readonly write: boolean;
  readonly json: boolean;
}

/** Plans a model for a machine of tiles and writes the artifact. Throws OverLimit where the model does not fit. */
export async function compileForTiles(model: string, c: TileCompilation): Promise<void> {
  const started = performance.now();
  const { target } = c;
  const { graph, plan, recompute, regions } = await withProgress(model, (report) => {
    report('import', 0, 2);
    const simple = buildGraph({ model, batch: c.batch, dtype: c.dtype, ...(c.norm && { norm: c.norm }), ...(c.train && { train: c.train }), ...(c.dims && { dims: c.dims }), ...(c.values && { values: c.values }) });
    report('place', 1, 2);
    return Promise.resolve(leastRecomputation(simple, { model, target, levels: c.train ? levelsOf(c.recompute) : ['none'], samples: c.batch, parts: c.recompute === 'auto' }));
  });
  const program = { graph, plan: { ...withFindings(plan, target), onnx: onnxDigest(model) } };
  if (c.print) say(`// after place\n${printTileProgram(program).text}`);
  if (!c.write) return;
  const { manifest, files } = tileArtifact(program, target, recompute);
  await writeFolder(c.folder, files);
  const time = performance.now() - started;
  const { tiles, bytesPerTile, memory, steps, samples } = plan;
  if (c.json) {
    sayJson({ folder: c.folder, ms: time, target: manifest.target, tiles, bytesPerTile, recompute, ...(regions && { regions }), samples, inputs: manifest.inputs, outputs: manifest.outputs, state: manifest.state, memory, steps: steps.length, files: Object.keys(files) });
    return;
  }
  say(`${c.folder}: a tile program of ${steps.length} steps for ${target.name}, ${whole(tiles)} tiles of ${whole(bytesPerTile)} bytes, recompute ${recompute}${regions ? `, ${regionsInParts(regions)}` : ''}, in ${ms(time)}`);
  say(`memory of a tile: ${whole(memory.total)} of ${whole(memory.limit)} bytes (${whole(memory.always)} always, ${whole(memory.code)} of code); \`tilewright run ${c.folder}\` executes it on simulated tiles`);
}
