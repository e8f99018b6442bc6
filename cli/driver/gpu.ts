/** The parts of an artifact for WebGPU. */
import type { Machine } from '../../backends/wgsl/machine.ts';
import { emitWgsl } from '../../backends/wgsl/program.ts';
import type { ImportedModel } from '../../frontend/index.ts';
import type { TileProgram } from '../../ir/tile.ts';
import { UserError } from '../../ir/diagnostic.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { control } from '../../runtime/control.ts';
import type { GpuProgram, Manifest, StateEntry } from '../../runtime/manifest.ts';
import { defaultLimits } from '../../runtime/webgpu/device.ts';
import type { Files } from './folder.ts';
import { makeManifest, weightsOf } from './manifest.ts';
import { readTarget } from './target-file.ts';

/** What `emitGpu` makes: `shaders` by file name, `files` as they are written beside the manifest. */
export interface GpuParts {
  readonly manifest: Manifest;
  readonly shaders: Readonly<Record<string, string>>;
  readonly files: Files;
}

/** Emits the shaders of a program that was planned for `wgslTarget`, and describes it. `roles`: of the state of a training program. */
export function emitGpu(
  imported: Pick<ImportedModel, 'bound' | 'dims'>, program: TileProgram, options: { readonly profile: boolean; readonly producer: string; readonly machine: Machine; readonly target?: Manifest['target'] | undefined },
  roles: ReadonlyMap<string, StateEntry['role']> | undefined,
): GpuParts {
  const { shaders, gpu, steps, entrySteps } = emitWgsl(program, options.machine);
  const end = control.size + Math.max(0, ...gpu.segments.map((s) => s.start + s.bytes));
  const facts = { modules: [], steps, scratch: end, scratchPerThread: 0, maxThreads: 1, profile: options.profile ? profileAddress : -1, training: roles && { roles, entrySteps }, target: options.target };
  const base = makeManifest(imported, program, facts, options.producer);
  const types = new Map(weightsOf(program).map((t) => [t.name, t.dtype]));
  const manifest: Manifest = { ...base, backend: 'wgsl', weights: base.weights.map((w) => ({ ...w, dtype: types.get(w.name)! })), gpu };
  const bytes = (text: string): Uint8Array[] => [new TextEncoder().encode(text)];
  return {
    manifest,
    shaders,
    // The folder is for people; the runtime reads all at once.
    files: { ...Object.fromEntries(Object.entries(shaders).map(([file, text]) => [`shaders/${file}`, bytes(text)])), 'shaders.json': bytes(JSON.stringify(shaders)) },
  };
}

/** What an adapter is taken to offer: WebGPU's names and defaults, but for the memory of a workgroup, which a target says (targets/gpu.json, or one in its form). */
export type GpuLimits = Partial<GpuProgram['limits']>;

/** The machine that shaders are written for. A limit below WebGPU's default may be asked for, too. */
export function machineOf(limits: GpuLimits = {}, { f16 = false, target }: { readonly f16?: boolean; readonly target?: TileTarget | undefined } = {}): Machine {
  const { tiles, bytesPerTile } = (target ?? readTarget('gpu')).constants;
  // A target that is named is kept to, and so is a limit.
  const most = limits.maxComputeWorkgroupStorageSize ?? bytesPerTile;
  const all = { ...defaultLimits, ...limits, maxComputeWorkgroupStorageSize: target ? Math.min(bytesPerTile, most) : most };
  const aligned = (name: 'maxBufferSize' | 'maxStorageBufferBindingSize'): number => {
    if (all[name] < 256) throw new UserError(`${name} is ${all[name]} bytes, expected at least 256`);
    return Math.floor(all[name] / 256) * 256;
  };
  return {
    workgroups: tiles, workgroupBytes: all.maxComputeWorkgroupStorageSize, invocations: all.maxComputeInvocationsPerWorkgroup, bindings: all.maxStorageBuffersPerShaderStage,
    bindingBytes: aligned('maxStorageBufferBindingSize'), bufferBytes: aligned('maxBufferSize'), f16,
  };
}

/** In the control block, which no tensor lies in: a profiling build's times are read there. */
const profileAddress = 8;
