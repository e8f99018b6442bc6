/** The parts of an artifact for WebGPU. */
import { emitWgsl } from '../../backends/wgsl/program.ts';
import type { ImportedModel } from '../../frontend/index.ts';
import type { TileProgram } from '../../ir/tile.ts';
import { control } from '../../runtime/control.ts';
import type { Manifest, StateEntry } from '../../runtime/manifest.ts';
import type { Files } from './folder.ts';
import { makeManifest, weightsOf } from './manifest.ts';

/** What `emitGpu` makes: `shaders` by file name, `files` as they are written beside the manifest. */
export interface GpuParts {
  readonly manifest: Manifest;
  readonly shaders: Readonly<Record<string, string>>;
  readonly files: Files;
}

/** Emits the shaders of a program that was planned for `wgslTarget`, and describes it. `roles`: of the state of a training program. */
export function emitGpu(
  imported: Pick<ImportedModel, 'bound' | 'dims'>, program: TileProgram, options: { readonly profile: boolean; readonly producer: string },
  roles: ReadonlyMap<string, StateEntry['role']> | undefined,
): GpuParts {
  const { shaders, gpu, steps, entrySteps } = emitWgsl(program);
  const end = control.size + Math.max(0, ...gpu.segments.map((s) => s.start + s.bytes));
  const facts = { modules: [], steps, scratch: end, scratchPerThread: 0, maxThreads: 1, profile: options.profile ? profileAddress : -1, training: roles && { roles, entrySteps } };
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

/** In the control block, which no tensor lies in: a profiling build's times are read there. */
const profileAddress = 8;
