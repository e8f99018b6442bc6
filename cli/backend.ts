/** The option --backend: what a model is compiled for. */
import { InvalidArgumentError, Option } from 'commander';
import { defaultLimits } from '../runtime/webgpu/device.ts';
import type { Backend } from './driver/compile.ts';
import type { GpuLimits } from './driver/gpu.ts';
import { byteCount, pairs } from './options.ts';

/** `--backend wasm|wgsl`, with wasm as the default. */
export const backendOption = (): Option => new Option('--backend <name>', 'wasm: WebAssembly on the CPU; wgsl: a GPU through WebGPU').choices(['wasm', 'wgsl'] satisfies Backend[]).default('wasm' satisfies Backend);

const limitNames = Object.keys(defaultLimits) as readonly (keyof GpuLimits)[];

/** `--gpu-limit name=value`, which may be repeated; sizes as 1GiB. */
export const gpuLimitOption = (): Option => new Option('--gpu-limit <name=value>', `with --backend wgsl: a limit that adapters have, where that is not WebGPU’s default; may be repeated: ${limitNames.join(', ')}`)
  .argParser((text: string, before: GpuLimits | undefined): GpuLimits => {
    const [name, value] = Object.entries(pairs(text))[0]!;
    const known = limitNames.find((n) => n === name);
    if (known === undefined) throw new InvalidArgumentError(`there is no limit ${name}; there are ${limitNames.join(', ')}`);
    return { ...before, [known]: byteCount(value) };
  });

/** What was measured or run on, for people: threads and module, or the GPU. */
export const placeOf = (session: { readonly threads: number; readonly features: string; readonly notices: readonly string[] }): string =>
  session.features === 'webgpu' ? (session.notices.find((n) => n.startsWith('GPU: ')) ?? 'WebGPU') : `${session.threads} ${session.threads === 1 ? 'thread' : 'threads'} (${session.features})`;
