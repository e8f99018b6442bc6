/** Planning time against the number of tiles and of ops: node bench/tile-plan.ts model.onnx [--norm group:32] [--train] */
import { importModel } from '../frontend/index.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { planTiles } from '../passes/tile/plan.ts';
import { prepare, simplified } from '../passes/tile/prepare.ts';
import { withConstants } from '../passes/tile/target.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { wasmTarget } from '../cli/driver/target.ts';
import { readTarget } from '../cli/plan/build.ts';
import { boundBatch } from '../cli/train/model.ts';
import { commandLine, text } from './options.ts';

const { options: { norm, train }, operands: [path = ''] } = commandLine('node bench/tile-plan.ts', 'MODEL', { norm: text('NORM'), train: false });
const batch = 16;

const imported = importModel(path, { dims: boundBatch(path, batch, {}).dims, ...(!train && { inference: true }) });
const model = norm === undefined ? imported : rewriteNorms(imported, parseNorm(norm), wasmTarget);
const graph = train ? trainingStep(model.graph, model.statistics, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } }, wasmTarget).graph : model.graph;
const ops = prepare(simplified(graph, wasmTarget, { dtype: 'f16' }), wasmTarget, { recompute: 'none' });
const target = readTarget('mk2');
console.log(`${ops.ops.length} ops\n  tiles  steps  seconds of CPU`);
for (const tiles of [16, 128, 1472, 10_000, 30_000, 100_000]) {
  const before = process.cpuUsage();
  const { plan } = planTiles(ops, withConstants(target, { tiles }), { samples: batch });
  const { user, system } = process.cpuUsage(before);
  console.log(`${String(tiles).padStart(7)}  ${String(plan.steps.length).padStart(5)}  ${((user + system) / 1e6).toFixed(2)}`);
}
