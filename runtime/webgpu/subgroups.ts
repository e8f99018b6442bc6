/** Whether subgroups may be used as shaders use them. */
import { bounded, patience } from './device.ts';
import { computeStage, mapRead, usage, type GpuDevice } from './types.ts';

const known = new WeakMap<GpuDevice, Promise<boolean>>();

/** Invocations of the workgroups that shaders join values of. */
const sizes = [64, 256];

/**
 * Whether a device has subgroups and lays them along a workgroup one after the other, which WGSL leaves open: asked of the device itself, once. Reductions by subgroups rely on it;
 * where it is not so, workgroup memory does their work.
 */
export function subgroupsInOrder(device: GpuDevice): Promise<boolean> {
  if (!device.features.has('subgroups')) return Promise.resolve(false);
  let answer = known.get(device);
  if (!answer) {
    answer = Promise.all(sizes.map((size) => inOrder(device, size))).then((all) => all.every(Boolean), () => false);
    known.set(device, answer);
  }
  return answer;
}

async function inOrder(device: GpuDevice, size: number): Promise<boolean> {
  const code = `enable subgroups;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(${size}) fn main(@builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) width: u32) {
  let first = subgroupShuffle(local, 0u);
  y[local] = select(0u, 1u, width > 0u && lane == local % width && first == local - lane && (width & (width - 1u)) == 0u);
}`;
  const bytes = 4 * size;
  const buffer = device.createBuffer({ size: bytes, usage: usage.storage | usage.copySource });
  const staging = device.createBuffer({ size: bytes, usage: usage.mapRead | usage.copyTarget });
  try {
    const layout = device.createBindGroupLayout({ entries: [{ binding: 0, visibility: computeStage, buffer: { type: 'storage' } }] });
    const pipeline = await bounded(device.createComputePipelineAsync({ layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module: device.createShaderModule({ code }), entryPoint: 'main' } }), patience.pipelines, 'the GPU driver did not compile a shader');
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer, offset: 0, size: bytes } }] }));
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await bounded(staging.mapAsync(mapRead), patience.device, 'the GPU did not answer');
    const answers = new Uint32Array(staging.getMappedRange().slice(0));
    staging.unmap();
    return answers.every((ok) => ok === 1);
  } finally {
    buffer.destroy();
    staging.destroy();
  }
}
