/** The option --backend: what a model is compiled for. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { openGpu, type LoadOptions } from '../runtime/index.ts';
import { defaultLimits } from '../runtime/webgpu/device.ts';
import type { Backend, CompileOptions } from './driver/compile.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { byteCount, pairs, refuseOption } from './options.ts';

/** `--backend wasm|wgsl`, with wasm as the default. */
export const backendOption = (): Option => new Option('--backend <name>', 'wasm: WebAssembly on the CPU; wgsl: a GPU through WebGPU').choices(['wasm', 'wgsl'] satisfies Backend[]).default('wasm' satisfies Backend);

/** `--f16`, which goes with shaders alone. */
export const f16Option = (note = ''): Option => new Option('--f16', `with --backend wgsl: store and compute in f16 (adapters need shader-f16); sums, inputs and outputs stay f32${note}`);

/** Refuses `--f16` where it does not go: with another backend, or with an artifact, whose element types are chosen. */
export function refuseF16({ f16, backend }: { readonly f16?: boolean; readonly backend: Backend }, isArtifact = false): void {
  refuseOption(f16 === true && isArtifact, '--f16', 'goes with an .onnx model: an artifact has its element types already; compile it again with --f16');
  refuseOption(f16 === true && backend !== 'wgsl', '--f16', 'goes with --backend wgsl');
}

/** How an artifact is loaded: where `--backend` was given on that backend or not at all. */
export const loadingOf = (command: Command, backend: Backend): Pick<LoadOptions, 'backend'> => (isGiven(command, 'backend') ? { backend: backend === 'wgsl' ? 'webgpu' : 'wasm' } : {});

/** Refuses `--threads` for a GPU. */
export const refuseThreads = (command: Command, backend: Backend): void =>
  refuseOption(backend === 'wgsl' && isGiven(command, 'threads'), '--threads', 'counts threads of WebAssembly; it does not go with --backend wgsl');

const isGiven = (command: Command, option: string): boolean => command.getOptionValueSource(option) === 'cli';

const limitNames = Object.keys(defaultLimits) as readonly (keyof GpuLimits)[];

/** `--gpu-limit name=value`, which may be repeated; sizes as 1GiB. `otherwise`: whose limits hold where it is not given. */
export const gpuLimitOption = (otherwise = 'this machine’s adapter'): Option => new Option('--gpu-limit <name=value>', `with --backend wgsl: a limit that shaders are written for, in place of that of ${otherwise}; may be repeated: ${limitNames.join(', ')}`)
  .argParser((text: string, before: GpuLimits | undefined): GpuLimits => {
    const [name, value] = Object.entries(pairs(text))[0]!;
    const known = limitNames.find((n) => n === name);
    if (known === undefined) throw new InvalidArgumentError(`there is no limit ${name}; there are ${limitNames.join(', ')}`);
    return { ...before, [known]: byteCount(value) };
  });

/** Refuses `--gpu-limit` where it does not go: with another backend, or with an artifact, whose shaders are written. */
export function refuseGpuLimit({ gpuLimit, backend }: { readonly gpuLimit?: GpuLimits; readonly backend: Backend }, isArtifact = false): void {
  refuseOption(gpuLimit !== undefined && isArtifact, '--gpu-limit', 'goes with an .onnx model: the shaders of an artifact are written already; compile it again with --gpu-limit');
  refuseOption(gpuLimit !== undefined && backend !== 'wgsl', '--gpu-limit', 'goes with --backend wgsl');
}

/** The limits for shaders that run here and now: those of this machine's adapter, but for those that are given. Nothing for other backends; NoGpu where there is no adapter. */
export async function limitsHere({ backend, gpuLimit }: { readonly backend: Backend; readonly gpuLimit?: GpuLimits }): Promise<Pick<CompileOptions, 'gpuLimits'>> {
  if (backend !== 'wgsl') return {};
  const gpu = await openGpu();
  const { limits } = gpu.device;
  const offered = Object.fromEntries(limitNames.map((name) => [name, limits[name]!]));
  gpu.close();
  return { gpuLimits: { ...offered, maxComputeInvocationsPerWorkgroup: Math.min(limits['maxComputeInvocationsPerWorkgroup']!, limits['maxComputeWorkgroupSizeX']!), ...gpuLimit } };
}

/** The adapter's name, for JSON; nothing where no GPU ran. */
export const gpuOf = (session: { readonly notices: readonly string[] }): { readonly gpu?: string } => {
  const notice = session.notices.find((n) => n.startsWith(gpuNotice));
  return notice === undefined ? {} : { gpu: notice.slice(gpuNotice.length) };
};

const gpuNotice = 'GPU: ';

/** What was measured or run on, for people: threads and module, or the GPU. */
export const placeOf = (session: { readonly threads: number; readonly features: string; readonly notices: readonly string[] }): string =>
  session.features === 'webgpu' ? (session.notices.find((n) => n.startsWith(gpuNotice)) ?? 'WebGPU') : `${session.threads} ${session.threads === 1 ? 'thread' : 'threads'} (${session.features})`;
