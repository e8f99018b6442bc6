/** From an opened artifact to a GPU that holds its weights. */
import type { OpenArtifact } from '../artifact.ts';
import type { Executor } from '../executor.ts';
import { InputError } from '../error.ts';
import { checkOffer, openDevice, type OpenDevice, type SharedGpu } from './device.ts';
import { makeExecutor } from './executor.ts';
import { makePipelines } from './pipelines.ts';

/** Finds a GPU (or takes the given one), compiles the shaders and makes the buffers; weights are filled by the caller. */
export async function startGpu(artifact: OpenArtifact, gpu: SharedGpu | undefined, notices: string[]): Promise<Executor> {
  const { manifest } = artifact;
  if (!manifest.gpu) throw new InputError('the manifest says that its backend is wgsl, and describes no program for a GPU');
  const texts = artifact.shaders();
  // Where no GPU is found, nobody waits for the shaders.
  texts.catch(() => {});
  if (gpu) checkOffer(gpu.device, gpu.adapter, manifest.gpu);
  const open: OpenDevice = gpu ? { device: gpu.device, adapter: gpu.adapter, own: false } : await openDevice(manifest.gpu, { timestamps: manifest.profile >= 0 });
  try {
    const pipelines = await makePipelines(open.device, manifest.gpu.shaders, await texts);
    notices.push(`GPU: ${open.adapter}`);
    if (manifest.profile >= 0 && !open.device.features.has('timestamp-query')) notices.push('this GPU has no timestamp-query: times of steps are the host\'s, from submission to the end, and each step waits for the one before');
    return await makeExecutor(open, manifest, pipelines);
  } catch (e) {
    if (open.own) open.device.destroy();
    throw e;
  }
}
