/**
 * What Proxy Norm costs ResNet-20 (batch 64 of 3x32x32) with group norm: time and memory of a training step (SGD with momentum), and of inference. Time: the profiler's sum over all kernels
 * with it, less that without, and the median of pairs with its 95 % interval (order statistics), both as entries of one module over one memory; `again` is the network without it once more, and
 * shows what pairs can tell.
 * npm run bench:proxy-cost -- [--threads 2] [--pairs 30] [--norm group:4] [--kernels]
 */
import { wasmTarget } from '../cli/driver/target.ts';
import { bytes, table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { importModel } from '../frontend/index.ts';
import type { Graph } from '../ir/graph.ts';
import { parseNorm } from '../passes/norm/options.ts';
import { rewriteNorms } from '../passes/norm/rewrite-norms.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { trainingStep } from '../passes/train/pipeline.ts';
import { commandLine } from './options.ts';
import { compileVariants, medianInterval, profiled, rounds } from './pairs.ts';
import { numbers, resnet20 } from './train-networks.ts';

const { options } = commandLine('npm run bench:proxy-cost', '', { threads: 2, pairs: 30, norm: 'group:4', kernels: false });
const { threads, pairs } = options;
const network = resnet20('batch');
const x = numbers(network.input.reduce((n, d) => n * d), 77);
const y = BigInt64Array.from({ length: network.input[0] }, (_, i) => BigInt(i % network.classes));

/** Figures that the costs have to stay under: time of training, its memory, time of inference. */
const wanted = { training: 0.05, memory: 0.01, inference: 0 } as const;

function graphOf(kind: 'training' | 'inference', norm: string): Graph {
  const inference = kind === 'inference';
  const imported = importModel(network.model, { file: network.name, inference });
  const { graph, statistics } = rewriteNorms(imported, parseNorm(norm), wasmTarget, { inference });
  return runPipeline(inference ? graph : trainingStep(graph, statistics, { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } }, wasmTarget).graph, wasmTarget);
}

const percent = (v: number): string => `${(100 * v).toFixed(2)} %`;
console.log(`${network.name}, its norms rewritten to ${options.norm}, ${threads} threads, Node ${process.version}`);
for (const kind of ['training', 'inference'] as const) {
  const inputs = kind === 'training' ? { x, y, lr: Float32Array.of(0.01) } : { x };
  const [plain, proxy] = [graphOf(kind, options.norm), graphOf(kind, `${options.norm}+proxy`)];
  const profiles = await profiled(compileVariants(new Map([['plain', plain], ['proxy', proxy]]), true), inputs, threads);
  const kernels = [profiles.get('plain')!, profiles.get('proxy')!] as const;
  const [without, withIt] = kernels.map((k) => [...k.values()].reduce((n, t) => n + t, 0)) as [number, number];
  const times = await rounds(compileVariants(new Map([['plain', plain], ['proxy', proxy], ['again', graphOf(kind, options.norm)]])), inputs, { threads, pairs });
  const base = times.get('plain')!;
  const rows = ['proxy', 'again'].map((name) => {
    const ratios = times.get(name)!.map((t, i) => t / base[i]! - 1).sort((a, b) => a - b);
    const [low, high] = medianInterval(ratios);
    return [name, name === 'proxy' ? percent(withIt / without - 1) : '', percent(median(ratios)), `${percent(low)} to ${percent(high)}`, name === 'proxy' ? (wanted[kind] === 0 ? percent(0) : `under ${percent(wanted[kind])}`) : ''];
  });
  console.log(`${kind}: ${median(base).toFixed(1)} ms without, median of ${pairs}; ${without.toFixed(1)} and ${withIt.toFixed(1)} ms in kernels`);
  for (const line of table(['', 'kernels', 'median of pairs', '95 % interval', 'wanted'], rows, [1, 2, 3, 4])) console.log(line);
  const memory = (graph: Graph): number => {
    const m = compileVariants(new Map([['run', graph]])).artifact.manifest.memory;
    return m.weights + m.io + m.activations + m.scratchPerThread * threads;
  };
  const [less, more] = [memory(plain), memory(proxy)];
  console.log(`memory: ${bytes(less)} without, ${bytes(more)} with it: ${percent(more / less - 1)}${kind === 'training' ? `, wanted under ${percent(wanted.memory)}` : ''}`);
  if (options.kernels) showKernels(...kernels);
}

/** The kernels in which two profiles differ, the largest first. */
function showKernels(without: ReadonlyMap<string, number>, withIt: ReadonlyMap<string, number>): void {
  const apart = [...new Set([...without.keys(), ...withIt.keys()])].map((k) => [k, (withIt.get(k) ?? 0) - (without.get(k) ?? 0)] as const);
  for (const [key, ms] of apart.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 30)) console.log(`  ${ms.toFixed(3)} ms ${key}`);
}
