/** Makes what the demo page loads: artifacts for WebGPU and WebAssembly, the tile map, the data; then the page itself. */
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'vite';
import { compile } from '../../cli/driver/compile.ts';
import { readTarget } from '../../cli/driver/target-file.ts';
import { buildGraph, prepared } from '../../cli/plan/build.ts';
import { onnxBytes } from '../../frontend/onnx/write.ts';
import { convnet } from '../../frontend/zoo/convnet.ts';
import { initialValues, Network } from '../../frontend/zoo/index.ts';
import type { TrainOptions } from '../../passes/train/options.ts';
import { planTiles } from '../../passes/tile/plan.ts';
import { bytesByTile, flatSteps } from '../../passes/tile/report.ts';
import { withConstants } from '../../passes/tile/target.ts';
import type { TileMap } from './page/floor-plan.ts';

const here = import.meta.dirname;
const root = join(here, '../..');
/** Samples of a training step. */
const batch = 32;
/** Tiles of the map: few enough to be seen one by one. */
const tiles = 64;
const train: TrainOptions = { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } };

/** Builds everything to a folder, and returns that of the page, ready to be served. */
export async function buildDemo(folder: string): Promise<string> {
  const files = join(folder, 'files');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(files, { recursive: true });
  const both = { backend: 'wgsl', fallback: true } as const;
  await (await compile(join(root, 'examples/mnist_cntk.onnx'), both)).save(join(files, 'classifier'));
  const model = join(folder, 'digits.onnx');
  writeFileSync(model, smallNetwork());
  await (await compile(model, { ...both, dims: { n: batch }, train })).save(join(files, 'trainer'));
  writeFileSync(join(files, 'tiles.json'), JSON.stringify(tileMap(model)));
  for (const f of ['images.idx3-ubyte.gz', 'labels.idx1-ubyte.gz']) copyFileSync(join(here, 'data', f), join(files, f));
  copyFileSync(join(root, 'examples/digit.png'), join(files, 'digit.png'));
  const site = join(folder, 'site');
  await build({ root: here, configFile: false, logLevel: 'warn', base: './', publicDir: files, build: { outDir: site, emptyOutDir: true, target: 'es2024' } });
  return site;
}

/** Two convolutions with batch norms and a linear layer; its weights follow from a seed. */
function smallNetwork(): Uint8Array {
  const net = new Network(true);
  const out = convnet(net, net.input([1, 28, 28]), { widths: [8, 16], norm: { kind: 'batch' }, classes: 10 });
  return onnxBytes(net.finish('digits', out), (w) => initialValues(w, 0));
}

/** Where the training step lies on a small machine of tiles. */
function tileMap(model: string): TileMap {
  const target = withConstants(readTarget('mk2'), { tiles });
  const { plan } = planTiles(prepared(buildGraph({ model, batch, dtype: 'f32', train }), 'none'), target, { samples: batch, temporary: target.constants.temporary });
  return {
    target: plan.target, tiles: plan.tiles, bytesPerTile: plan.bytesPerTile, samples: plan.samples,
    steps: flatSteps(plan.steps).map((s) => ({
      kind: s.kind,
      name: s.kind === 'compute' ? s.name : `${s.copies.length} ${s.copies.length === 1 ? 'tensor' : 'tensors'}, ${s.bytes} bytes`,
      source: s.kind === 'compute' ? s.source : [],
      cycles: s.cycles.compute + s.cycles.exchange + s.cycles.sync,
      bytes: [...bytesByTile(plan, s.index)],
    })),
  };
}
