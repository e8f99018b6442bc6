/** Finds an adapter and makes a device that has what an artifact asks for. */
import { InputError } from '../error.ts';
import type { GpuProgram } from '../manifest.ts';
import { dawnGpu } from './dawn.ts';
import { GpuFailure, LostGpu, NoGpu, ShaderError } from './error.ts';
import type { Gpu, GpuAdapter, GpuDevice } from './types.ts';

/** Longest that WebGPU may take to answer, in milliseconds. Compiling shaders on a software adapter takes longest. */
export const patience = { device: 30_000, pipelines: 300_000, run: 600_000, loss: 1000 } as const;

/** A device and who it is. `own`: it ends with the session. */
export interface OpenDevice {
  readonly device: GpuDevice;
  readonly adapter: string;
  readonly own: boolean;
}

/** An adapter, for several sessions: `device` goes to `load`. Ends with `close`. */
export interface SharedGpu {
  readonly device: GpuDevice;
  readonly adapter: string;
  close(): void;
}

/** A device with the artifact's limits. */
export async function openDevice(program: GpuProgram, wanted: { readonly timestamps: boolean }): Promise<OpenDevice> {
  const adapter = await findAdapter();
  checkOffer(adapter, nameOf(adapter), program);
  const limits = Object.fromEntries(Object.entries(program.limits).map(([name, least]) => [name, Math.max(least, defaults[name] ?? 0)]));
  return { device: await deviceOf(adapter, limits, wanted), adapter: nameOf(adapter), own: true };
}

/** Throws a NoGpu that says what the artifact needs where an adapter, or a device that was made before, offers less. */
export function checkOffer(offer: Pick<GpuAdapter, 'limits' | 'features'>, name: string, program: GpuProgram): void {
  const limit = Object.entries(program.limits).find(([key, least]) => (offer.limits[key] ?? 0) < least);
  if (limit) throw new NoGpu(`the GPU adapter ${name} offers ${limit[0]} = ${offer.limits[limit[0]]}, but this artifact needs ${limit[1]}`);
  const feature = (program.features ?? []).find((f) => !offer.features.has(f));
  if (feature !== undefined) throw new NoGpu(`the GPU adapter ${name} lacks the feature ${feature}, which this artifact needs${feature === 'shader-f16' ? ' (it was compiled with --f16)' : ''}`);
}

/** A device with all that its adapter offers, to load many artifacts on. An InputError where there is none. */
export async function openGpu(): Promise<SharedGpu> {
  const adapter = await findAdapter();
  const device = await deviceOf(adapter, Object.fromEntries(Object.keys(defaultLimits).map((n) => [n, adapter.limits[n]!])), { timestamps: true });
  return {
    device,
    adapter: nameOf(adapter),
    close() {
      closed.add(device);
      device.destroy();
    },
  };
}

const closed = new WeakSet<GpuDevice>();
/** Whether `close` has ended a shared device. */
export const isClosed = (device: GpuDevice): boolean => closed.has(device);

/** WebGPU's default limits: every device has them, asked for or not. */
export const defaultLimits = {
  maxBufferSize: 256 * 2 ** 20, maxStorageBufferBindingSize: 128 * 2 ** 20, maxStorageBuffersPerShaderStage: 8, maxComputeWorkgroupStorageSize: 16384, maxComputeInvocationsPerWorkgroup: 256,
} as const satisfies GpuProgram['limits'];
const defaults: Readonly<Record<string, number>> = defaultLimits;

/** A device with these limits and with what the adapter has of the features that shaders and profiles may use. */
function deviceOf(adapter: GpuAdapter, limits: Readonly<Record<string, number>>, { timestamps }: { readonly timestamps: boolean }): Promise<GpuDevice> {
  const features = [...(timestamps ? ['timestamp-query'] : []), 'subgroups', 'shader-f16'].filter((f) => adapter.features.has(f));
  // Shaders lay all invocations of a workgroup along its first axis.
  const along = Math.min(limits['maxComputeInvocationsPerWorkgroup']!, adapter.limits['maxComputeWorkgroupSizeX']!);
  return bounded(adapter.requestDevice({ requiredLimits: { ...limits, maxComputeWorkgroupSizeX: along }, requiredFeatures: features }).catch(refused(`the GPU adapter ${nameOf(adapter)} made no device`)), patience.device, 'the GPU adapter made no device');
}

async function findAdapter(): Promise<GpuAdapter> {
  const gpu = await findGpu();
  const adapter = await bounded(gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(refused('WebGPU named no adapter')), patience.device, 'WebGPU named no adapter');
  if (adapter) return adapter;
  const inNode = globalThis.process?.versions?.node !== undefined;
  throw new NoGpu(`there is no GPU adapter here${inNode ? ': in Node, WebGPU needs a Vulkan loader and driver on Linux; Debian\'s package chromium has both; on a Node without node:ffi set LD_LIBRARY_PATH=/usr/lib/chromium to use them' : ''}`);
}

/** What WebGPU refuses with an error of its own: as good as a GPU that is missing. */
const refused = (what: string) => (e: unknown): never => {
  throw new NoGpu(`${what}: ${wordsOf(e)}`);
};

/** What an error of WebGPU says; some say nothing. */
export function wordsOf(e: unknown): string {
  const { name, message } = e as { readonly name?: unknown; readonly message?: unknown };
  const text = [message, name].find((t): t is string => typeof t === 'string' && t.trim() !== '') ?? 'it does not say why';
  return text.trim().replace(/\s*\n\s*/g, ' ');
}

/** The browser's WebGPU, or Dawn in Node. */
async function findGpu(): Promise<Gpu> {
  const own = (globalThis as { navigator?: { gpu?: Gpu } }).navigator?.gpu;
  if (own) return own;
  if (globalThis.process?.versions?.node === undefined) throw new NoGpu('this browser has no WebGPU; use an artifact of the model that was compiled for wasm');
  return dawnGpu();
}

function nameOf(adapter: GpuAdapter): string {
  const { vendor = '', architecture = '', device = '', description = '' } = adapter.info ?? {};
  return [vendor, architecture, description || device].filter((t) => t !== '').join(' ') || 'without a name';
}

/** Waits for work on a device, and no longer than for the loss of it, which is told in place of what it breaks. */
export async function unlessLost<T>(device: GpuDevice, work: Promise<T>): Promise<T> {
  const lost = device.lost.then(({ reason, message }): never => {
    throw new LostGpu(lossOf(reason, message));
  });
  lost.catch(() => {});
  try {
    return await Promise.race([work, lost]);
  } catch (e) {
    if (e instanceof InputError || e instanceof LostGpu || e instanceof ShaderError) throw e;
    // Of a lost device, what was under way is told before the loss.
    await bounded(lost, patience.loss, '').catch((late: unknown) => {
      if (late instanceof LostGpu) throw late;
    });
    throw e;
  }
}

/** How the loss of a device is told. */
export const lossOf = (reason: string, message: string): string => `the GPU device was lost (${reason || 'unknown'}): ${message}`;

/** Rejects with a GpuFailure where a promise takes longer than so many milliseconds. */
export async function bounded<T>(promise: Promise<T>, limit: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new GpuFailure(`${what} within ${limit / 1000} s`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
