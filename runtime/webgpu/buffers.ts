/** The memory of an artifact as GPU buffers. */
import type { GpuProgram } from '../manifest.ts';
import { bounded, patience, wordsOf, type OpenDevice } from './device.ts';
import { NoGpu } from './error.ts';
import { usage, type GpuBuffer } from './types.ts';

/** A buffer for each segment of a program. Memory that the GPU does not have is a NoGpu with numbers, and leaves no buffer behind. */
export async function makeBuffers({ device, adapter }: OpenDevice, program: GpuProgram): Promise<GpuBuffer[]> {
  device.pushErrorScope('out-of-memory');
  device.pushErrorScope('validation');
  const buffers: GpuBuffer[] = [];
  let thrown: unknown;
  try {
    for (const s of program.segments) buffers.push(device.createBuffer({ size: Math.max(256, s.bytes), usage: usage.storage | usage.copySource | usage.copyTarget | (s.kind === 'gate' ? usage.indirect : 0), label: s.kind }));
  } catch (e) {
    thrown = e;
  }
  const errors = await bounded(Promise.all([device.popErrorScope(), device.popErrorScope()]), patience.device, 'the GPU did not make its buffers');
  const error = thrown ?? errors.find((e) => e !== null);
  if (error === undefined) return buffers;
  for (const b of buffers) b.destroy();
  throw new NoGpu(`the GPU ${adapter} has no room for the ${mebibytes(programBytes(program))} that the model needs: ${wordsOf(error)}`);
}

/** Bytes of all buffers of a program. */
export const programBytes = (p: GpuProgram): number => p.segments.reduce((n, s) => n + s.bytes, 0);

/** Bytes as errors say them: whole MiB, rounded up. */
export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
