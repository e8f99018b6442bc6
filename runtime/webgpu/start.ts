/** From an opened artifact to a GPU that holds its weights. */
import type { OpenArtifact } from '../artifact.ts';
import type { Executor } from '../executor.ts';
import type { GpuProgram } from '../manifest.ts';
import { checkOffer, openDevice, unlessLost, type OpenDevice, type SharedGpu } from './device.ts';
import { makeExecutor } from './executor.ts';
import { makePipelines } from './pipelines.ts';

/** Finds a GPU (or takes the given one), compiles the shaders and makes the buffers; weights are filled by the caller. */
export async function startGpu(artifact: OpenArtifact, gpu: SharedGpu | undefined, notices: string[]): Promise<Executor> {
  const { manifest } = artifact;
  const program: GpuProgram = manifest.gpu!;
  const texts = artifact.shaders();
  // Where no GPU is found, nobody waits for the shaders.
  texts.catch(() => {});
  if (gpu) checkOffer(gpu.device, gpu.adapter, program);
  const open: OpenDevice = gpu ? { device: gpu.device, adapter: gpu.adapter, own: false } : await openDevice(program, { timestamps: manifest.profile >= 0 });
  try {
    const pipelines = await unlessLost(open.device, makePipelines(open.device, program.shaders, await texts));
    notices.push(`GPU: ${open.adapter}`);
    if (manifest.profile >= 0 && !open.device.features.has('timestamp-query')) notices.push('this GPU has no timestamp-query: times of steps are the host\'s, from submission to the end, and each step waits for the one before');
    return await unlessLost(open.device, makeExecutor(open, manifest, pipelines));
  } catch (e) {
    if (open.own) open.device.destroy();
    throw e;
  }
}
