/** Time that planning for tiles takes, against the number of tiles and of ops, as a chart: node bench/tile-plan.ts [--output docs/figures/planning-time.svg] */
import { importModel } from '../frontend/index.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, zooModel } from '../frontend/zoo/index.ts';
import type { Graph } from '../ir/graph.ts';
import { planTiles } from '../passes/tile/plan.ts';
import { prepare, simplified } from '../passes/tile/prepare.ts';
import { withConstants } from '../passes/tile/target.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { readTarget } from '../cli/driver/target-file.ts';
import { boundBatch } from '../cli/train/model.ts';
import { commandLine } from './options.ts';
import { writeChart, type Line } from './plot.ts';

const { options: { output, tiles, batch } } = commandLine('node bench/tile-plan.ts', '', { output: 'docs/figures/planning-time.svg', tiles: [16, 128, 1472, 10_000, 30_000, 100_000], batch: 8 });
const mk2 = readTarget('mk2');
/** Memory is more than enough, so that one round of planning is measured, and few tiles have as much in all as 1,472; the bound on temporaries grows with it. */
const room = 4;
const target = (count: number): ReturnType<typeof readTarget> => withConstants(mk2, { tiles: count, bytesPerTile: Math.ceil(room * mk2.constants.bytesPerTile * Math.max(1, mk2.constants.tiles / count)) });
const plan = (graph: Graph, count: number): ReturnType<typeof planTiles> => planTiles(graph, target(count), { samples: batch, temporary: mk2.constants.temporary / room });
/** Networks of one kind and growing depth. */
const families = { ResNets: ['resnet-20', 'resnet-50', 'resnet-101'], EfficientNets: ['efficientnet-b0-g16', 'efficientnet-b2-g16', 'efficientnet-b4-g16'] };

/** Seconds of CPU that something takes, those of collecting garbage included, and what it gives. */
function timed<T>(run: () => T): { readonly seconds: number; readonly made: T } {
  const before = process.cpuUsage();
  const made = run();
  const { user, system } = process.cpuUsage(before);
  return { seconds: (user + system) / 1e6, made };
}

/** The ops of a network with group norm, or of a step of its training, as tiles run them. */
function opsOf(bytes: Uint8Array, train: boolean): Graph {
  const imported = importModel(bytes, { dims: boundBatch(bytes, batch, {}).dims, ...(!train && { inference: true }) });
  const graph = train ? trainingStep(imported.graph, imported.statistics, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } }, wasmTarget).graph : imported.graph;
  return prepare(simplified(graph, wasmTarget, { dtype: 'f16' }), wasmTarget, { recompute: train ? 'blocks' : 'none' });
}

const model = (name: string, training: boolean): Uint8Array => onnxBytes(zooModel(name, { training, norm: { kind: 'group', groups: /^resnet-20|^eff/.test(name) ? 4 : 32 } }), (w) => initialValues(w, 0));
/** Power of x that y grows with, from the first point to the last. */
const power = (points: readonly (readonly [number, number])[]): number => Math.log(points.at(-1)![1] / points[0]![1]) / Math.log(points.at(-1)![0] / points[0]![0]);
const row = (...cells: readonly (string | number)[]): void => console.log(cells.map((c) => (typeof c === 'number' ? String(Number(c.toFixed(2))).padStart(9) : c.padEnd(34))).join(' '));

/** Seconds to plan one graph for each number of tiles. Every target is new, so that no search of an earlier one is found. */
function overTiles(name: string, graph: Graph): Line {
  const points = tiles.map((n) => [n, timed(() => plan(graph, n)).seconds] as const);
  for (const [n, seconds] of points) row(`${name}, ${graph.ops.length} ops`, n, seconds);
  row(`${name}: grows with tiles to the power of`, power(points));
  return { name, points };
}

/** Seconds from the file to the plan on 1,472 tiles, and of planning alone, by the number of ops. */
function overOps(family: string, names: readonly string[]): Line[] {
  const found = names.map((name) => {
    const bytes = model(name, true);
    const { seconds: before, made } = timed(() => opsOf(bytes, true));
    const { seconds } = timed(() => plan(made, mk2.constants.tiles));
    row(`${name}, ${made.ops.length} ops: all, plan`, before + seconds, seconds);
    return { ops: made.ops.length, seconds, all: before + seconds };
  });
  const lines: Line[] = [{ name: `${family}, from the file`, points: found.map((f) => [f.ops, f.all] as const) }, { name: `${family}, the plan alone`, points: found.map((f) => [f.ops, f.seconds] as const), dashed: true }];
  for (const l of lines) row(`${l.name}: grows with ops to the power of`, power(l.points));
  return lines;
}

const lines = [overTiles('forward pass', opsOf(model('resnet-50', false), false)), overTiles('training step', opsOf(model('resnet-50', true), true))];
const ops = Object.entries(families).flatMap(([family, names]) => overOps(family, names));
writeChart(output, 'Seconds of CPU to plan for tiles', [
  { title: `ResNet-50, batch ${batch}`, x: 'tiles', y: 'seconds', lines, log: ['x', 'y'] },
  { title: `training steps, batch ${batch}, 1,472 tiles`, x: 'ops', y: 'seconds', lines: ops },
]);
console.log(`wrote ${output}; at most ${(process.resourceUsage().maxRSS / 1e6).toFixed(2)} GB of memory`);
