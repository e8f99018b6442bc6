/** From a planned program to an artifact: its modules or shaders, its manifest, its weights. */
import type { WasmModule } from '../../../backends/wasm/module.ts';
import type { ImportedModel } from '../../../frontend/index.ts';
import type { TileProgram } from '../../../ir/tile.ts';
import type { ArtifactObject, SpecialisationRequest } from '../../../runtime/artifact.ts';
import { chunkSource } from '../../../runtime/bytes.ts';
import type { Features } from '../../../runtime/features.ts';
import type { Manifest, StateEntry } from '../../../runtime/manifest.ts';
import { safetensorsChunks } from '../../../runtime/safetensors.ts';
import type { Files } from '../folder.ts';
import { emitGpu, machineOf } from '../gpu.ts';
import { makeManifest, weightsOf } from '../manifest.ts';
import { targetData } from '../target-file.ts';
import { version } from '../version.ts';
import { filesOf, savedAs, type Artifact } from './artifact.ts';
import type { CompileOptions } from './options.ts';
import { inStage } from './stage.ts';

/** Relaxed SIMD where the engine has it, else SIMD, else none. */
export const defaultFeatures: readonly Features[] = ['relaxed', 'simd', 'plain'];
const defaultMaxThreads = 64;

/** Compiles other specialisations of the model that an artifact with this manifest was made of. */
export type Respecialise = (manifest: Manifest, wanted: SpecialisationRequest) => Promise<ArtifactObject>;

/** What the importer tells of a model, as far as an artifact says it. */
export type ImportFacts = Pick<ImportedModel, 'bound' | 'dims' | 'warnings'>;

/** What some artifacts have. */
export interface Additions {
  /** Of the state of a training program. */
  readonly roles?: ReadonlyMap<string, StateEntry['role']>;
  readonly recompile?: Respecialise | undefined;
  /** Files beside those that every artifact has. */
  readonly files?: Files | undefined;
}

/** What a backend makes of a program. */
type Emitted = Pick<Artifact, 'manifest' | 'modules' | 'shaders'> & { readonly files: Files };

/** Emits the modules or shaders of a program and joins them to an artifact. */
export async function emitArtifact(imported: ImportFacts, program: TileProgram, options: CompileOptions, { roles, recompile, files }: Additions = {}): Promise<Artifact> {
  const { files: own, ...emitted } = options.backend === 'wgsl' ? emitShaders(imported, program, options, roles) : await emitModules(imported, program, options, roles);
  const { manifest, modules } = emitted;
  const chunks = safetensorsChunks(weightsOf(program));
  return {
    ...emitted,
    weights: chunkSource(chunks, 'weights.safetensors'),
    ...(recompile && { recompile: (wanted) => recompile(manifest, wanted) }),
    program,
    warnings: imported.warnings,
    ...savedAs(() => filesOf(manifest, modules, chunks, { ...files, ...own })),
  };
}

function emitShaders(imported: ImportFacts, program: TileProgram, options: CompileOptions, roles: Additions['roles']): Emitted {
  options.onProgress?.('emit wgsl', 0, 1);
  const settings = { profile: options.profile ?? false, producer: producer(), machine: machineOf(options.gpuLimits, options), target: options.target && targetData(options.target) };
  return { modules: {}, ...inStage('emit wgsl', program.graph, () => emitGpu(imported, program, settings, roles)) };
}

async function emitModules(imported: ImportFacts, program: TileProgram, options: CompileOptions, roles: Additions['roles']): Promise<Emitted> {
  // Binaryen takes a while to start; a model that is refused should not wait for it.
  const { emitWasm } = await import('../../../backends/wasm/module.ts');
  const features = options.features ?? defaultFeatures;
  const emitted: { features: Features; file: string; module: WasmModule }[] = [];
  for (const [i, f] of features.entries()) {
    options.onProgress?.(`emit ${f}`, i, features.length);
    emitted.push({ features: f, file: i === 0 ? 'model.wasm' : `model.${f}.wasm`, module: inStage(`emit ${f}`, program.graph, () => emitWasm(program, f, { profile: options.profile ?? false })) });
  }
  const [first] = emitted;
  if (!first) throw new TypeError('compile needs at least one feature set');
  const manifest = makeManifest(
    imported,
    program,
    {
      modules: emitted.map((e) => ({ features: e.features, file: e.file, memoryFlag: e.module.memoryFlag })),
      steps: first.module.steps,
      scratch: Math.max(...emitted.map((e) => e.module.scratch)),
      scratchPerThread: Math.max(...emitted.map((e) => e.module.scratchPerThread)),
      maxThreads: options.maxThreads ?? defaultMaxThreads,
      profile: first.module.profile,
      training: roles && { roles, entrySteps: first.module.entrySteps },
      target: options.target && targetData(options.target),
    },
    producer(),
  );
  return { manifest, modules: Object.fromEntries(emitted.map((e) => [e.file, e.module.binary])), files: {} };
}

const producer = (): string => `tilewright ${version()}`;
