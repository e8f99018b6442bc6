/**
 * What gradient centralization (GC), adaptive gradient clipping (AGC) and both cost in a training step of ResNet-20 (batch 64 of 3x32x32, SGD with momentum): the profiler's share of the
 * kernels that they add, less those that they replace, and the median of pairs of steps with its 95 % interval (order statistics). All steps are entries of one module over one memory;
 * `again` is the plain step once more, and shows what pairs can tell.
 * npm run bench:gc-cost -- [--threads 2] [--pairs 30] [--norm batch|group] [--kernels]
 */
import { wasmTarget } from '../cli/driver/target.ts';
import { table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { importModel } from '../frontend/index.ts';
import type { Graph } from '../ir/graph.ts';
import { runPipeline } from '../passes/pipeline.ts';
import type { OptimizerSpec } from '../passes/train/options.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { commandLine, oneOf } from './options.ts';
import { compileVariants, medianInterval, profiled, rounds } from './pairs.ts';
import { numbers, resnet20 } from './train-networks.ts';

const { options: { threads, pairs, norm, kernels } } = commandLine('npm run bench:gc-cost', '', { threads: 2, pairs: 30, norm: oneOf('batch', 'group'), kernels: false });
const network = resnet20(norm);
const sgd = { kind: 'sgd', momentum: 0.9 } as const;
const variants: Readonly<Record<string, { readonly optimizer: OptimizerSpec; readonly figure: number }>> = {
  plain: { optimizer: sgd, figure: 0 },
  GC: { optimizer: { ...sgd, gc: {} }, figure: 0.01 },
  AGC: { optimizer: { ...sgd, agc: { lambda: 0.01 } }, figure: 0.01 },
  both: { optimizer: { ...sgd, gc: {}, agc: { lambda: 0.01 } }, figure: 0.015 },
  again: { optimizer: sgd, figure: 0 },
};
const inputs = { x: numbers(network.input.reduce((n, d) => n * d), 77), y: BigInt64Array.from({ length: network.input[0] }, (_, i) => BigInt(i % network.classes)), lr: Float32Array.of(0.01) };

const imported = importModel(network.model, { file: network.name });
const graphs = new Map(Object.entries(variants).map(([name, { optimizer }]): [string, Graph] =>
  [name, runPipeline(trainingStep(imported.graph, imported.statistics, { loss: { kind: 'crossEntropy' }, optimizer }, wasmTarget).graph, wasmTarget)]));
const profiles = await profiled(compileVariants(graphs, true), inputs, threads);
const plain = profiles.get('plain')!;
const times = await rounds(compileVariants(graphs), inputs, { threads, pairs });

const base = times.get('plain')!;
console.log(`${network.name}, ${threads} threads, Node ${process.version}; plain step ${median(base).toFixed(1)} ms, ${pairs} pairs`);
const rows = Object.keys(variants).slice(1).map((name) => {
  const own = profiles.get(name)!;
  const added = [...own].filter(([k]) => !plain.has(k));
  const gone = [...plain].filter(([k]) => !own.has(k));
  const sum = (list: readonly (readonly [string, number])[]): number => list.reduce((n, [, t]) => n + t, 0);
  const share = (sum(added) - sum(gone)) / sum([...plain]);
  if (kernels) for (const [k, t] of [...added.map(([k, t]) => [`+ ${k}`, t] as const), ...gone.map(([k, t]) => [`- ${k}`, -t] as const)].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 25)) console.log(`  ${name} ${t.toFixed(3)} ms ${k}`);
  const ratios = times.get(name)!.map((t, i) => t / base[i]! - 1).sort((a, b) => a - b);
  const [low, high] = medianInterval(ratios);
  const percent = (x: number): string => `${(100 * x).toFixed(2)} %`;
  return [name, percent(share), `${sum(added).toFixed(2)} - ${sum(gone).toFixed(2)} ms`, percent(median(ratios)), `${percent(low)} to ${percent(high)}`, name === 'again' ? '' : `under ${percent(variants[name]!.figure)}`];
});
for (const line of table(['', 'kernels added', 'less those replaced', 'median of pairs', '95 % interval', 'wanted'], rows, [1, 2, 3, 4, 5])) console.log(line);
