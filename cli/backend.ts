/** The option --backend: what a model is compiled for. */
import { Option } from 'commander';
import type { Backend } from './driver/compile.ts';

/** `--backend wasm|wgsl`, with wasm as the default. */
export const backendOption = (): Option => new Option('--backend <name>', 'wasm: WebAssembly on the CPU; wgsl: a GPU through WebGPU').choices(['wasm', 'wgsl'] satisfies Backend[]).default('wasm' satisfies Backend);

/** What was measured or run on, for people: threads and module, or the GPU. */
export const placeOf = (session: { readonly threads: number; readonly features: string; readonly notices: readonly string[] }): string =>
  session.features === 'webgpu' ? (session.notices.find((n) => n.startsWith('GPU: ')) ?? 'WebGPU') : `${session.threads} ${session.threads === 1 ? 'thread' : 'threads'} (${session.features})`;
