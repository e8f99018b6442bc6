/**
 * What a GPU reaches: npm run bench:gpu -- [--size 4096] [--runs 5] [--matmul] [--json]
 *
 * The rate of a loop that computes in registers alone (the most that f32 WGSL gives here), and of products, convolutions of ResNet-50 and their weight gradients as the compiler emits them. Times
 * of kernels are those of the GPU's own clock (timestamp-query), or of the host's, from submission to the end, where the GPU has none; the median of the runs. Weights and inputs are made here;
 * results are compared with plain sums at some places. `--matmul`: the matrix product alone.
 */
import { artifactOf } from '../cli/driver/compile.ts';
import { wgslTarget } from '../cli/driver/target.ts';
import { say, sayJson, table } from '../cli/print.ts';
import { median } from '../cli/statistics.ts';
import { Builder } from '../ir/builder.ts';
import type { Attrs } from '../ir/graph.ts';
import { sizeOf, type Tensor } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { load, openGpu, type SharedGpu } from '../runtime/index.ts';
import { bounded, patience } from '../runtime/webgpu/device.ts';
import { computeStage, usage } from '../runtime/webgpu/types.ts';
import { isSoftware } from './gpu-report/table.ts';
import { commandLine, stop } from './options.ts';

const { options, usage: howTo } = commandLine('npm run bench:gpu', '', { size: 4096, runs: 5, matmul: false, json: false });
const { size, runs } = options;
if (size < 16) stop(`--size is 16 at least, not ${size}; ${howTo}`);

interface Case { readonly name: string; readonly op: string; readonly shapes: readonly (readonly number[])[]; readonly attrs: Attrs }
const scale = Math.max(1, Math.round(4096 / size));
const batch = Math.max(1, Math.round(32 / scale));
const square = { strides: [1, 1], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 };
const cases: readonly Case[] = [
  { name: `matmul ${size} x ${size} x ${size}`, op: 'contract', shapes: [[size, size], [size, size]], attrs: { spec: 'mk,kn->mn' } },
  { name: `conv 3x3, ${batch}x64x56x56`, op: 'conv', shapes: [[batch, 64, 56, 56], [64, 64, 3, 3]], attrs: square },
  { name: `conv 1x1, ${batch}x256x56x56 to 64`, op: 'conv', shapes: [[batch, 256, 56, 56], [64, 256, 1, 1]], attrs: { ...square, pads: [0, 0, 0, 0] } },
  { name: `conv 3x3, ${batch}x512x7x7`, op: 'conv', shapes: [[batch, 512, 7, 7], [512, 512, 3, 3]], attrs: square },
  { name: `its weight gradient, ${batch}x64x56x56`, op: 'convWeight', shapes: [[batch, 64, 56, 56], [batch, 64, 56, 56]], attrs: { ...square, kernel: [3, 3] } },
];

const gpu = await openGpu();
const software = isSoftware(gpu.adapter);
const clock = gpu.device.features.has('timestamp-query') ? 'GPU' : 'host';
try {
  const peak = await registerRate(gpu);
  const rows = [];
  for (const c of options.matmul ? cases.slice(0, 1) : cases) rows.push({ name: c.name, ...(await measure(gpu, c)) });
  if (options.json) sayJson({ adapter: gpu.adapter, clock, registers: peak, cases: rows });
  else {
    say(`${gpu.adapter}: ${peak.toFixed(1)} GFLOP/s in registers alone; median of ${runs} runs by the clock of the ${clock}`);
    for (const line of table(['case', 'ms', 'GFLOP/s', 'of registers'], rows.map((r) => [r.name, r.ms.toFixed(3), r.gflops.toFixed(1), `${((100 * r.gflops) / peak).toFixed(1)} %`]), [1, 2, 3])) say(line);
  }
} finally {
  gpu.close();
}

/** GFLOP/s of multiply-adds on 16 vec4 of each invocation, which touch no memory: the best of the runs, of a loop so long that its submission does not count. */
async function registerRate({ device }: SharedGpu): Promise<number> {
  const [workgroups, vectors, longEnough] = [software ? 64 : 32768, 16, 30];
  const buffer = device.createBuffer({ size: 16384, usage: usage.storage });
  const layout = device.createBindGroupLayout({ entries: [{ binding: 0, visibility: computeStage, buffer: { type: 'storage' } }] });
  const group = device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer, offset: 0, size: 16384 } }] });
  const loopOf = async (rounds: number): Promise<() => Promise<number>> => {
    const module = device.createShaderModule({ code: registerLoop(rounds, vectors) });
    const pipeline = await device.createComputePipelineAsync({ layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module, entryPoint: 'main' } });
    return async () => {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(workgroups);
      pass.end();
      const begun = performance.now();
      device.queue.submit([encoder.finish()]);
      await bounded(device.queue.onSubmittedWorkDone(), patience.run, 'the GPU did not finish the loop in registers');
      return performance.now() - begun;
    };
  };
  for (let rounds = 256; ; rounds *= 4) {
    const once = await loopOf(rounds);
    await once();
    if ((await once()) < longEnough && rounds < 2 ** 20) continue;
    const times: number[] = [];
    for (let i = 0; i < Math.max(3, runs); i++) times.push(await once());
    buffer.destroy();
    return (workgroups * 64 * rounds * vectors * 4 * 2) / Math.min(...times) / 1e6;
  }
}

/** Multiply-adds of so many vec4 that depend on nothing but themselves; the store keeps a compiler from dropping them. */
function registerLoop(rounds: number, vectors: number): string {
  const names = Array.from({ length: vectors }, (_, i) => `v${i}`);
  return `@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let a = vec4<f32>(f32(id.x) * 1e-9);
${names.map((v, i) => `  var ${v} = vec4<f32>(${i}.5);`).join('\n')}
  for (var i = 0; i < ${rounds}; i++) {
${names.map((v) => `    ${v} = fma(${v}, a, ${v});`).join('\n')}
  }
  y[id.x & 1023u] = ${names.join(' + ')};
}`;
}

async function measure(on: SharedGpu, { op, shapes, attrs }: Case): Promise<{ ms: number; gflops: number }> {
  const b = new Builder(op);
  const y = b.one(op, shapes.map((shape, i) => b.input({ dtype: 'f32', shape }, `x${i}`)), attrs);
  const graph = runPipeline(b.finish([{ name: 'y', value: y }]), wgslTarget);
  const artifact = await artifactOf({ imported: { bound: {}, dims: {}, warnings: [] }, graph }, { backend: 'wgsl', profile: true });
  await using session = await load(artifact, { gpu: on });
  const inputs = Object.fromEntries(shapes.map((shape, i): [string, Tensor] => [`x${i}`, { dtype: 'f32', shape: [...shape], data: Float32Array.from({ length: sizeOf(shape) }, (_, k) => ((k * 7919 + i) % 1009) / 1009 - 0.5) }]));
  const times: number[] = [];
  for (let i = 0; i < runs + 1; i++) {
    const out = await session.run(inputs);
    if (i === 0) checkProduct(op, inputs, out['y']!);
    else times.push(session.profile()!.reduce((n, s) => n + s.end - s.start, 0));
  }
  const ms = median(times);
  return { ms, gflops: artifact.manifest.steps.reduce((n, s) => n + s.flops, 0) / ms / 1e6 };
}

/** Compares a few elements of a matrix product with plain sums; a fast kernel that is wrong is no result. */
function checkProduct(op: string, inputs: Readonly<Record<string, Tensor>>, y: Tensor): void {
  if (op !== 'contract') return;
  const [a, c] = [inputs['x0']!.data as Float32Array, inputs['x1']!.data as Float32Array];
  for (const [m, n] of [[0, 0], [size - 1, size - 1], [size >> 1, 3]] as const) {
    let sum = 0;
    for (let k = 0; k < size; k++) sum += a[m * size + k]! * c[k * size + n]!;
    const got = (y.data as Float32Array)[m * size + n]!;
    if (!(Math.abs(got - sum) <= 1e-4 * size ** 0.5)) throw new Error(`element [${m},${n}] of the product is ${got}, expected ${sum}`);
  }
}
