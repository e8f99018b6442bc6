/** Dispatches with everything that they need, as an executor records them. */
import { InputError } from '../error.ts';
import type { GpuProgram, GpuStep } from '../manifest.ts';
import { bounded, patience, type OpenDevice } from './device.ts';
import type { Pipeline } from './pipelines.ts';
import type { GpuBindGroup, GpuBuffer, GpuComputePass, GpuPipeline } from './types.ts';

/** One dispatch. `from`: where its workgroups are read while it runs, in place of `x` and `y`. */
export interface Call {
  readonly pipeline: GpuPipeline;
  readonly group: GpuBindGroup;
  readonly x: number;
  readonly y: number;
  readonly from?: { readonly buffer: GpuBuffer; readonly offset: number };
  /** Its row in the manifest's list of steps. */
  readonly step: number;
}

/** A dispatch, or calls that run so many times. */
export type CallTree = Call | { readonly repeat: number; readonly body: readonly CallTree[] };

/** The calls of each entry of a program, bound to its buffers; equal bindings share a group. Throws an InputError where the device does not take them, and then frees the buffers. */
export async function bindCalls({ device, adapter }: OpenDevice, program: GpuProgram, pipelines: readonly Pipeline[], buffers: readonly GpuBuffer[]): Promise<CallTree[][]> {
  const groups = new Map<string, GpuBindGroup>();
  const tree = (steps: readonly GpuStep[]): CallTree[] => steps.map((s): CallTree => {
    if ('repeat' in s) return { repeat: s.repeat, body: tree(s.body) };
    const { pipeline, layout } = pipelines[s.shader]!;
    const key = `${s.shader} ${s.bindings.join(' ')}`;
    let group = groups.get(key);
    if (!group) {
      group = device.createBindGroup({ layout, entries: s.bindings.map(([segment, offset, size], binding) => ({ binding, resource: { buffer: buffers[segment]!, offset, size } })) });
      groups.set(key, group);
    }
    return { pipeline, group, x: s.workgroups[0], y: s.workgroups[1], ...(s.indirect && { from: { buffer: buffers[s.indirect[0]]!, offset: s.indirect[1] } }), step: s.step };
  });
  device.pushErrorScope('validation');
  const entries = program.entries.map(tree);
  const invalid = await bounded(device.popErrorScope(), patience.device, 'the GPU did not take its bindings');
  if (!invalid) return entries;
  for (const b of buffers) b.destroy();
  throw new InputError(`the artifact does not fit this GPU (${adapter}): ${invalid.message}`);
}

/** Calls `visit` with every dispatch, in order. */
export function walkCalls(calls: readonly CallTree[], visit: (call: Call) => void): void {
  for (const c of calls) {
    if ('repeat' in c) for (let i = 0; i < c.repeat; i++) walkCalls(c.body, visit);
    else visit(c);
  }
}

/** Records a dispatch. */
export function record(pass: GpuComputePass, { pipeline, group, x, y, from }: Call): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  if (from) pass.dispatchWorkgroupsIndirect(from.buffer, from.offset);
  else pass.dispatchWorkgroups(x, y);
}
