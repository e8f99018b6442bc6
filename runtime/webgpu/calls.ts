/** Dispatches with everything that they need, as an executor records them. */
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
