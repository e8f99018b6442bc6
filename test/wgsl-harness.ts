/** Runs graphs through WebGPU, where this machine has an adapter. */
import { artifactOf, type Artifact, type CompileOptions } from '../cli/driver/compile.ts';
import { wgslTarget } from '../cli/driver/target.ts';
import type { Graph } from '../ir/graph.ts';
import type { Tensor } from '../ir/type.ts';
import { runPipeline } from '../passes/pipeline.ts';
import { load, openGpu, type SharedGpu } from '../runtime/index.ts';

const found: SharedGpu | string = await openGpu().catch((e: unknown) => (e instanceof Error ? e.message.split(';')[0]! : String(e)));

/** The adapter, one for all tests of a file. */
export const gpu: SharedGpu | undefined = typeof found === 'string' ? undefined : found;
/** What a group of tests is called that needs it. */
export const onGpu = (what: string): string => (typeof found === 'string' ? `${what} (skipped: ${found})` : `${what} on ${found.adapter}`);

/** The same where it has shader-f16: SwiftShader has not; Mesa's lavapipe, from 24.3 on, has. */
export const halfGpu: SharedGpu | undefined = gpu?.device.features.has('shader-f16') ? gpu : undefined;
export const onHalfGpu = (what: string): string => (gpu && !halfGpu ? `${what} (skipped: ${gpu.adapter} has no shader-f16)` : onGpu(what));

/** The artifact of a graph as it stands (`optimize`: after the passes). */
export const compiled = (graph: Graph, optimize = true, options: Pick<CompileOptions, 'f16' | 'gpuLimits' | 'target'> = {}): Promise<Artifact> =>
  artifactOf({ imported: { bound: {}, dims: {}, warnings: [] }, graph: optimize ? runPipeline(graph, wgslTarget, { verify: true }) : graph }, { ...options, backend: 'wgsl' });

/** The outputs of a graph for inputs by name. */
export async function runOnGpu(graph: Graph, inputs: Readonly<Record<string, Tensor>>, options: Parameters<typeof compiled>[2] = {}): Promise<ReadonlyMap<string, Tensor>> {
  await using session = await load(await compiled(graph, true, options), { gpu: gpu! });
  return new Map(Object.entries(await session.run(inputs)));
}

/** Numbers between -1 and 1 that follow from the count alone. */
export function numbers(shape: readonly number[]): Tensor {
  let seed = 12345;
  const next = (): number => {
    seed = (seed * 16807) % 2147483647;
    return (seed / 2147483647) * 2 - 1;
  };
  return { dtype: 'f32', shape: [...shape], data: Float32Array.from({ length: shape.reduce((n, d) => n * d, 1) }, next) };
}
