/**
 * What a GPU does with this compiler, in one command from this repository alone: npm run gpu-report -- [--quick] [--runs 5] [--output FILE.md] [--json FILE]
 *
 * Makes its models from a seed, as `tilewright new resnet-50 --seed 0` does; compiles them for WebGPU and WebAssembly; compares what both compute; times the GPU, and prints a table with the
 * adapter's name. `--quick` scales everything down, for adapters that compute on the CPU: those rank nothing. Files are written after every stage, and a stage that fails is named in them. Exit code
 * 1 where results differ or a stage failed, 2 where there is no GPU.
 */
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { compile, type Artifact, type Backend, type CompileOptions } from '../cli/driver/compile.ts';
import { version } from '../cli/driver/version.ts';
import { note, say } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { onnxBytes } from '../frontend/onnx/write.ts';
import { initialValues, zooModel, type ZooOptions } from '../frontend/zoo/index.ts';
import { load, loadTrainer, NoGpu, openGpu, type SharedGpu } from '../runtime/index.ts';
import { saveReport } from './gpu-report/files.ts';
import { runStages } from './gpu-report/stages.ts';
import { describeRun, isSoftware, markdown, type Check, type Report, type Timing } from './gpu-report/table.ts';
import { commandLine, stop, text } from './options.ts';
import { numbers } from './train-networks.ts';

const { options: { quick, runs, output, json } } = commandLine('npm run gpu-report', '', { quick: false, runs: 5, output: text('FILE.md'), json: text('FILE') });

const { adapter } = await openGpu().then((gpu) => {
  gpu.close();
  return gpu;
}, (e: unknown) => {
  if (!(e instanceof NoGpu)) throw e;
  stop(`${e.reason}. What a machine needs for this report stands in docs/gpu-report.md`);
});
const software = isSoftware(adapter);
if (software && !quick) stop(`the adapter ${adapter} computes on the CPU: its times rank nothing, and take hours. --quick runs the same checks on small sizes`);
const checks: Check[] = [];
const timings: Timing[] = [];
const stages: readonly (readonly [string, () => Timing | Promise<Timing>])[] = [
  ['matrix product', () => product(quick ? 128 : 4096)],
  ['ResNet-50, inference', () => onDevice((gpu) => inference(gpu, quick ? { batch: 2, side: 32 } : { batch: 32, side: 224 }))],
  ['ResNet-20, training', () => onDevice((gpu) => training(gpu, quick ? 4 : 256))],
];
let report: Report = {
  adapter, software, quick, runs, version: `tilewright ${version()}`, node: process.version, system: `${process.platform} ${process.arch}, ${availableParallelism()} CPU threads`, checks, timings, failures: [], pending: stages.map(([name]) => name),
};
await runStages(stages.map(([name, measure]) => ({
  name,
  run: async () => {
    progress(name);
    timings.push(await measure());
  },
})), (failures, pending) => {
  report = { ...report, failures, pending };
  saveReport(report, { output, json });
});
say(markdown(report));
if (report.failures.length > 0 || checks.some((c) => !c.equal)) process.exitCode = 1;

/** Measures on a device of its own: one that is lost takes no other stage with it. */
async function onDevice(measure: (gpu: SharedGpu) => Promise<Timing>): Promise<Timing> {
  const gpu = await openGpu();
  try {
    return await measure(gpu);
  } finally {
    gpu.close();
  }
}

/** A square product against a loop that computes in registers alone; bench/gpu.ts measures both in a process of its own. */
function product(size: number): Timing {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, [join(import.meta.dirname, 'gpu.ts'), '--size', String(size), '--runs', String(runs), '--matmul', '--json'], { encoding: 'utf8', timeout: 600_000, maxBuffer: 2 ** 24 });
  if (status !== 0) throw new Error(`bench/gpu.ts ${error ? `did not end within 600 s (${error.message})` : `failed: ${stderr}`}`);
  const { registers, cases } = JSON.parse(stdout) as { registers: number; cases: { name: string; ms: number; gflops: number }[] };
  const [matmul] = cases;
  // It compares elements with plain sums itself, and fails where they differ.
  checks.push({ name: matmul!.name, against: 'plain sums, at some elements', difference: undefined, equal: true });
  return { name: matmul!.name, ms: matmul!.ms, rate: matmul!.gflops, unit: 'GFLOP/s', remark: `${((100 * matmul!.gflops) / registers).toFixed(0)} % of the ${registers.toFixed(0)} GFLOP/s of a WGSL loop in registers alone` };
}

/** Images a second of ResNet-50, with its inputs sent and its results read back. */
async function inference(on: SharedGpu, { batch, side }: { readonly batch: number; readonly side: number }): Promise<Timing> {
  const model = seeded('resnet-50', { image: [3, side, side] });
  const x = numbers(batch * 3 * side * side, 1);
  const results: Float32Array[] = [];
  const times: number[] = [];
  for (const backend of ['wasm', 'wgsl'] as const) {
    await using session = await load(await compiled(model, backend, { dims: { n: batch } }), { gpu: on });
    for (let i = 0; i <= (backend === 'wgsl' ? runs : 0); i++) {
      const begun = performance.now();
      const [y] = Object.values(await session.run({ x }));
      if (i === 0) results.push(y!.data as Float32Array);
      else times.push(performance.now() - begun);
    }
  }
  const name = `ResNet-50, ${side}x${side}, batch ${batch}`;
  checks.push(compared(`${name}: logits`, results[1]!, results[0]!));
  const ms = median(times);
  return { name: `${name}, inference`, ms, rate: (batch * 1000) / ms, unit: 'images/s', remark: 'input sent and result read back' };
}

/** Steps a second of ResNet-20 with SGD and momentum on 32x32 pictures. */
async function training(on: SharedGpu, batch: number): Promise<Timing> {
  const model = seeded('resnet-20', { training: true });
  const inputs = { x: numbers(batch * 3 * 32 * 32, 2), y: BigInt64Array.from({ length: batch }, (_, i) => BigInt((i * 7) % 10)) };
  const results: { readonly losses: readonly number[]; readonly weights: readonly number[] }[] = [];
  const times: number[] = [];
  for (const backend of ['wasm', 'wgsl'] as const) {
    const trainer = await loadTrainer(await compiled(model, backend, { dims: { n: batch }, train: { loss: { kind: 'crossEntropy' }, optimizer: { kind: 'sgd', momentum: 0.9 } } }), { gpu: on, lr: 0.01 });
    const losses: number[] = [];
    let weights: number[] = [];
    for (let i = 0; i < (backend === 'wgsl' ? 2 + runs : 2); i++) {
      const begun = performance.now();
      const { loss } = await trainer.trainStep(inputs);
      const took = performance.now() - begun;
      if (i >= 2) times.push(took);
      else losses.push(loss);
      if (i === 1) weights = [...(await trainer.parameters()).values()].flatMap((t) => Array.from(t.data, Number));
    }
    results.push({ losses, weights });
    await trainer.close();
  }
  const name = `ResNet-20, 32x32, batch ${batch}`;
  const [onWasm, onGpu] = results;
  checks.push(compared(`${name}: losses of two steps`, onGpu!.losses, onWasm!.losses), compared(`${name}: weights after them`, onGpu!.weights, onWasm!.weights));
  const ms = median(times);
  return { name: `${name}, training`, ms, rate: 1000 / ms, unit: 'steps/s', remark: 'SGD with momentum; batch sent, loss and logits read back' };
}

function compiled(model: Uint8Array, backend: Backend, options: CompileOptions): Promise<Artifact> {
  return compile(model, { ...options, backend, features: ['relaxed', 'simd'] });
}

function seeded(architecture: string, options: ZooOptions): Uint8Array {
  return onnxBytes(zooModel(architecture, options), (w) => initialValues(w, 0));
}

/** Compares results of the two backends, which add in different orders, by their largest difference relative to the largest number. */
function compared(name: string, gpuResult: ArrayLike<number>, wasmResult: ArrayLike<number>): Check {
  let [difference, largest] = [0, 0];
  for (let i = 0; i < wasmResult.length; i++) {
    const apart = Math.abs(gpuResult[i]! - wasmResult[i]!);
    // A NaN is as far off as can be.
    difference = Math.max(difference, Number.isNaN(apart) ? Infinity : apart);
    largest = Math.max(largest, Math.abs(wasmResult[i]!));
  }
  const relative = difference / largest;
  return { name, against: 'WebAssembly on this machine', difference: relative, equal: gpuResult.length === wasmResult.length && relative <= 1e-3 };
}

function progress(stage: string): void {
  if (process.stderr.isTTY) note(`${describeRun({ adapter, quick, runs })}: ${stage} …`);
}
