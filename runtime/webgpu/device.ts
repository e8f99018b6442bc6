/** Finds an adapter and makes a device that has what an artifact asks for. */
import { RunError } from '../error.ts';
import type { GpuProgram } from '../manifest.ts';
import { dawnGpu } from './dawn.ts';
import { NoGpu } from './error.ts';
import type { Gpu, GpuAdapter, GpuDevice } from './types.ts';

/** Longest that WebGPU may take to answer, in milliseconds. Compiling shaders on a software adapter takes longest. */
export const patience = { device: 30_000, pipelines: 300_000, run: 600_000, loss: 1000 } as const;

/** A device and who it is. `own`: it ends with the session. */
export interface OpenDevice {
  readonly device: GpuDevice;
  readonly adapter: string;
  readonly own: boolean;
  release(): void;
}

/** An adapter, for several sessions: `device` goes to `load`. Ends with `close`. */
export interface SharedGpu {
  readonly device: GpuDevice;
  readonly adapter: string;
  close(): void;
}

/** A device with the artifact's limits. */
export async function openDevice(program: GpuProgram, wanted: { readonly timestamps: boolean }): Promise<OpenDevice> {
  const { adapter, release } = await findAdapter();
  const missing = Object.entries(program.limits).find(([name, least]) => (adapter.limits[name] ?? 0) < least);
  if (missing) {
    release();
    throw new NoGpu(`the GPU adapter ${nameOf(adapter)} offers ${missing[0]} = ${adapter.limits[missing[0]]}, but this artifact needs ${missing[1]}`);
  }
  const limits = Object.fromEntries(Object.entries(program.limits).map(([name, least]) => [name, Math.max(least, defaults[name] ?? 0)]));
  const features = wanted.timestamps && adapter.features.has('timestamp-query') ? ['timestamp-query'] : [];
  const device = await bounded(adapter.requestDevice({ requiredLimits: limits, requiredFeatures: features }), patience.device, 'the GPU adapter made no device').catch((e: unknown) => {
    release();
    throw e;
  });
  return { device, adapter: nameOf(adapter), own: true, release };
}

/** A device with all that its adapter offers, to load many artifacts on. An InputError where there is none. */
export async function openGpu(): Promise<SharedGpu> {
  const { adapter, release } = await findAdapter();
  const names = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup'];
  const features = adapter.features.has('timestamp-query') ? ['timestamp-query'] : [];
  const device = await bounded(adapter.requestDevice({ requiredLimits: Object.fromEntries(names.map((n) => [n, adapter.limits[n]!])), requiredFeatures: features }), patience.device, 'the GPU adapter made no device');
  return {
    device,
    adapter: nameOf(adapter),
    close() {
      device.destroy();
      release();
    },
  };
}

/** WebGPU's default limits: every device has them, asked for or not. */
const defaults: Readonly<Record<string, number>> = {
  maxBufferSize: 256 * 2 ** 20, maxStorageBufferBindingSize: 128 * 2 ** 20, maxStorageBuffersPerShaderStage: 8, maxComputeWorkgroupStorageSize: 16384, maxComputeInvocationsPerWorkgroup: 256,
};

async function findAdapter(): Promise<{ readonly adapter: GpuAdapter; release(): void }> {
  const found = await findGpu();
  const adapter = await bounded(found.gpu.requestAdapter({ powerPreference: 'high-performance' }), patience.device, 'WebGPU named no adapter');
  if (adapter) return { adapter, release: found.release };
  found.release();
  const inNode = globalThis.process?.versions?.node !== undefined;
  throw new NoGpu(`there is no GPU adapter here${inNode ? ': in Node, WebGPU needs a Vulkan loader and driver on Linux; Debian\'s package chromium has both; on a Node without node:ffi set LD_LIBRARY_PATH=/usr/lib/chromium to use them' : ''}`);
}

/** The browser's WebGPU, or Dawn in Node. */
async function findGpu(): Promise<{ readonly gpu: Gpu; release(): void }> {
  const own = (globalThis as { navigator?: { gpu?: Gpu } }).navigator?.gpu;
  if (own) return { gpu: own, release: () => {} };
  if (globalThis.process?.versions?.node === undefined) throw new NoGpu('this browser has no WebGPU; use an artifact of the model that was compiled for wasm');
  let gpu: Gpu | undefined = await dawnGpu();
  return { get gpu() { return gpu!; }, release: () => (gpu = undefined) };
}

function nameOf(adapter: GpuAdapter): string {
  const { vendor = '', architecture = '', device = '', description = '' } = adapter.info ?? {};
  return [vendor, architecture, description || device].filter((t) => t !== '').join(' ') || 'without a name';
}

/** Rejects with a RunError where a promise takes longer than so many milliseconds. */
export async function bounded<T>(promise: Promise<T>, limit: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new RunError(`${what} within ${limit / 1000} s`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
